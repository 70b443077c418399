"""Adding devices: the instructions, and the page on which a person lets a waiting machine in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any, cast
from urllib.parse import urlsplit

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.access import active_memberships, membership_in
from accounts.errors import Gone, Invalid
from accounts.middleware import switch_tailnet
from accounts.models import User
from accounts.pages import membership_of, panel_view, sheet
from accounts.tenancy import scope
from nodes.access import NodeAction, may, visible_nodes, with_devices
from nodes.describe import machine_summary
from nodes.hostinfo import request_tags
from nodes.qr import qr_code
from nodes.rows import OS_NAMES, device_row
from nodes.services import logins
from nodes.state import NodeState

MAX_ARRIVALS = 5
ARRIVALS_MAX_AGE = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class System:
    """One tab of the instructions."""

    key: str
    icon: str
    name: str | Promise


SYSTEMS = (
    System("linux", "terminal-2", "Linux"),
    System("macos", "brand-apple", "macOS"),
    System("windows", "brand-windows", "Windows"),
    System("ios", "device-mobile", "iPhone, iPad"),
    System("android", "brand-android", "Android"),
    System("server", "server", _("Servers")),
)


def is_loopback(host: str) -> bool:
    """Whether a URL's host means the machine that asks for it."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@never_cache
@require_safe
@panel_view
def add(request: HttpRequest) -> HttpResponse:
    """How to add a device, per system; shows it as soon as it asks."""
    wanted = request.GET.get("os", "")
    system = next((one for one in SYSTEMS if one.key == wanted), SYSTEMS[0])
    now = timezone.now()
    context = {
        "system": system,
        "systems": SYSTEMS,
        "qr": qr_code(settings.BASE_URL),
        "only_here": is_loopback(urlsplit(settings.BASE_URL).hostname or ""),
        "since": request.GET.get("since") or now.isoformat(),
        "section": "devices",
    }
    return sheet(request, "nodes/add.html", context | _arrivals(request, now))


@never_cache
@require_safe
@panel_view
def arrivals(request: HttpRequest) -> HttpResponse:
    """Devices that came since the instructions were opened."""
    return render(request, "nodes/_arrivals.html", _arrivals(request, timezone.now()))


def _arrivals(request: HttpRequest, now: datetime) -> dict[str, Any]:
    membership = with_devices(membership_of(request))
    try:
        since = parse_datetime(request.GET.get("since", "")) or now
    except ValueError:
        since = now
    if timezone.is_naive(since):
        since = now
    since = max(since, now - ARRIVALS_MAX_AGE)
    found = visible_nodes(membership).filter(last_login__gte=since).order_by("-last_login")[:MAX_ARRIVALS]
    rows = [
        device_row(node, membership=membership, base_domain=settings.BASE_DOMAIN, now=now) for node in found
    ]
    return {"arrived": rows, "since": since.isoformat()}


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def register(request: HttpRequest, token: str) -> HttpResponse:
    """A machine waits behind this URL: show what it says of itself; POST lets it in or turns it away."""
    try:
        pending = logins.find_login(token=token)
        if request.method == "POST":
            return _answer(request, pending)
    except Gone:
        return render(request, "nodes/register_gone.html", status=410)
    return render(request, "nodes/register.html", _register_context(request, pending))


def _register_context(request: HttpRequest, pending: Any) -> dict[str, Any]:
    summary = machine_summary(pending.hostinfo)
    os_name, os_icon = OS_NAMES.get(summary["os"].lower(), (summary["os"], "device-desktop"))
    memberships = active_memberships(user=cast(User, request.user))
    current = membership_of(request)
    return {
        "pending": pending,
        "summary": summary,
        "os_name": os_name,
        "os_icon": os_icon,
        "wanted_tags": request_tags(pending.hostinfo),
        "choices": memberships,
        "chosen": current.tailnet_id if current else None,
    }


def _answer(request: HttpRequest, pending: Any) -> HttpResponse:
    if request.POST.get("answer") == "reject":
        logins.reject_login(pending=pending)
        return render(request, "nodes/register_done.html", {"rejected": True, "hostname": pending.hostname})
    wanted = request.POST.get("join", "")
    membership = membership_in(
        user=cast(User, request.user), tailnet_id=int(wanted) if wanted.isascii() and wanted.isdigit() else 0
    )
    with scope(tailnet=membership.tailnet):
        try:
            node = logins.confirm_login(pending=pending, user=membership.user, tailnet=membership.tailnet)
        except Invalid:
            return render(
                request, "nodes/register_done.html", {"refused_tags": True, "hostname": pending.hostname}
            )
        waits = node.life == NodeState.PENDING
        may_approve = waits and may(membership, NodeAction.APPROVE, node)
    switch_tailnet(request, membership.tailnet)
    context = {"node": node, "waits": waits, "may_approve": may_approve, "joined": membership.tailnet}
    return render(request, "nodes/register_done.html", context)
