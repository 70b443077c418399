"""The overview: how the tailnet stands, what waits, what ends soon, what happened."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, cast

from django.db.models import Count, Max
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.models import Membership
from accounts.pages import is_htmx, membership_of, panel_view
from accounts.roles import Capability, can
from accounts.selectors import audit_events
from controlplane.services.ownrelays import shown_relays
from controlplane.views.relays import SILENT, UP, relay_row
from nodes.approvals import count_waiting, deciding
from nodes.listing import state_filter
from nodes.models import Node, ReportedPath
from nodes.rows import EXPIRES_SOON
from nodes.selectors import ends_within

EVENTS = 8
EXPIRING = 5
FEW = 2  # devices that the first steps are about
NEW = timedelta(days=1)


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """For those who see all; everybody else starts at their own devices."""
    membership = cast(Membership, membership_of(request))
    if not can(membership, Capability.SEE_ALL):
        return redirect("/my-devices")
    now = timezone.now()
    context = _devices(now) | _waiting(membership) | _relays(membership, now)
    context |= {
        "events": list(audit_events()[:EVENTS]),
        "steps": _steps(context["total"], context["newest"], now),
        "section": "overview",
    }
    template = "controlplane/_overview.html" if is_htmx(request) else "controlplane/overview.html"
    return render(request, template, context)


def _devices(now: datetime) -> dict[str, Any]:
    """Counts of devices, and those whose keys end next."""
    soon = ends_within(EXPIRES_SOON, now)
    counts = Node.objects.aggregate(
        total=Count("pk"),
        online=Count("pk", filter=state_filter("online", now)),
        expired=Count("pk", filter=state_filter("expired", now)),
        ending=Count("pk", filter=soon),
        newest=Max("created"),
    )
    ends = Node.objects.filter(soon).select_related("user").order_by("key_expiry", "pk")
    return counts | {"expiring": list(ends[:EXPIRING]) if counts["ending"] else []}


def _waiting(membership: Membership) -> dict[str, Any]:
    waiting = count_waiting(membership)
    mine = sum(waiting[kind] for kind in deciding(membership))
    return {
        "waiting": {kind.name.lower(): number for kind, number in waiting.items()},
        "waiting_total": sum(waiting.values()),
        "may_decide": mine > 0,
        "pending_count": mine,
    }


def _relays(membership: Membership, now: datetime) -> dict[str, Any]:
    """The server's relays and the tailnet's own; one that is switched off or new is not missed."""
    rows = [relay_row(relay, now) for relay in shown_relays(membership.tailnet_id)]
    return {
        "relays_up": sum(row.state is UP for row in rows),
        "relays_total": sum(row.state in (UP, SILENT) for row in rows),
        "silent": [row.relay.region_name for row in rows if row.state is SILENT],
    }


def _steps(total: int, newest: datetime | None, now: datetime) -> list[bool] | None:
    """Which of the first steps are done: a device, a second one, a ping; ``None`` once they are behind.

    Only our own client tells whom it talks to, so two devices of a day ago count as done, too.
    """
    if total > FEW:
        return None
    talked = ReportedPath.objects.exists()
    behind = talked or (newest is not None and newest < now - NEW)
    return None if behind and total == FEW else [total > 0, total >= FEW, talked]
