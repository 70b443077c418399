"""The page of routes and exit nodes: what a URL asks for, as a value, and the rows that it means.

No database sorts prefixes as numbers: the ids of everything that fits are read and sorted here, and only a
page of them is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Q, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import Membership
from nodes.access import NodeAction, may
from nodes.addresses import is_nodes_own
from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node, Route
from nodes.offers import Offers, carriers_of, offers_of
from nodes.prefixes import Overlapping, Overlaps, key, near
from nodes.rows import LIFE, OFFLINE, ONLINE, Shown, shown_state
from nodes.selectors import (
    STATED,
    is_exit_node,
    is_online,
    listed,
    nodes,
    offers_exit_node,
    part_of_exit_node,
    waiting_routes,
)
from nodes.state import NodeState

MAX_LISTED = 20_000  # rows that are sorted; beyond these nothing is shown
MAX_NAMED = 5  # devices that are named as users of an exit node
MAX_SEARCH = 100
SUBNETS, EXITS = "subnets", "exit-nodes"
ROUTE = ("tailnet", "node", "prefix", "approved_at", "declined_at", "created")

STATES: dict[str, str | Promise] = {
    "": _("Every state"),
    "waiting": _("Waiting"),
    "approved": _("Approved"),
    "declined": _("Declined"),
}
ORDERS: dict[str, str | Promise] = {
    "": _("By prefix"),
    "router": _("By device"),
    "-created": _("Newest first"),
}
SERVING = Shown("online", "circle-check-filled", _("Serving"))
STANDS_BY = Shown("used", "clock-pause", _("Stands by"))
WAITING = Shown("pending", "hourglass", _("Waiting"))
DECLINED = Shown("offline", "ban", _("Declined"))
APPROVED = Shown("approved", "circle-check-filled", _("Approved"))
UNUSABLE = Shown("offline", "circle-off", _("Not in use yet"))


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteQuery:
    """Which list, its filters and order, as the URL has them; whatever it has wrongly is left out."""

    show: str = SUBNETS
    search: str = ""
    state: str = ""
    sort: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> RouteQuery:
        state, sort = str(values.get("state", "")), str(values.get("sort", ""))
        return cls(
            show=EXITS if values.get("show") == EXITS else SUBNETS,
            search=str(values.get("q", "")).replace("\0", "").strip()[:MAX_SEARCH],
            state=state if state in STATES else "",
            sort=sort if sort in ORDERS else "",
        )

    @property
    def narrows(self) -> bool:
        return bool(self.search or self.state)


# --- what is offered -------------------------------------------------------------------------------------


def subnet_routes() -> QuerySet[Route]:
    """Subnets that devices of the tailnet offer; a default route counts where it makes no exit node."""
    return Route.objects.exclude(node__state=NodeState.PENDING.value).exclude(part_of_exit_node())


def offering_nodes() -> QuerySet[Node]:
    """Devices of the tailnet that offer themselves as exit node."""
    return listed(nodes()).exclude(state=NodeState.PENDING.value).filter(offers_exit_node())


def count_offers() -> dict[str, int]:
    """How many subnets and exit nodes are offered, and how many of each wait: two queries."""
    waits = Q(approved_at__isnull=True, declined_at__isnull=True)
    subnets = subnet_routes().aggregate(all=Count("pk"), waiting=Count("pk", filter=waits))
    exits = (
        offering_nodes()
        .select_related(None)
        .order_by()
        .aggregate(all=Count("pk"), waiting=Count("pk", filter=_exit_state("waiting")))
    )
    return {
        SUBNETS: subnets["all"],
        EXITS: exits["all"],
        f"{SUBNETS}-waiting": subnets["waiting"],
        f"{EXITS}-waiting": exits["waiting"],
    }


def _exit_state(state: str) -> Q:
    waits = Q(pk__in=waiting_routes().filter(prefix__in=EXIT_ROUTES).values("node"))
    if state == "waiting":
        return waits
    return is_exit_node() if state == "approved" else ~is_exit_node() & ~waits


def select_routes(query: RouteQuery) -> list[int]:
    """The ids of the subnet routes that the URL asks for, in its order."""
    routes = subnet_routes()
    if query.search:
        routes = routes.filter(Q(prefix__istartswith=query.search) | Q(node__name__icontains=query.search))
    if query.state:
        routes = routes.filter(
            approved_at__isnull=query.state != "approved", declined_at__isnull=query.state != "declined"
        )
    found = list(routes.values_list("pk", "prefix", "node__name", "created")[:MAX_LISTED])
    if query.sort == "router":
        found.sort(key=lambda one: (one[2], key(one[1])))
    elif query.sort == "-created":
        found.sort(key=lambda one: (one[3], one[0]), reverse=True)
    else:
        found.sort(key=lambda one: (key(one[1]), one[2]))
    return [one[0] for one in found]


def select_exit_nodes(query: RouteQuery) -> QuerySet[Node]:
    """The exit nodes that the URL asks for, in its order."""
    found = offering_nodes()
    if query.search:
        found = found.filter(Q(name__icontains=query.search) | Q(user__email__icontains=query.search))
    if query.state:
        found = found.filter(_exit_state(query.state))
    return found.order_by("-created", "pk") if query.sort == "-created" else found.order_by("name", "pk")


# --- rows ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRow:
    """One prefix of one device. ``others``: who else may carry it. ``refused``: nobody may approve it."""

    route: Route
    state: Shown
    device: Shown
    waits: bool
    approved: bool
    others: list[str]
    overlaps: Overlaps
    refused: bool
    may: bool

    @property
    def dom_id(self) -> str:
        return f"route-{self.route.pk}"


def route_rows(ids: Sequence[int], membership: Membership, now: datetime) -> list[RouteRow]:
    """The rows of these routes, in this order: five queries, however many there are."""
    light = Route.objects.select_related("node__presence").only(*ROUTE, *(f"node__{name}" for name in STATED))
    loaded = light.in_bulk(list(ids))
    routes = [loaded[pk] for pk in ids if pk in loaded]
    carriers = carriers_of({route.prefix for route in routes}, now)
    offered = subnet_routes().filter(declined_at__isnull=True).exclude(prefix__in=EXIT_ROUTES)
    if len(routes) == 1:  # of one row that was switched: a page of rows needs most of them anyway
        wider, beginning = near(routes[0].prefix)
        offered = offered.filter(Q(prefix__in=wider) | Q(prefix__startswith=beginning))
    overlapping = Overlapping(set(offered.values_list("prefix", flat=True)[:MAX_LISTED]))
    return [
        _route_row(route, carriers.get(route.prefix, []), overlapping, membership, now) for route in routes
    ]


def _route_row(
    route: Route, carriers: list[Route], overlapping: Overlapping, membership: Membership, now: datetime
) -> RouteRow:
    online = is_online(route.node, now)
    return RouteRow(
        route=route,
        state=_route_state(route, carriers, online=online, now=now),
        device=shown_state(route.node, online=online, now=now),
        waits=route.waits,
        approved=route.approved_at is not None,
        others=[one.node.name for one in carriers if one.node_id != route.node_id],
        overlaps=overlapping.of(route.prefix),
        refused=is_nodes_own(route.prefix),
        may=may(membership, NodeAction.APPROVE_ROUTES, route.node),
    )


def _route_state(route: Route, carriers: list[Route], *, online: bool, now: datetime) -> Shown:
    """What becomes of the prefix through this device, by the election that netmaps are made by."""
    if route.approved_at is None:
        return WAITING if route.waits else DECLINED
    place = next((index for index, one in enumerate(carriers) if one.pk == route.pk), None)
    if place is None:  # it may not carry: signed out, expired, suspended, or it has never connected
        state = shown_state(route.node, online=online, now=now)
        return UNUSABLE if state in (ONLINE, OFFLINE) else state
    if not online:
        return OFFLINE
    return SERVING if place == 0 else STANDS_BY


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitRow:
    """One exit node. ``users``: the first names of those that use it, ``more``: how many others do."""

    node: Node
    offers: Offers
    state: Shown
    device: Shown
    users: list[tuple[str, str]]
    more: int
    may: bool

    @property
    def dom_id(self) -> str:
        return f"exit-node-{self.node.pk}"

    @property
    def in_use(self) -> int:
        return len(self.users) + self.more


def exit_rows(found: Sequence[Node], membership: Membership, now: datetime) -> list[ExitRow]:
    """The rows of these exit nodes: one query for who uses them."""
    users: dict[str, list[tuple[str, str]]] = {}
    by = Node.objects.filter(reported_exit_node__in=[node.stable_id for node in found])
    for name, stable_id, used in by.order_by("name").values_list("name", "stable_id", "reported_exit_node"):
        users.setdefault(used, []).append((name, stable_id))
    return [_exit_row(node, users.get(node.stable_id, []), membership, now) for node in found]


def _exit_row(node: Node, users: list[tuple[str, str]], membership: Membership, now: datetime) -> ExitRow:
    offers = offers_of(node)
    device = shown_state(node, online=is_online(node, now), now=now)
    if offers.exit_approved:
        state = LIFE.get(node.life, APPROVED)
    else:
        state = WAITING if offers.exit_waits else DECLINED
    return ExitRow(
        node=node,
        offers=offers,
        state=state,
        device=device,
        users=users[:MAX_NAMED],
        more=max(0, len(users) - MAX_NAMED),
        may=may(membership, NodeAction.APPROVE_ROUTES, node),
    )
