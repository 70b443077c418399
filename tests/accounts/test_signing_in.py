"""Which tailnet a page is about, and whom a provider's token makes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from allauth.core.exceptions import ImmediateHttpResponse
from allauth.socialaccount.adapter import DefaultSocialAccountAdapter
from django.contrib.messages.storage.fallback import FallbackStorage
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from accounts.access import active_memberships, member_of, membership_in, require
from accounts.actors import Actor
from accounts.adapters import AccountAdapter, SocialAccountAdapter
from accounts.errors import Forbidden, NotFound
from accounts.middleware import CurrentTailnetMiddleware, switch_tailnet
from accounts.models import AuditEvent, Membership, User
from accounts.roles import Capability, Role
from accounts.services.people import add_member, suspend_member
from accounts.tenancy import ScopeError, scope
from tests.accounts import factories

pytestmark = pytest.mark.django_db


def page(user: Any, tailnet: Any = None) -> Any:
    """The request as a view sees it; ``seen`` is how many members the open scope shows, or ``None``."""
    request: Any = RequestFactory().get("/")
    request.user, request.session = user, SessionStore()
    if tailnet is not None:
        switch_tailnet(request, tailnet)

    def view(request: HttpRequest) -> HttpResponse:
        marked: Any = request
        try:
            marked.seen = Membership.objects.count()
        except ScopeError:
            marked.seen = None
        return HttpResponse()

    CurrentTailnetMiddleware(view)(request)
    return request


def test_a_stranger_opens_no_tailnet() -> None:
    request = page(SimpleNamespace(is_authenticated=False))
    assert (request.tailnet, request.membership, request.seen) == (None, None, None)


def test_the_chosen_tailnet_is_opened_and_no_other() -> None:
    first, owner = factories.tailnet(name="a")
    second, _ = factories.tailnet(name="b")
    add_member(tailnet=second, user=owner, by=Actor.command())
    foreign, _ = factories.tailnet(name="c")
    assert page(owner).tailnet == first
    request = page(owner, second)
    assert (request.tailnet, request.membership.role, request.seen) == (second, Role.MEMBER, 2)
    assert page(owner, foreign).tailnet == first
    assert [membership.tailnet for membership in request.memberships] == [first, second]


def test_a_suspended_person_has_no_tailnet() -> None:
    tailnet, _ = factories.tailnet()
    member = factories.member(tailnet)
    suspend_member(membership=member, by=Actor.command())
    assert page(member.user, tailnet).tailnet is None


def test_who_waits_for_approval_sees_where_but_may_nothing() -> None:
    tailnet, _ = factories.tailnet()
    user = factories.person()
    add_member(tailnet=tailnet, user=user, by=Actor.command(), needs_approval=True)
    request = page(user)
    assert request.tailnet == tailnet
    with pytest.raises(Forbidden):
        require(request.membership, Capability.SEE_OWN_DEVICES)


def test_missing_and_foreign_look_alike() -> None:
    tailnet, owner = factories.tailnet()
    foreign, stranger = factories.tailnet()
    with pytest.raises(NotFound) as missing:
        membership_in(user=owner, tailnet_id=10**9)
    with pytest.raises(NotFound) as forbidden:
        membership_in(user=owner, tailnet_id=foreign.pk)
    assert str(missing.value) == str(forbidden.value)
    assert membership_in(user=owner, tailnet_id=tailnet.pk).role == Role.OWNER
    member = factories.member(tailnet)
    with scope(tailnet=tailnet):
        assert member_of(membership=member, user_id=member.user_id) == member
        for user_id in (owner.pk, stranger.pk):
            with pytest.raises(NotFound):
                member_of(membership=member, user_id=user_id)
    assert [one.tailnet for one in active_memberships(user=member.user)] == [tailnet]


def login(provider: str = "google", **claims: Any) -> Any:
    given = {
        "iss": "https://accounts.google.com",
        "sub": "123",
        "email": "ana@example.com",
        "email_verified": True,
        "name": "Ana",
        "picture": "https://lh3.googleusercontent.com/a",
    }
    account = SimpleNamespace(extra_data=given | claims, uid="123", provider=provider)
    return SimpleNamespace(account=account, user=User(), email_addresses=["an address"])


def request_with_messages() -> Any:
    request: Any = RequestFactory().get("/")
    request.session = SessionStore()
    request._messages = FallbackStorage(request)
    return request


def test_a_person_is_issuer_and_subject() -> None:
    sociallogin = login()
    user = SocialAccountAdapter().populate_user(None, sociallogin, {})
    assert (user.iss, user.sub, user.email, user.name) == (
        "https://accounts.google.com",
        "123",
        "ana@example.com",
        "Ana",
    )
    assert user.username.startswith("u")


def test_a_sign_in_through_a_provider_is_in_the_audit_log() -> None:
    tailnet, owner = factories.tailnet()
    request: Any = RequestFactory().get("/")
    request.session = SessionStore()
    AccountAdapter().login(request, owner)
    assert request.session["_auth_user_id"] == str(owner.pk)
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
    assert (event.action, event.actor_name, event.target_name) == (
        "LOGIN",
        owner.login_name,
        owner.login_name,
    )


def test_a_provider_that_does_not_name_itself_is_not_taken_for_google() -> None:
    user = SocialAccountAdapter().populate_user(None, login("oidc", iss=None), {})
    assert user.iss == "urn:trenza:provider:oidc"


@pytest.mark.parametrize(
    ("issuer", "joined"), [("https://accounts.google.com", True), ("https://idp.example", False)]
)
def test_only_google_speaks_for_a_google_domain(
    monkeypatch: pytest.MonkeyPatch, issuer: str, joined: bool
) -> None:
    tailnet, _owner = factories.tailnet(google_domain="example.com")
    adapter, sociallogin = SocialAccountAdapter(), login(iss=issuer, hd="example.com")
    user = adapter.populate_user(None, sociallogin, {})
    user.set_unusable_password()
    user.save()
    monkeypatch.setattr(DefaultSocialAccountAdapter, "save_user", lambda *_, **__: user)
    adapter.save_user(None, sociallogin)
    assert (tailnet in [one.tailnet for one in active_memberships(user=user)]) is joined


@pytest.mark.parametrize("verified", [False, None, "true", "false", 1])
def test_an_unverified_address_signs_nobody_in(verified: object) -> None:
    with pytest.raises(ImmediateHttpResponse):
        SocialAccountAdapter().pre_social_login(request_with_messages(), login(email_verified=verified))


def test_addresses_are_kept_from_matching() -> None:
    sociallogin = login()
    SocialAccountAdapter().pre_social_login(request_with_messages(), sociallogin)
    assert sociallogin.email_addresses == []


@pytest.mark.parametrize("picture", ["javascript:alert(1)", "http://x/y", "https://" + "x" * 2000, ""])
def test_a_picture_is_an_https_address_or_none(picture: str) -> None:
    assert SocialAccountAdapter().populate_user(None, login(picture=picture), {}).picture_url == ""


def test_nobody_signs_up_by_a_form() -> None:
    assert AccountAdapter().is_open_for_signup(None) is False
