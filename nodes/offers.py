"""What a device offers to carry for others, and what of that is approved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import QuerySet

from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node, Route

MAX_OTHERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Offers:
    """A device's offers. An exit node offers both default routes; one alone is shown as it is (``half``)."""

    exit_node: bool
    exit_approved: bool
    half: bool
    subnets: Sequence[Route]

    @property
    def exit_waits(self) -> bool:
        return self.exit_node and not self.exit_approved

    @property
    def subnets_waiting(self) -> int:
        return sum(route.approved_at is None for route in self.subnets)

    @property
    def subnets_approved(self) -> int:
        return len(self.subnets) - self.subnets_waiting

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
        half=bool(default) and not whole,
        subnets=[route for route in routes if not (whole and route.is_exit)],
    )


@dataclass(frozen=True, slots=True)
class Subnet:
    """One prefix on a device's page; ``others`` are the names of those that may carry it, too."""

    prefix: str
    approved: bool
    others: list[str]


def subnets_of(node: Node, *, among: QuerySet[Node]) -> list[Subnet]:
    """The device's subnets, and which of the devices ``among`` which are seen are approved for them, too."""
    offered = offers_of(node).subnets
    found = Route.objects.filter(prefix__in=[route.prefix for route in offered], approved_at__isnull=False)
    others = found.filter(node__in=among.values("pk")).exclude(node=node).order_by("node__name")
    names: dict[str, list[str]] = {}
    for prefix, name in others.values_list("prefix", "node__name")[:MAX_OTHERS] if offered else ():
        names.setdefault(prefix, []).append(name)
    return [
        Subnet(route.prefix, route.approved_at is not None, names.get(route.prefix, [])) for route in offered
    ]
