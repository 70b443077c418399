"""The page behind an invitation's link: who invites to which tailnet with which role, and the way in."""

from __future__ import annotations

from typing import cast
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.errors import Conflict, Gone
from accounts.limits import address_of, check_limit, count_attempt
from accounts.middleware import switch_tailnet
from accounts.models import Invite, User
from accounts.pages import public_view
from accounts.roles import Role
from accounts.services.invites import accept_invite, find_invite
from accounts.tenancy import memberships_of
from accounts.words import ROLES

LIMIT = "invite"
MAX_FAILED = 20  # a minute, from one address


@never_cache
@require_http_methods(["GET", "POST"])
@public_view
def invitation(request: HttpRequest, token: str) -> HttpResponse:
    """Show an invitation; POST, by somebody signed in, accepts it. Used, withdrawn, run out, unknown: 410."""
    address = address_of(request)
    check_limit(LIMIT, address, limit=MAX_FAILED)
    try:
        found = find_invite(token=token)
        if request.method == "POST" and request.user.is_authenticated:
            return _accept(request, token, found)
    except Gone:
        count_attempt(LIMIT, address)
        return render(request, "accounts/invitation_gone.html", status=410)
    if request.method == "POST":
        return redirect(f"/sign-in?{urlencode({'next': request.path})}")
    return _show(request, found)


def _show(request: HttpRequest, found: Invite, *, status: int = 200) -> HttpResponse:
    place = None
    if request.user.is_authenticated:
        places = memberships_of(request.user.pk)
        place = next((one for one in places if one.tailnet_id == found.tailnet_id), None)
    context = {
        "invite": found,
        "role": ROLES[Role(found.role)],
        "place": place,
        "sign_in": f"/sign-in?{urlencode({'next': request.path})}",
    }
    return render(request, "accounts/invitation.html", context, status=status)


def _accept(request: HttpRequest, token: str, found: Invite) -> HttpResponse:
    try:
        place = accept_invite(token=token, user=cast(User, request.user))
    except Conflict:  # they are in already, or suspended: the page says which
        return _show(request, found, status=409)
    switch_tailnet(request, place.tailnet)
    messages.success(request, _("Welcome to %(name)s.") % {"name": place.tailnet.title})
    return redirect("/")
