"""Which tailnet a page is about: ``request.tailnet``, ``request.membership``, and its scope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.http import HttpRequest, HttpResponse

from accounts.models import Membership, Tailnet
from accounts.services.sessions import see_session
from accounts.tenancy import memberships_of, scope

SESSION_KEY = "tailnet"


def choose_membership(memberships: Sequence[Membership], wanted: int | None) -> Membership | None:
    """The membership a page opens with: the wanted one, else the first active, else one that waits."""
    usable = [one for one in memberships if one.status != Membership.Status.SUSPENDED]
    for one in usable:
        if one.tailnet_id == wanted:
            return one
    usable.sort(key=lambda one: not one.is_active)
    return usable[0] if usable else None


class CurrentTailnetMiddleware:
    """Sets ``tailnet`` and ``membership`` (``None`` when there is none) and ``memberships`` for the switcher.

    The tailnet chosen last is kept in the session; a session never opens a tailnet without a membership,
    because the membership is read anew for every request.
    """

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        marked: Any = request
        marked.memberships = []
        if request.user.is_authenticated:
            see_session(session=request.session)
            marked.memberships = memberships_of(request.user.pk)
        membership = choose_membership(marked.memberships, request.session.get(SESSION_KEY))
        marked.membership = membership
        marked.tailnet = membership.tailnet if membership is not None else None
        if membership is None:
            return self.get_response(request)
        with scope(tailnet=membership.tailnet):
            return self.get_response(request)


def switch_tailnet(request: HttpRequest, tailnet: Tailnet) -> None:
    """Make ``tailnet`` the one that this session's next pages open with."""
    request.session[SESSION_KEY] = tailnet.pk
