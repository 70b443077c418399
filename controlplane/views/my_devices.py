"""A person's own devices, and what these reach: where members land."""

from __future__ import annotations

from typing import Any, cast

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.models import Membership
from accounts.pages import is_htmx, membership_of, panel_view
from accounts.roles import Capability, can
from controlplane.rules.services import targets_in_words
from controlplane.services.dns import dns_settings
from controlplane.services.ownreach import own_reach
from nodes import reach
from nodes.rows import device_row
from nodes.selectors import listed, nodes

PAGE_SIZE = 50
MAX_MINE = 200  # whoever has more finds the rest in the list of all devices
SECTION = "my-devices"
MINE_ID, REACH_ID = "mine-list", "reach-list"


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """Both lists; only one of them when htmx fetches it again. A role without devices is told so."""
    membership = cast(Membership, membership_of(request))
    if not can(membership, Capability.SEE_OWN_DEVICES):
        return render(request, "controlplane/my_devices.html", {"section": SECTION, "has_none": True})
    target = request.htmx.target if is_htmx(request) else None  # type: ignore[attr-defined]
    context: dict[str, Any] = {"section": SECTION}
    if target != REACH_ID:
        context |= _mine(membership)
    if target != MINE_ID:
        context |= _reach(request, membership)
    templates = {MINE_ID: "controlplane/_mine.html", REACH_ID: "controlplane/_reach.html"}
    return render(request, templates.get(target or "", "controlplane/my_devices.html"), context)


def _mine(membership: Membership) -> dict[str, Any]:
    now = timezone.now()
    own = listed(nodes()).filter(user_id=membership.user_id)[:MAX_MINE]
    rows = [
        device_row(node, membership=membership, base_domain=settings.BASE_DOMAIN, now=now) for node in own
    ]
    return {"mine": rows, "names_work": _names_work(membership), "more": len(rows) == MAX_MINE}


def _reach(request: HttpRequest, membership: Membership) -> dict[str, Any]:
    now = timezone.now()
    search = request.GET.get("q", "").replace("\0", "").strip()[: reach.MAX_SEARCH]
    allowed = own_reach(membership.tailnet, membership.user_id)
    among = None if allowed.is_everything else allowed.ids
    found = Paginator(reach.reachable(now, search, among=among), PAGE_SIZE).get_page(request.GET.get("page"))
    return {
        "page": found,
        "query": search,
        "peers": [
            reach.peer(
                node,
                membership=membership,
                base_domain=settings.BASE_DOMAIN,
                now=now,
                ports=tuple(targets_in_words(allowed.targets(node.pk), allowed.addresses(node.pk))),
            )
            for node in found
        ],
        "networks": allowed.networks[: reach.MAX_NAMED],
        "ways_out": reach.names_of(now, allowed.exits),
        "reaches_all": allowed.is_everything,
        "reaches": reach.reaches_anything(membership, now),
        "names_work": _names_work(membership),
    }


def _names_work(membership: Membership) -> bool:
    """Whether devices find one another by name."""
    return dns_settings(membership.tailnet).magic_dns
