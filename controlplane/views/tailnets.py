"""A person's tailnets: their list, one more, leaving one; and what only an owner does with one."""

from __future__ import annotations

from typing import Any, cast

from django import forms
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.access import member_of, place_of
from accounts.errors import Conflict, NotFound
from accounts.middleware import switch_tailnet
from accounts.models import Membership, User
from accounts.models.tailnets import DNS_LABEL
from accounts.pages import (
    UNPROCESSABLE,
    actor_of,
    error_text,
    go_to,
    is_htmx,
    member_with,
    membership_of,
    panel_view,
    person_view,
    sheet,
)
from accounts.roles import Capability, Role
from accounts.selectors import members
from accounts.services.people import transfer_ownership
from accounts.services.tailnets import NameTaken, create_tailnet, delete_tailnet
from accounts.tenancy import scope
from accounts.words import role_word
from nodes.models import Node, PreAuthKey
from nodes.services.members import remove_person

MAX_CANDIDATES = 200  # to choose from in the dialog; anybody's own page offers them, too


# --- everybody's -----------------------------------------------------------------------------------------


@never_cache
@require_safe
@person_view
def mine(request: HttpRequest) -> HttpResponse:
    """Every tailnet in which the person has a place, and the way to another one."""
    places: list[Membership] = request.memberships  # type: ignore[attr-defined]
    rows = [{"place": one, "role": role_word(one.role), "leaves": _may_leave(one)} for one in places]
    return render(request, "controlplane/tailnets/mine.html", {"rows": rows})


def _may_leave(place: Membership) -> bool:
    return place.role != Role.OWNER and place.status != Membership.Status.SUSPENDED


class TailnetForm(forms.Form):
    name = forms.RegexField(
        rf"^{DNS_LABEL}$",
        max_length=63,
        error_messages={
            "invalid": gettext_lazy("Use 1 to 63 of a-z, 0-9 and hyphens; no hyphen at either end.")
        },
    )
    display_name = forms.CharField(required=False, max_length=200)


@never_cache
@require_http_methods(["GET", "POST"])
@person_view
def new(request: HttpRequest) -> HttpResponse:
    """Make another tailnet of one's own, and open it."""
    form = TailnetForm()
    if request.method == "POST":
        sent = request.POST.dict()
        form = TailnetForm(sent | {"name": sent.get("name", "").strip().lower()})
        if form.is_valid() and _create(request, form):
            return go_to(request, "/devices")
    status = UNPROCESSABLE if form.errors else 200
    return sheet(request, "controlplane/tailnets/new.html", {"form": form}, status=status)


def _create(request: HttpRequest, form: TailnetForm) -> bool:
    """Make the tailnet; what stands against it is said in the form."""
    user = cast(User, request.user)
    try:
        tailnet, _place = create_tailnet(owner=user, by=actor_of(request), **form.cleaned_data)
    except NameTaken:
        form.add_error("name", _("Another tailnet has this name."))
        return False
    except Conflict as error:
        form.add_error("name", error_text(error))
        return False
    switch_tailnet(request, tailnet)
    return True


@never_cache
@require_http_methods(["GET", "POST"])
@person_view
def leave(request: HttpRequest, tailnet_id: int) -> HttpResponse:
    """Give up one's place in a tailnet; GET says what goes with it."""
    place = place_of(user=cast(User, request.user), tailnet_id=tailnet_id)
    if not _may_leave(place):
        raise NotFound("an owner transfers the tailnet first; who is suspended waits to be restored")
    with scope(tailnet=place.tailnet):
        if request.method == "POST":
            remove_person(membership=place, by=actor_of(request))
        devices = Node.objects.filter(user=place.user).count()
    if request.method == "GET":
        return sheet(request, "controlplane/tailnets/leave.html", {"place": place, "devices": devices})
    messages.success(request, _("You have left %(name)s.") % {"name": place.tailnet.title})
    return go_to(request, "/")


@never_cache
@require_safe
@person_view
def waiting(request: HttpRequest) -> HttpResponse:
    """What the page of somebody who waits for approval asks: nothing yet, or on to the devices."""
    if membership_of(request) is None:
        return HttpResponse(status=204) if is_htmx(request) else redirect("/devices")
    return go_to(request, "/devices")


# --- the owner's -----------------------------------------------------------------------------------------


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def transfer(request: HttpRequest) -> HttpResponse:
    """Make another member the owner; GET asks whom and says what that means."""
    membership = member_with(request, Capability.OWN_TAILNET)
    template, error = "controlplane/tailnets/transfer.html", ""
    if request.method == "POST":
        try:
            return _transfer(request, membership)
        except (NotFound, Conflict):
            error = _("Choose somebody who is an active member of this tailnet.")
    chosen = (request.POST if request.method == "POST" else request.GET).get("user", "")
    context = {
        "section": "settings",
        "people": _candidates(membership, chosen),
        "chosen": chosen,
        "error": error,
    }
    return sheet(request, template, context, status=UNPROCESSABLE if error else 200)


def _transfer(request: HttpRequest, membership: Membership) -> HttpResponse:
    heir = member_of(membership=membership, user_id=_number(request.POST.get("user", "")))
    transfer_ownership(membership=heir, by=actor_of(request))
    messages.success(request, _("%(name)s owns the tailnet now.") % {"name": heir.user.name})
    return go_to(request, "/settings")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0


def _candidates(membership: Membership, chosen: str) -> list[Membership]:
    """Active members who can become the owner; whoever was chosen is among them."""
    others = members().filter(status=Membership.Status.ACTIVE, user__is_active=True)
    others = others.exclude(pk=membership.pk)
    found = list(others[:MAX_CANDIDATES])
    wanted = _number(chosen)
    if wanted and all(one.user_id != wanted for one in found):
        found += others.filter(user_id=wanted)
    return found


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def delete(request: HttpRequest) -> HttpResponse:
    """Delete the tailnet; its name must be typed, after what goes with it has been said."""
    membership = member_with(request, Capability.OWN_TAILNET)
    tailnet = membership.tailnet
    typed = request.POST.get("name", "").strip()
    if request.method == "POST" and typed == tailnet.name:
        delete_tailnet(tailnet=tailnet, by=actor_of(request))
        messages.success(request, _("The tailnet %(name)s is deleted.") % {"name": tailnet.title})
        return go_to(request, "/")
    wrong = request.method == "POST"
    context: dict[str, Any] = {
        "section": "settings",
        "typed": typed,
        "error": _("Type the name exactly: %(name)s") % {"name": tailnet.name} if wrong else "",
        "devices": Node.objects.count(),
        "people": Membership.objects.count(),
        "keys": PreAuthKey.objects.filter(revoked_at__isnull=True).count(),
    }
    status = UNPROCESSABLE if wrong else 200
    return sheet(request, "controlplane/tailnets/delete.html", context, status=status)
