"""Groups of people: what their identity provider tells, and what they are given in a tailnet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.cache import cache
from django.test import Client

from accounts.actors import Actor
from accounts.errors import Forbidden, Invalid
from accounts.groups import MAX_GROUPS, MAX_NAME, groups_in, is_group
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.services.groups import set_groups
from accounts.services.people import add_member
from accounts.tenancy import memberships_of, scope
from tests.accounts import factories
from tests.api import as_client, as_person
from tests.openid import Provider, app_settings, running_provider
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
OWN = "/api/trenza/v1"


@pytest.mark.parametrize(
    ("claim", "groups"),
    [
        (["eng", "ops"], ("group:eng", "group:ops")),
        (["ops", "eng", "ops"], ("group:eng", "group:ops")),
        (["/eng", "group:ops"], ("group:eng", "group:ops")),
        ("eng", ("group:eng",)),
        (["On Call", "b@example.com"], ("group:On Call", "group:b@example.com")),
        (["", " eng", "a\nb", "x" * MAX_NAME, 7, None, ["eng"], {"a": 1}], ()),
        (None, ()),
        ({"eng": True}, ()),
        (7, ()),
    ],
)
def test_a_claim_lists_names_or_is_one(claim: Any, groups: tuple[str, ...]) -> None:
    assert groups_in(claim) == groups


def test_a_claim_is_bounded() -> None:
    assert len(groups_in([f"g{number}" for number in range(MAX_GROUPS + 50)])) == MAX_GROUPS


def test_what_names_a_group() -> None:
    good = ["group:eng", "group:a b", "group:équipe", "group:" + "x" * (MAX_NAME - 6)]
    bad = ["eng", "group:", "group: a", "group:a ", "group:a\x00", "group:" + "x" * (MAX_NAME - 5), 7, None]
    assert [name for name in [*good, *bad] if is_group(name)] == good


# --- what the provider tells -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def running() -> Iterator[Provider]:
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running: Provider, settings: Any) -> Provider:
    running.be_honest()
    settings.SOCIALACCOUNT_PROVIDERS = app_settings(running, groups_claim="teams")
    cache.clear()
    return running


def sign_in(provider: Provider) -> tuple[User, Tailnet]:
    """Ana signs in; who she is, and her first tailnet as it is then."""
    client = Client()
    begun = client.post("/accounts/oidc/login/?process=login")
    assert client.get(provider.follow(str(begun["Location"]))).status_code == 302
    assert "_auth_user_id" in client.session
    person = User.objects.get(sub="1001")
    return person, Tailnet.objects.get(pk=memberships_of(person.pk)[0].tailnet_id)


@pytest.mark.django_db
def test_groups_follow_the_token_of_each_sign_in(provider: Provider) -> None:
    provider.person["teams"] = ["ops", "/eng"]
    person, tailnet = sign_in(provider)
    assert person.groups == ["group:eng", "group:ops"]
    assert memberships_of(person.pk)[0].all_groups == person.groups
    assert sign_in(provider)[1].netmap_version == tailnet.netmap_version, "nothing new, no news"
    provider.person["teams"] = ["eng"]
    person, after = sign_in(provider)
    assert (person.groups, after.netmap_version) == (["group:eng"], tailnet.netmap_version + 1)
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.filter(target_property="PROFILE").latest("pk")
    assert (event.old, event.new) == ({"groups": ["group:eng", "group:ops"]}, {"groups": ["group:eng"]})
    del provider.person["teams"]
    assert sign_in(provider)[0].groups == [], "a token without the claim tells of no group"


@pytest.mark.django_db
def test_without_a_named_claim_no_token_tells_groups(provider: Provider, settings: Any) -> None:
    settings.SOCIALACCOUNT_PROVIDERS = app_settings(provider)
    provider.person |= {"groups": ["eng"], "teams": ["eng"]}
    assert sign_in(provider)[0].groups == []


# --- what a tailnet gives --------------------------------------------------------------------------------


@pytest.mark.django_db
def test_given_groups_count_beside_the_told_ones_and_in_one_tailnet_alone() -> None:
    tailnet, _ = factories.tailnet()
    place = factories.member(tailnet)
    User.objects.filter(pk=place.user_id).update(groups=["group:told"])
    before = Tailnet.objects.get(pk=tailnet.pk).netmap_version
    made = set_groups(membership=place, groups=["group:b", "group:a", "group:b"], by=Actor.command())
    assert (made.groups, made.all_groups) == (
        ["group:a", "group:b"],
        ["group:a", "group:b", "group:told"],
    )
    set_groups(membership=place, groups=["group:a", "group:b"], by=Actor.command())
    assert Tailnet.objects.get(pk=tailnet.pk).netmap_version == before + 1
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
    assert (event.target_type, event.target_property, event.old, event.new) == (
        "USER",
        "GROUPS",
        [],
        ["group:a", "group:b"],
    )
    other, _ = factories.tailnet()
    user = User.objects.get(pk=place.user_id)
    elsewhere = add_member(tailnet=other, user=user, by=Actor.command())
    assert elsewhere.all_groups == ["group:told"]


@pytest.mark.django_db
@pytest.mark.parametrize("groups", [["eng"], ["group:"], [f"group:{n}" for n in range(MAX_GROUPS + 1)]])
def test_bad_groups_are_refused(groups: list[str]) -> None:
    place = factories.member(factories.tailnet()[0])
    with pytest.raises(Invalid):
        set_groups(membership=place, groups=groups, by=Actor.command())


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "member", "admin"),
    [
        (Role.OWNER, True, True),
        (Role.ADMIN, True, True),
        (Role.IT_ADMIN, True, False),
        (Role.NETWORK_ADMIN, False, False),
        (Role.AUDITOR, False, False),
        (Role.MEMBER, False, False),
    ],
)
def test_who_writes_the_rules_groups_everybody_others_who_ranks_below(
    role: Role, member: bool, admin: bool
) -> None:
    tailnet, owner = factories.tailnet()
    by = Actor.person(owner if role is Role.OWNER else factories.member(tailnet, role).user)
    for target, allowed in ((Role.MEMBER, member), (Role.ADMIN, admin)):
        place = factories.member(tailnet, target)
        if allowed:
            assert set_groups(membership=place, groups=["group:a"], by=by).groups == ["group:a"]
        else:
            with pytest.raises(Forbidden):
                set_groups(membership=place, groups=["group:a"], by=by)


@pytest.mark.django_db
def test_the_api_sets_and_tells_groups() -> None:
    tailnet, owner = factories.tailnet()
    place = factories.member(tailnet)
    User.objects.filter(pk=place.user_id).update(groups=["group:told"])
    api, path = as_client(tailnet, "users"), f"/users/{place.user_id}/groups"
    api.prefix = OWN
    answer = {"groups": ["group:a", "group:b"], "providerGroups": ["group:told"]}
    assert api.get(path) == {"groups": [], "providerGroups": ["group:told"]}
    assert api.put(path, {"groups": ["group:b", "group:a"]}) == answer
    assert api.get(path) == answer
    assert api.put(f"/users/{owner.pk}/groups", {"groups": ["group:a"]})["groups"] == ["group:a"]
    for body, status in (({"groups": ["a"]}, 400), ({}, 400), ({"groups": ["group:a\x01"]}, 400)):
        assert api.refusal("PUT", path, body).status == status, body
    reader = as_client(tailnet, "users:read")
    reader.prefix = OWN
    assert reader.get(path) == answer
    assert reader.refusal("PUT", path, {"groups": []}).status == 403
    stranger, other = factories.tailnet()
    foreign = as_person(stranger, other)
    foreign.prefix = OWN
    assert foreign.refusal("PUT", path, {"groups": []}).status == 404
