"""The page behind an invitation's link: for strangers, for new people, for those who are in already."""

from __future__ import annotations

import html
import re
from typing import Any

import pytest
from django.test import Client

from accounts.actors import Actor
from accounts.models import Membership, Tailnet, User
from accounts.roles import Role
from accounts.services import invites
from accounts.services.people import suspend_member
from accounts.services.signinlink import create_link
from accounts.tenancy import memberships_of, scope
from accounts.views.invitation import MAX_FAILED
from tests.accounts import factories
from tests.openid import PERSON, app_settings, running_provider
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def harbour() -> Tailnet:
    return factories.tailnet(name="harbour", display_name="Harbour")[0]


def invite(tailnet: Tailnet, role: str = Role.AUDITOR) -> str:
    """The path of a new invitation, sent by somebody of the tailnet."""
    sender = factories.member(tailnet, Role.ADMIN)
    sender.user.display_name = "Maria"
    sender.user.save()
    made = invites.create_invite(
        tailnet=tailnet, email="new@example.com", role=role, by=Actor.person(sender.user)
    )
    return "/invite/" + made.link.rpartition("/")[2]


def test_a_stranger_sees_who_invites_to_what_and_signs_in_first(client: Client, harbour: Tailnet) -> None:
    path = invite(harbour)
    page = client.get(path).content.decode()
    for words in ("Join Harbour", "Maria", "Auditor", "Sees everything, changes nothing."):
        assert words in page
    assert f'href="/sign-in?next=%2Finvite%2F{path[8:]}"' in page
    assert client.post(path)["Location"].startswith("/sign-in?next=%2Finvite%2F")


def test_a_new_person_signs_in_and_comes_back_to_join(client: Client, harbour: Tailnet) -> None:
    path, user = invite(harbour), factories.person()
    client.get(f"/sign-in?next={path}")
    assert client.get(f"/sign-in/link/{create_link(user=user).token}")["Location"] == path
    assert "Accept and join" in client.get(path).content.decode()
    assert client.post(path)["Location"] == "/"
    (place,) = memberships_of(user.pk)
    assert (place.tailnet, place.role, place.is_active) == (harbour, Role.AUDITOR, True)
    page = client.get("/devices")
    assert page.context["tailnet"] == harbour
    assert "Welcome to Harbour." in page.content.decode()


def test_a_new_person_comes_through_a_provider_and_gets_no_other_tailnet(
    client: Client, harbour: Tailnet, settings: Any
) -> None:
    path = invite(harbour)
    with running_provider() as provider:
        settings.SOCIALACCOUNT_PROVIDERS = app_settings(provider)
        page = client.get(f"/sign-in?next={path}").content.decode()
        form = re.search(r'action="(/accounts/google/login/[^"]*)"', page)
        assert form is not None
        begun = client.post(html.unescape(form[1]))
        assert client.get(provider.follow(begun["Location"]))["Location"] == path
    user = User.objects.get(email=PERSON["email"])
    assert memberships_of(user.pk) == []
    assert PERSON["email"] in client.get(path).content.decode()
    assert client.post(path)["Location"] == "/"
    assert [place.tailnet for place in memberships_of(user.pk)] == [harbour]


def test_somebody_of_another_tailnet_joins_and_is_switched_over(harbour: Tailnet) -> None:
    home, owner = factories.tailnet()
    visitor = Visitor(owner, home)
    assert visitor.post(invite(harbour))["Location"] == "/"
    assert visitor.get("/devices").context["tailnet"] == harbour
    assert len(memberships_of(owner.pk)) == 2


def test_one_that_was_used_withdrawn_or_never_was_is_gone(client: Client, harbour: Tailnet) -> None:
    path = invite(harbour)
    Visitor(factories.tailnet()[1]).post(path)
    for gone in (path, "/invite/nothing", "/invite/" + "x" * 300):
        page = client.get(gone)
        assert page.status_code == 410
        assert "Harbour" not in page.content.decode()
    assert Visitor(factories.tailnet()[1]).post(path).status_code == 410


def test_whoever_is_in_already_leaves_it_for_another(harbour: Tailnet) -> None:
    path, member = invite(harbour), factories.member(harbour)
    visitor = Visitor.of(member)
    assert "in this tailnet already" in visitor.get(path).content.decode()
    assert visitor.post(path).status_code == 409
    assert Visitor(factories.tailnet()[1]).post(path).status_code == 302


def test_it_does_not_restore_who_is_suspended(harbour: Tailnet) -> None:
    path, member = invite(harbour), factories.member(harbour)
    suspend_member(membership=member, by=Actor.command())
    visitor = Visitor.of(member)
    assert "You are suspended in this tailnet" in visitor.get(path).content.decode()
    assert visitor.post(path).status_code == 409
    with scope(tailnet=harbour):
        assert Membership.objects.get(pk=member.pk).status == Membership.Status.SUSPENDED


def test_accepting_needs_its_csrf_token(harbour: Tailnet) -> None:
    visitor = Visitor(factories.tailnet()[1], enforce_csrf_checks=True)
    assert visitor.post(invite(harbour)).status_code == 403


def test_whoever_guesses_links_is_stopped(client: Client, harbour: Tailnet) -> None:
    path = invite(harbour)
    for number in range(MAX_FAILED):
        assert client.get(f"/invite/guess{number}").status_code == 410
    assert client.get(path).status_code == 429
