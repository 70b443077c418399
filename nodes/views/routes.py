"""The page of routes and exit nodes: every prefix with its router, who uses which exit node, and switches."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.access import NOT_HERE
from accounts.errors import NotFound
from accounts.pages import actor_of, is_htmx, member_with, panel_view, say
from accounts.roles import Capability
from nodes.access import NodeAction, node_for
from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Route
from nodes.routing import (
    EXITS,
    ORDERS,
    STATES,
    SUBNETS,
    RouteQuery,
    count_offers,
    exit_rows,
    route_rows,
    select_exit_nodes,
    select_routes,
)
from nodes.services import routes as service

PAGE_SIZE = 50
SECTION = "routes"
PAGE = "/routes"
LIST_ID = "route-list"
TABS_ID = "route-tabs"


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def routes(request: HttpRequest) -> HttpResponse:
    """The subnets or the exit nodes that the URL asks for; only the list, or its tabs, for htmx."""
    membership = member_with(request, Capability.SEE_ALL)
    query = RouteQuery.parse(request.GET)
    counts = count_offers()
    context: dict[str, Any] = {"query": query, "tabs": _tabs(counts), "section": SECTION}
    target = request.htmx.target if is_htmx(request) else None  # type: ignore[attr-defined]
    if target == TABS_ID:
        return render(request, "nodes/_route_tabs.html", context)
    now = timezone.now()
    chosen: Any = select_exit_nodes(query) if query.show == EXITS else select_routes(query)
    page = Paginator(chosen, PAGE_SIZE).get_page(request.GET.get("page"))
    rows: Any = exit_rows if query.show == EXITS else route_rows
    context |= {
        "page": page,
        "rows": rows(list(page), membership, now),
        "total": counts[query.show],
        "states": STATES.items(),
        "orders": [
            (value, word) for value, word in ORDERS.items() if query.show == SUBNETS or value != "router"
        ],
    }
    return render(request, "nodes/_routes.html" if target == LIST_ID else "nodes/routes.html", context)


def _tabs(counts: dict[str, int]) -> list[tuple[str, str, int, int]]:
    """``(value, word, how many, how many wait)`` of each list."""
    words = {SUBNETS: _("Subnet routes"), EXITS: _("Exit nodes")}
    return [(show, word, counts[show], counts[f"{show}-waiting"]) for show, word in words.items()]


# --- switches --------------------------------------------------------------------------------------------


def _is_on(request: HttpRequest) -> bool:
    """Whether the switch that was sent is on; one that is off sends nothing."""
    return request.POST.get("approved") == "1"


@never_cache
@require_POST
@panel_view
def decide_route(request: HttpRequest, route_id: int) -> HttpResponse:
    """Approve one prefix of one device, withdraw that, or decline what waits."""
    membership = member_with(request, Capability.SEE_ALL)
    route = Route.objects.select_related("node").filter(pk=route_id).first()
    if route is None:
        raise NotFound(NOT_HERE)
    node = node_for(membership=membership, node_id=route.node_id, action=NodeAction.APPROVE_ROUTES)
    if route.waits and not _is_on(request):
        service.decline_routes(node=node, prefixes=[route.prefix], by=actor_of(request))
        words = _("%(prefix)s is declined.")
    else:
        service.set_route(node=node, prefix=route.prefix, approved=_is_on(request), by=actor_of(request))
        words = _("Others reach %(prefix)s.") if _is_on(request) else _("%(prefix)s is withdrawn.")
    if not is_htmx(request):
        return redirect(PAGE)
    rows = route_rows([route.pk], membership, timezone.now())
    answer = render(request, "nodes/_route_rows.html", {"rows": rows}) if rows else HttpResponse()
    return say(answer, words % {"prefix": route.prefix})


@never_cache
@require_POST
@panel_view
def decide_exit_node(request: HttpRequest, node_id: str) -> HttpResponse:
    """Approve a device as exit node, withdraw that, or decline its offer."""
    membership = member_with(request, Capability.SEE_ALL)
    node = node_for(membership=membership, node_id=node_id, action=NodeAction.APPROVE_ROUTES)
    declined = not _is_on(request) and service.decline_routes(
        node=node, prefixes=EXIT_ROUTES, by=actor_of(request)
    )
    if declined:
        words = _("%(name)s is declined as exit node.")
    else:
        service.set_exit_node(node=node, enabled=_is_on(request), by=actor_of(request))
        words = (
            _("Others may use %(name)s as exit node.")
            if _is_on(request)
            else _("%(name)s is no exit node any more.")
        )
    if not is_htmx(request):
        return redirect(f"{PAGE}?show={EXITS}")
    fresh = node_for(membership=membership, node_id=node.pk)
    rows = exit_rows([fresh], membership, timezone.now())
    return say(render(request, "nodes/_exit_rows.html", {"rows": rows}), words % {"name": node.name})
