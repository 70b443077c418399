"""The way in, relays, and what machines download to become a device."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.access import require
from accounts.errors import Forbidden, NotFound
from accounts.pages import is_htmx, membership_of, panel_view
from accounts.roles import Capability
from controlplane.env import environment
from controlplane.models import Relay
from controlplane.services import downloads
from nodes.rows import Shown

# A relay reports every 5 s; after this long without a word it is shown as not answering.
SILENT_AFTER = timedelta(seconds=20)
RETRY_SECONDS = 5

UP = Shown("online", "circle-check-filled", _("Up"))
SILENT = Shown("down", "alert-triangle", _("Not answering"))
NEW = Shown("offline", "hourglass", _("Not connected yet"))


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """The devices, until there is an overview."""
    return redirect("/devices")


@require_safe
def admin(request: HttpRequest, rest: str = "") -> HttpResponse:
    """Official clients print ``<URL>/admin/…`` while they wait for approval."""
    return redirect("/approvals")


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayRow:
    """One relay and its last counters."""

    relay: Relay
    state: Shown
    clients: int
    bytes_in: int
    bytes_out: int
    drops: int


def _counter(stats: Any, name: str) -> int:
    value = stats.get(name, 0) if isinstance(stats, dict) else 0
    return value if isinstance(value, int) else 0


def relay_row(relay: Relay, now: datetime) -> RelayRow:
    """What the page shows of a relay: up while it is connected and has reported lately."""
    if relay.last_seen is None:
        state = NEW
    else:
        heard = now - relay.last_seen < SILENT_AFTER
        state = UP if heard and relay.connected_at is not None else SILENT
    stats = relay.stats
    return RelayRow(
        relay=relay,
        state=state,
        clients=_counter(stats, "clients") if state is UP else 0,
        bytes_in=_counter(stats, "bytes_in"),
        bytes_out=_counter(stats, "bytes_out"),
        drops=_counter(stats, "drops"),
    )


@never_cache
@require_safe
@panel_view
def relays(request: HttpRequest) -> HttpResponse:
    """The server's relays and the tailnet's own: health, clients, bytes."""
    try:
        membership = require(membership_of(request), Capability.SEE_ALL)
    except Forbidden as error:
        raise NotFound(str(error)) from error
    mine = Q(tailnet__isnull=True) | Q(tailnet_id=membership.tailnet_id)
    now = timezone.now()
    rows = [relay_row(relay, now) for relay in Relay.objects.filter(mine).order_by("region_id", "node_name")]
    context = {
        "rows": rows,
        "up": sum(row.state is UP for row in rows),
        "clients": sum(row.clients for row in rows),
        "bytes": sum(row.bytes_out for row in rows),
        "drops": sum(row.drops for row in rows),
        "section": "relays",
    }
    return render(
        request, "controlplane/_relays.html" if is_htmx(request) else "controlplane/relays.html", context
    )


# --- downloads: public, machines fetch them before they belong to anybody --------------------------------


@require_safe
def install_script(request: HttpRequest) -> HttpResponse:
    """The script that installs Trenza's client from this server."""
    text = render_to_string("download/install.sh", downloads.script_context(environment()))
    return HttpResponse(text, content_type="text/x-shellscript; charset=utf-8")


@require_safe
def download_index(request: HttpRequest) -> HttpResponse:
    """The wheels as pip's ``--find-links`` reads them."""
    names = downloads.wheel_names(environment().data)
    response = render(request, "download/wheels.html", {"names": names})
    if not names:
        return _not_built()
    return response


@require_safe
def download_file(request: HttpRequest, name: str, folder: str = "") -> HttpResponse:
    """One file that ``builddownloads`` made."""
    try:
        content = downloads.read_file(environment().data, f"{folder}{name}")
    except FileNotFoundError:
        if not downloads.is_built(environment().data):
            return _not_built()
        raise Http404 from None
    response = HttpResponse(content, content_type=downloads.content_type(name))
    response["X-Content-Type-Options"] = "nosniff"
    return response


def _not_built() -> HttpResponse:
    response = HttpResponse(
        "the server is still preparing its client; try again in a few seconds\n", status=503
    )
    response["Content-Type"] = "text/plain; charset=utf-8"
    response["Retry-After"] = str(RETRY_SECONDS)
    return response
