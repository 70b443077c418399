"""What a device offers to carry for others, and what of that is approved."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q, QuerySet

from accounts.models import Membership
from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node, Route
from nodes.selectors import STATED, is_online
from nodes.state import NodeState

MAX_ROUTERS = 1000
RANKED = ("tailnet", "node", "prefix", "approved_at", "node__created", "node__presence__connected_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """A device's offers. An exit node offers both default routes; one alone is shown as it is (``half``)."""

    exit_node: bool
    exit_approved: bool
    exit_waits: bool
    half: bool
    subnets: Sequence[Route]

    @property
    def subnets_waiting(self) -> int:
        return sum(route.waits for route in self.subnets)

    @property
    def subnets_approved(self) -> int:
        return sum(route.approved_at is not None for route in self.subnets)

    @property
    def any(self) -> bool:
        return self.exit_node or bool(self.subnets)

    @property
    def wait(self) -> bool:
        return self.exit_waits or self.subnets_waiting > 0


def offers_of(node: Node) -> Offers:
    """By the routes that were read with the device."""
    routes = list(node.routes.all())
    default = [route for route in routes if route.is_exit]
    whole = len(default) == len(EXIT_ROUTES)
    return Offers(
        exit_node=whole,
        exit_approved=whole and all(route.approved_at is not None for route in default),
        exit_waits=whole and any(route.waits for route in default),
        half=bool(default) and not whole,
        subnets=[route for route in routes if not (whole and route.is_exit)],
    )


@dataclass(frozen=True, slots=True)
class Routes:
    """A device's prefixes as the public API has them: what is enabled need not be offered yet."""

    advertised: list[str]
    enabled: list[str]


def routes_of(preapproved: Iterable[str], offered: Collection[tuple[str, bool]]) -> Routes:
    """``offered`` are the prefixes that it offers, each with whether it is approved."""
    enabled = {prefix for prefix, approved in offered if approved}.union(preapproved)
    return Routes(sorted(prefix for prefix, _ in offered), sorted(enabled))


@dataclass(frozen=True, slots=True)
class Subnet:
    """One prefix on a device's page. ``others`` are the names of those that may carry it, too.

    ``carries`` says whether this device does now.
    """

    prefix: str
    approved: bool
    waits: bool
    others: list[str]
    carries: bool


def subnets_of(node: Node, *, among: QuerySet[Node], now: datetime) -> list[Subnet]:
    """The device's subnets, and which other devices (of those ``among`` which are seen) may carry them."""
    offered = offers_of(node).subnets
    routers = carriers_of([route.prefix for route in offered], now) if offered else {}
    seen = (
        set(among.filter(routes__prefix__in=list(routers)).values_list("pk", flat=True)) if offered else set()
    )
    return [_subnet(node, route, routers.get(route.prefix, []), seen) for route in offered]


def _subnet(node: Node, route: Route, routers: list[Route], seen: set[int]) -> Subnet:
    others = sorted(one.node.name for one in routers if one.node_id in seen and one.node_id != node.pk)
    carries = bool(routers) and routers[0].node_id == node.pk
    return Subnet(route.prefix, route.approved_at is not None, route.waits, others, carries)


def carriers_of(prefixes: Collection[str], now: datetime) -> dict[str, list[Route]]:
    """Who may carry each prefix, the one that does first: in the order of the netmaps' election."""
    active = Membership.objects.filter(status=Membership.Status.ACTIVE, user__is_active=True)
    approved = Route.objects.filter(
        Q(node__user__isnull=True) | Q(node__user__in=active.values("user")),
        prefix__in=list(prefixes),
        approved_at__isnull=False,
        node__state=NodeState.ACTIVE.value,
    ).exclude(node__disco_key="")
    found: dict[str, list[Route]] = {}
    light = approved.select_related("node__presence").only(*RANKED, *(f"node__{name}" for name in STATED))
    for route in light[:MAX_ROUTERS]:
        if route.node.key_is_good(now):
            found.setdefault(route.prefix, []).append(route)
    for routers in found.values():
        routers.sort(key=lambda route: _rank(route, now))
    return found


def _rank(route: Route, now: datetime) -> tuple[bool, datetime, int]:
    """As ``controlplane.netmap.primaries`` ranks snapshots, which know no rows; a test compares the two."""
    approved = route.approved_at or route.node.created
    since = route.node.presence.connected_at if is_online(route.node, now) else None
    return since is None, max(since or approved, approved), route.node_id
