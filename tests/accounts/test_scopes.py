"""Which scopes each role gives to a token that acts as the person, and to a client of the tailnet."""

from __future__ import annotations

import pytest

from accounts.actors import Actor
from accounts.errors import Forbidden
from accounts.models import Membership
from accounts.roles import Role
from accounts.scopes import SCOPES, scopes_of
from accounts.services.tokens import create_api_token, create_oauth_client
from nodes.scopeforms import AREA_WORDS, TokenForm
from tests.accounts import factories

OF_MEMBERS = {
    "all",
    "all:read",
    "devices:core",
    "devices:core:read",
    "devices:routes:read",
    "auth_keys",
    "auth_keys:read",
    "api_access_tokens",
    "api_access_tokens:read",
}
NETWORK = {"devices:routes", "policy_file", "dns", "services"}
DEVICES = {"devices:core", "devices:posture_attributes"}
SETTINGS = {"oauth_keys", "federated_keys", "feature_settings", "account_settings", "log_streaming"}
KEYS = {"auth_keys", "api_access_tokens"}
READING = {one for one in SCOPES if one.endswith(":read")}


def place(role: Role) -> Membership:
    return Membership(role=role, status=Membership.Status.ACTIVE)


@pytest.mark.parametrize(
    ("role", "token", "client"),
    [
        (Role.OWNER, SCOPES, SCOPES),
        (Role.ADMIN, SCOPES, SCOPES),
        (Role.IT_ADMIN, SCOPES - NETWORK, SCOPES - NETWORK - {"all"}),
        (Role.NETWORK_ADMIN, READING | NETWORK | KEYS | {"all"}, READING | NETWORK | {"auth_keys"}),
        (Role.AUDITOR, READING | {"all"}, READING),
        (Role.BILLING_ADMIN, {"all", "all:read"}, set()),
        (Role.MEMBER, OF_MEMBERS, set()),
    ],
)
def test_what_each_role_may_give(role: Role, token: set[str], client: set[str]) -> None:
    assert set(scopes_of(place(role), own=True)) == set(token)
    assert set(scopes_of(place(role), own=False)) == set(client)


def test_somebody_suspended_gives_nothing() -> None:
    assert scopes_of(Membership(role=Role.OWNER, status=Membership.Status.SUSPENDED), own=True) == ()


def test_the_form_has_every_scope_that_there_is() -> None:
    form = TokenForm(allowed=scopes_of(place(Role.OWNER), own=True))
    shown = {value for row in form.areas() for value, _word in form.fields[row.area].choices if value}
    assert shown | set(form.may()) == SCOPES | {"some"}
    assert {row.area for row in form.areas()} == set(AREA_WORDS)


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "scopes", "allowed"),
    [
        (Role.MEMBER, ["devices:core"], True),
        (Role.MEMBER, ["dns"], False),
        (Role.MEMBER, ["users:read"], False),
        (Role.NETWORK_ADMIN, ["dns"], True),
        (Role.AUDITOR, ["all:read"], False),
        (Role.BILLING_ADMIN, ["all"], False),
    ],
)
def test_a_token_has_no_more_than_its_makers_role(role: Role, scopes: list[str], allowed: bool) -> None:
    tailnet, _ = factories.tailnet()
    member = factories.member(tailnet, role)
    wanted = {"tailnet": tailnet, "user": member.user, "by": Actor.person(member.user), "scopes": scopes}
    if allowed:
        assert create_api_token(**wanted).token.scopes == scopes
    else:
        with pytest.raises(Forbidden):
            create_api_token(**wanted)


@pytest.mark.django_db
def test_nobody_makes_a_token_that_acts_as_somebody_else() -> None:
    tailnet, owner = factories.tailnet()
    member = factories.member(tailnet)
    with pytest.raises(Forbidden):
        create_api_token(tailnet=tailnet, user=member.user, by=Actor.person(owner))


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "scopes", "tags", "allowed"),
    [
        (Role.OWNER, ["all"], ["tag:ci"], True),
        (Role.IT_ADMIN, ["devices:core"], [], True),
        (Role.IT_ADMIN, ["devices:core"], ["tag:ci"], False),
        (Role.IT_ADMIN, ["dns"], [], False),
        (Role.IT_ADMIN, ["all"], [], False),
        (Role.NETWORK_ADMIN, ["dns"], [], False),
        (Role.MEMBER, ["devices:core"], [], False),
    ],
)
def test_a_client_has_no_more_than_its_makers_role(
    role: Role, scopes: list[str], tags: list[str], allowed: bool
) -> None:
    tailnet, owner = factories.tailnet()
    person = owner if role is Role.OWNER else factories.member(tailnet, role).user
    wanted = {"tailnet": tailnet, "by": Actor.person(person), "scopes": scopes, "tags": tags}
    if allowed:
        assert create_oauth_client(**wanted).client.tags == tags
    else:
        with pytest.raises(Forbidden):
            create_oauth_client(**wanted)
