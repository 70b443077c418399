"""Pairs of devices that talk, from what both ends report. Pure, but for :func:`reported`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from django.db.models import Q

from nodes.connections import REASONS
from nodes.models import ReportedPath
from wire.paths import Reason

MAX_LINKS = 4000
Pair = tuple[int, int]
Latencies = Mapping[int, Mapping[int, float]]  # of each device, by relay region, in seconds


class Kind(StrEnum):
    """By what a pair is connected; where both ends differ, the one that stands first here counts."""

    RELAYED = "relayed"
    DIRECT = "direct"
    IDLE = "idle"


class End(NamedTuple):
    """How one device says it reaches a peer. ``endpoint`` "" = by the relay ``region``, for ``reason``."""

    node: int
    peer: int
    endpoint: str
    region: int
    reason: str
    latency_ms: int

    @property
    def kind(self) -> Kind:
        if self.endpoint:
            return Kind.DIRECT
        return Kind.IDLE if self.reason == Reason.IDLE else Kind.RELAYED

    @property
    def why(self) -> Any:
        """The reason in the reader's language; "" when there is none to give."""
        return "" if self.endpoint else REASONS.get(self.reason, "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A pair, the lower id first. ``exit_node`` is the end that the other uses as exit node; 0 = neither.

    ``latency_ms`` is there and back, 0 = not known; ``is_estimate``: from both ends' distances to the relay.
    """

    pair: Pair
    ends: tuple[End, ...] = ()
    exit_node: int = 0
    latency_ms: int = 0
    is_estimate: bool = False

    @property
    def kind(self) -> Kind:
        said = {end.kind for end in self.ends}
        return next((kind for kind in Kind if kind in said), Kind.IDLE)

    @property
    def one_way(self) -> bool:
        """Whether one end's packets go directly and the other's do not."""
        return {Kind.DIRECT, Kind.RELAYED} <= {end.kind for end in self.ends}

    @property
    def regions(self) -> list[int]:
        """The relay regions that carry it."""
        return sorted({end.region for end in self.ends if end.kind is Kind.RELAYED and end.region})

    def other(self, node_id: int) -> int:
        return self.pair[1] if node_id == self.pair[0] else self.pair[0]


def reported(node_ids: Collection[int], now: datetime, *, among: bool = False) -> list[End]:
    """What connected devices say of paths from or to these (``among``: from and to), in one query.

    Absent ones have no say: what they said once is over.
    """
    here, there = Q(node__in=node_ids), Q(peer__in=node_ids)
    wanted = here & there if among else here | there
    rows = ReportedPath.objects.filter(wanted, node__presence__expires__gt=now)
    found = rows.order_by("pk").values_list(
        "node_id", "peer_id", "endpoint", "derp_region", "reason", "latency_ms"
    )
    return [End(*row) for row in found[:MAX_LINKS]]


@dataclass(slots=True)
class _Merging:
    ends: list[End] = field(default_factory=list)
    exit_node: int = 0


def merge(
    ends: Iterable[End], *, exit_nodes: Mapping[int, int] | None = None, latencies: Latencies | None = None
) -> list[Link]:
    """One link for each pair. ``exit_nodes``: which device uses which as exit node, which is a link, too."""
    pairs: dict[Pair, _Merging] = {}
    for end in ends:
        pairs.setdefault(_pair(end.node, end.peer), _Merging()).ends.append(end)
    for user, exit_node in (exit_nodes or {}).items():
        if user != exit_node:
            pairs.setdefault(_pair(user, exit_node), _Merging()).exit_node = exit_node
    return [_link(pair, pairs[pair], latencies or {}) for pair in sorted(pairs)]


def _pair(one: int, other: int) -> Pair:
    return (one, other) if one < other else (other, one)


def _link(pair: Pair, merging: _Merging, latencies: Latencies) -> Link:
    link = Link(pair=pair, ends=tuple(merging.ends), exit_node=merging.exit_node)
    measured = [end.latency_ms for end in link.ends if end.latency_ms]
    is_estimate = link.kind is Kind.RELAYED
    milliseconds = _by_relay(link, latencies) if is_estimate else min(measured, default=0)
    return Link(
        pair=pair,
        ends=link.ends,
        exit_node=link.exit_node,
        latency_ms=milliseconds,
        is_estimate=is_estimate and milliseconds > 0,
    )


def _by_relay(link: Link, latencies: Latencies) -> int:
    """There and back by the relays: each end's distance to them; the mean, where each way has its own."""
    one, other = (latencies.get(node, {}) for node in link.pair)
    known = [one[region] + other[region] for region in link.regions if region in one and region in other]
    return round(1000 * sum(known) / len(known)) if known else 0
