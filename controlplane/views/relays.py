"""The relays page: regions and gauges, latencies, and the tailnet's own relays in the hands of its people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django import forms
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.errors import ApplicationError, Invalid
from accounts.models import Membership
from accounts.pages import (
    UNPROCESSABLE,
    actor_of,
    error_text,
    is_htmx,
    member_with,
    panel_view,
    say,
    sheet,
)
from accounts.roles import Capability, can
from controlplane.env import environment
from controlplane.models import Relay
from controlplane.services import ownrelays, relaysetup
from controlplane.services.latencies import Matrix, latency_matrix
from controlplane.services.relaystates import RelayState, load_of, state_of
from nodes.rows import Shown

SECTION = "relays"
PAGE = "/relays"
MAX_PORT = 65535
NEAR_MS, FAR_MS = 40, 120

UP = Shown("online", "circle-check-filled", gettext_lazy("Up"))
SILENT = Shown("down", "alert-triangle", gettext_lazy("Not answering"))
NEW = Shown("pending", "hourglass", gettext_lazy("Not connected yet"))
OFF = Shown("off", "circle-off", gettext_lazy("Switched off"))
STATES = {RelayState.UP: UP, RelayState.SILENT: SILENT, RelayState.NEW: NEW, RelayState.OFF: OFF}


# --- rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRow:
    """One relay and its last counters; ``may`` = this person may change it."""

    relay: Relay
    state: Shown
    clients: int
    bytes_in: int
    bytes_out: int
    drops: int
    rate: int
    may: bool

    @property
    def own(self) -> bool:
        return self.relay.tailnet_id is not None


def relay_row(relay: Relay, now: datetime, *, may: bool = False) -> RelayRow:
    """What the page shows of a relay: up while it is connected and has reported lately."""
    load = load_of(relay, now)
    return RelayRow(
        relay=relay,
        state=STATES[state_of(relay, now)],
        clients=load.clients,
        bytes_in=load.bytes_in,
        bytes_out=load.bytes_out,
        drops=load.drops,
        rate=load.rate,
        may=may and relay.tailnet_id is not None,
    )


@dataclass(frozen=True, slots=True)
class Cell:
    """One median as the matrix shows it: where to, the number, a word for its colour, is it home."""

    region: str
    milliseconds: float | None
    grade: str
    home: bool


def _grade(milliseconds: float) -> str:
    if milliseconds < NEAR_MS:
        return "near"
    return "middling" if milliseconds < FAR_MS else "far"


def latency_context(matrix: Matrix, relays: Iterable[Relay]) -> dict[str, Any]:
    """The matrix with the regions' names."""
    names = {relay.region_id: relay.region_name for relay in relays}

    def name(region: int) -> str:
        return names.get(region) or _("Region %(number)s") % {"number": region}

    def cell(home: int, region: int, value: float | None) -> Cell:
        return Cell(name(region), value, "" if value is None else _grade(value), home == region)

    rows = [
        {
            "name": name(row.home) if row.home else "",
            "devices": row.devices,
            "cells": [cell(row.home, region, row.medians.get(region)) for region in matrix.regions],
        }
        for row in matrix.rows
    ]
    return {"latency_regions": [name(region) for region in matrix.regions], "latency_rows": rows}


# --- the page --------------------------------------------------------------------------------------------


