"""Invitations as those who manage people see them: their list, and the dialogs around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from django import forms
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import trigger_client_event

from accounts.access import invite_for, may_manage
from accounts.errors import ApplicationError, Conflict
from accounts.models import Invite, Membership
from accounts.pages import (
    UNPROCESSABLE,
    actor_of,
    error_text,
    is_htmx,
    member_with,
    membership_of,
    panel_view,
    say,
    sheet,
)
from accounts.roles import Capability, Role, can
from accounts.selectors import members, open_invites
from accounts.services import invites
from accounts.services.people import MAX_EMAIL
from accounts.words import ROLES, roles_to_give
from nodes.people import PAGE_SIZE
from nodes.rows import Shown
from nodes.views.people import SECTION, TABS_ID, tabs_context

PAGE = "/users/invitations"
LIST_ID = "invite-list"
OPEN = Shown("pending", "mail", gettext_lazy("Sent"))
LATE = Shown("offline", "calendar-x", gettext_lazy("Ran out"))
VOID = Shown("offline", "ban", gettext_lazy("Its sender may no longer invite"))


# --- the list --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class InviteRow:
    """One invitation, for its row."""

    invite: Invite
    state: Shown
    role: Promise
    may: bool

    @property
    def dom_id(self) -> str:
        return f"invite-{self.invite.pk}"

    @property
    def path(self) -> str:
        return str(self.invite.pk)


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def listing(request: HttpRequest) -> HttpResponse:
    """The invitations that nobody has accepted yet."""
    reader = member_with(request, Capability.SEE_ALL)
    target = request.htmx.target if is_htmx(request) else None  # type: ignore[attr-defined]
    context = tabs_context(None)
    if target == TABS_ID:
        return render(request, "people/_tabs.html", context)
    page = Paginator(open_invites(), PAGE_SIZE).get_page(request.GET.get("page"))
    context |= {
        "page": page,
        "rows": _rows(list(page), reader),
        "manages": can(reader, Capability.MANAGE_USERS),
        "section": SECTION,
    }
    return render(request, "people/_invites.html" if target == LIST_ID else "people/invites.html", context)


def _rows(found: list[Invite], reader: Membership) -> list[InviteRow]:
    now = timezone.now()
    senders = {one.user_id: one for one in members().filter(user_id__in={one.invited_by_id for one in found})}
    return [
        InviteRow(
            invite=one,
            state=_state(one, senders, now),
            role=ROLES[Role(one.role)].word,
            may=may_manage(reader, one.role),
        )
        for one in found
    ]


def _state(invite: Invite, senders: dict[int, Membership], now: datetime) -> Shown:
    if invite.expires <= now:
        return LATE
    sender = senders.get(invite.invited_by_id or 0)
    valid = invite.invited_by_id is None or (sender is not None and may_manage(sender, invite.role))
    return OPEN if valid else VOID


# --- the dialogs -----------------------------------------------------------------------------------------


class InviteForm(forms.Form):
    email = forms.EmailField(max_length=MAX_EMAIL)
    role = forms.CharField(max_length=20, initial=Role.MEMBER.value)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def new(request: HttpRequest) -> HttpResponse:
    """Invite somebody; afterwards the link is shown once."""
    reader = member_with(request, Capability.MANAGE_USERS)
    context = {"roles": roles_to_give(reader), "section": SECTION}
    if request.method == "GET":
        return sheet(request, "people/invite.html", context | {"form": InviteForm()})
    form = InviteForm(request.POST)
    if form.is_valid():
        try:
            made = invites.create_invite(tailnet=reader.tailnet, by=actor_of(request), **form.cleaned_data)
            return _made(request, made)
        except Conflict:
            form.add_error("email", _("There is an open invitation for this address: send it again."))
        except ApplicationError as error:
            form.add_error(None, error_text(error))
    return sheet(request, "people/invite.html", context | {"form": form}, status=UNPROCESSABLE)


def _made(request: HttpRequest, made: invites.NewInvite) -> HttpResponse:
    """The link, this once."""
    response = sheet(request, "people/invite_made.html", {"made": made, "section": SECTION})
    return trigger_client_event(response, "showChanges", {}) if is_htmx(request) else response


def _on_one(template: str, act: Callable[[HttpRequest, Invite], HttpResponse]) -> Callable[..., HttpResponse]:
    """A view with a dialog on GET that says what follows, and the deed on POST."""

    @never_cache
    @require_http_methods(["GET", "POST"])
    @panel_view
    def view(request: HttpRequest, invite_id: int) -> HttpResponse:
        found = invite_for(membership=cast(Membership, membership_of(request)), invite_id=invite_id)
        if request.method == "GET":
            return sheet(request, template, {"invite": found, "section": SECTION})
        return act(request, found)

    return view


def _renew(request: HttpRequest, found: Invite) -> HttpResponse:
    return _made(request, invites.renew_invite(invite=found, by=actor_of(request)))


def _revoke(request: HttpRequest, found: Invite) -> HttpResponse:
    invites.revoke_invite(invite=found, by=actor_of(request))
    if not is_htmx(request):
        return redirect(PAGE)
    words: dict[str, Any] = {"email": found.email or _("whoever has the link")}
    return say(HttpResponse(), _("The invitation of %(email)s is withdrawn.") % words)


renew = _on_one("people/invite_renew.html", _renew)
revoke = _on_one("people/invite_revoke.html", _revoke)
