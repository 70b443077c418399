"""Which tailnet a page is about, and that nobody signs up by a form."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from accounts.access import active_memberships, member_of, membership_in, require
from accounts.actors import Actor
from accounts.adapters import AccountAdapter
from accounts.errors import Forbidden, NotFound
from accounts.middleware import CurrentTailnetMiddleware, switch_tailnet
from accounts.models import Membership
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


def test_nobody_signs_up_by_a_form() -> None:
    assert AccountAdapter().is_open_for_signup(None) is False