def _context(membership: Membership) -> dict[str, Any]:
    now = timezone.now()
    may = can(membership, Capability.MANAGE_RELAYS)
    rows = [relay_row(relay, now, may=may) for relay in ownrelays.shown_relays(membership.tailnet_id)]
    return {
        "rows": rows,
        "up": sum(row.state is UP for row in rows),
        "clients": sum(row.clients for row in rows),
        "rate": sum(row.rate for row in rows),
        "bytes": sum(row.bytes_out for row in rows),
        "drops": sum(row.drops for row in rows),
        "may_change": may,
        "has_own": any(row.own for row in rows),
        "section": SECTION,
    }


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The server's relays and the tailnet's own: health, clients, bytes, latencies."""
    membership = member_with(request, Capability.SEE_ALL)
    context = _context(membership)
    if is_htmx(request):
        return render(request, "controlplane/_relays.html", context)
    context |= latency_context(latency_matrix(), [row.relay for row in context["rows"]])
    return render(request, "controlplane/relays.html", context)


@never_cache
@require_safe
@panel_view
def latency(request: HttpRequest) -> HttpResponse:
    """The latency matrix alone, fetched again now and then."""
    membership = member_with(request, Capability.SEE_ALL)
    context = latency_context(latency_matrix(), ownrelays.shown_relays(membership.tailnet_id))
    return render(request, "controlplane/_latency.html", context)


def _done(request: HttpRequest, membership: Membership, message: str) -> HttpResponse:
    """The relays anew, and what was done."""
    if not is_htmx(request):
        return redirect(PAGE)
    return say(render(request, "controlplane/_relays.html", _context(membership)), message)


# --- changing the tailnet's own --------------------------------------------------------------------------


class NameForm(forms.Form):
    name = forms.CharField(max_length=ownrelays.MAX_NAME)

    def clean_name(self) -> str:
        try:
            return ownrelays.relay_name(self.cleaned_data["name"])
        except Invalid as error:
            raise forms.ValidationError(_("Give it a name of at most 60 characters.")) from error


class RelayForm(NameForm):
    host = forms.CharField(max_length=ownrelays.MAX_HOST)
    derp_port = forms.IntegerField(min_value=1, max_value=MAX_PORT, initial=443)
    stun_port = forms.IntegerField(min_value=1, max_value=MAX_PORT, initial=3478, required=False)

    def clean_host(self) -> str:
        try:
            return ownrelays.relay_host(self.cleaned_data["host"])
        except Invalid as error:
            raise forms.ValidationError(
                _("Write a name like relay.example.com, or an address that every device can reach.")
            ) from error

    def clean_stun_port(self) -> int:
        return self.cleaned_data["stun_port"] or ownrelays.NO_STUN


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def add(request: HttpRequest) -> HttpResponse:
    """The form of a new relay; its POST makes it and shows its token, once."""
    membership = member_with(request, Capability.MANAGE_RELAYS)
    template, context = "controlplane/relay_add.html", {"section": SECTION, "form": RelayForm()}
    if request.method == "GET":
        return sheet(request, template, context)
    form = RelayForm(request.POST)
    if form.is_valid():
        try:
            made = ownrelays.add_relay(tailnet=membership.tailnet, by=actor_of(request), **form.cleaned_data)
            return _show_token(request, made)
        except ApplicationError as error:
            form.add_error(None, error_text(error))
    return sheet(request, template, context | {"form": form}, status=UNPROCESSABLE)


def _show_token(request: HttpRequest, made: ownrelays.MadeRelay) -> HttpResponse:
    env, token = environment(), made.token.text
    context = {
        "section": SECTION,
        "relay": made.relay,
        "token": token,
        "install": relaysetup.install_text(made.relay, token, env),
        "settings_text": relaysetup.settings_text(made.relay, token, env),
    }
    return sheet(request, "controlplane/relay_made.html", context)


def _own(request: HttpRequest, relay_id: int) -> tuple[Membership, Relay]:
    membership = member_with(request, Capability.MANAGE_RELAYS)
    return membership, ownrelays.own_relay_for(membership=membership, relay_id=relay_id)


def _dialog(relay: Relay) -> dict[str, Any]:
    return {"section": SECTION, "relay": relay, "id_text": str(relay.pk)}


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def rename(request: HttpRequest, relay_id: int) -> HttpResponse:
    """Call a relay something else."""
    membership, relay = _own(request, relay_id)
    form = NameForm(request.POST if request.method == "POST" else {"name": relay.region_name})
    if request.method == "POST" and form.is_valid():
        relay = ownrelays.rename_relay(relay=relay, by=actor_of(request), name=form.cleaned_data["name"])
        return _done(request, membership, _("It is now called %(name)s.") % {"name": relay.region_name})
    status = UNPROCESSABLE if request.method == "POST" else 200
    context = _dialog(relay) | {"form": form}
    return sheet(request, "controlplane/relay_rename.html", context, status=status)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def enabled(request: HttpRequest, relay_id: int) -> HttpResponse:
    """Switch a relay on or off; GET asks before devices leave it."""
    membership, relay = _own(request, relay_id)
    if request.method == "GET":
        return sheet(request, "controlplane/relay_off.html", _dialog(relay))
    on = request.POST.get("on") == "1"
    ownrelays.set_relay_enabled(relay=relay, by=actor_of(request), enabled=on)
    words = _("Devices may use %(name)s again.") if on else _("%(name)s is switched off.")
    return _done(request, membership, words % {"name": relay.region_name})


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def token(request: HttpRequest, relay_id: int) -> HttpResponse:
    """A new token in place of the old one; GET says what that means."""
    relay = _own(request, relay_id)[1]
    if request.method == "GET":
        return sheet(request, "controlplane/relay_token.html", _dialog(relay))
    return _show_token(request, ownrelays.renew_relay_token(relay=relay, by=actor_of(request)))


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def remove(request: HttpRequest, relay_id: int) -> HttpResponse:
    """Remove a relay; GET says what that means."""
    membership, relay = _own(request, relay_id)
    if request.method == "GET":
        context = _dialog(relay) | {"row": relay_row(relay, timezone.now())}
        return sheet(request, "controlplane/relay_remove.html", context)
    ownrelays.remove_relay(relay=relay, by=actor_of(request))
    return _done(request, membership, _("%(name)s is removed.") % {"name": relay.region_name})
