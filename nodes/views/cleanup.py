"""Devices that nobody has seen for long: how many, which, and the way to the dialog that deletes them."""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.errors import NotFound
from accounts.models import Membership
from accounts.pages import membership_of, panel_view, sheet
from nodes.access import visible_nodes
from nodes.bulk_words import may_delete_some
from nodes.listing import MAX_UNSEEN_DAYS, PEOPLE, DeviceQuery
from nodes.rows import last_seen

DEFAULT_DAYS = "90"
SHOWN = 20


@never_cache
@require_safe
@panel_view
def clean_up(request: HttpRequest) -> HttpResponse:
    """A preview; those online are never in it, tagged ones only when they are asked for."""
    membership = cast(Membership, membership_of(request))
    if not may_delete_some(membership):
        raise NotFound("this role deletes no devices")
    tagged = request.GET.get("tagged") == "1"
    asked = {
        "seen": request.GET.get("days", DEFAULT_DAYS),
        "owner": "" if tagged else PEOPLE,
        "sort": "-seen",
    }
    query = DeviceQuery.parse(asked)
    if not query.unseen:
        query = DeviceQuery.parse(asked | {"seen": DEFAULT_DAYS})
    now = timezone.now()
    found = query.select(visible_nodes(membership), now)
    number = found.count()
    shown = [(node, last_seen(node, now)) for node in found[:SHOWN]]
    context = {
        "days": query.unseen,
        "max_days": MAX_UNSEEN_DAYS,
        "tagged": tagged,
        "number": number,
        "shown": shown,
        "more": number - len(shown),
        "query": query.url,
        "section": "devices",
    }
    return sheet(request, "nodes/clean_up.html", context)
