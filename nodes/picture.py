"""The map: which devices are drawn, with whom each of them talks, and what is left out."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Value, When

from accounts.models import Membership
from nodes.access import visible_nodes
from nodes.hostinfo import region_seconds
from nodes.links import End, Kind, Latencies, Link, merge, reported
from nodes.listing import DeviceQuery, online_at
from nodes.models import Node
from nodes.selectors import STATED, SYSTEM

MAX_DRAWN = 250
MAX_GROUPS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MapQuery:
    """What the URL asks for; whatever it has wrongly is left out. ``path``: only pairs connected so.

    ``rules``: what rules allow is drawn, too, where the reader may know.
    """

    devices: DeviceQuery = field(default_factory=DeviceQuery)
    path: Kind | None = None
    rules: bool = False

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> MapQuery:
        state = "online" if values.get("online") == "1" else ""
        wanted = {"q": values.get("q", ""), "owner": values.get("owner", ""), "state": state}
        path = str(values.get("path", ""))
        return cls(
            devices=DeviceQuery.parse(wanted),
            path=Kind(path) if path in Kind.__members__.values() else None,
            rules=values.get("rules") == "1",
        )

    @property
    def search(self) -> str:
        return self.devices.search

    @property
    def owner(self) -> str:
        return self.devices.owner

    @property
    def online(self) -> bool:
        return bool(self.devices.state)

    @property
    def names_some(self) -> bool:
        """Whether it picks devices out, so that those they talk to are drawn beside them."""
        return bool(self.search or self.owner)

    @property
    def narrows(self) -> bool:
        return self.names_some or self.online or self.path is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """``nodes`` by id; ``beside``: those drawn only because they talk to one of the ``total`` asked for."""

    nodes: Mapping[int, Node]
    beside: frozenset[int]
    links: list[Link]
    total: int


def load_picture(membership: Membership, query: MapQuery, now: datetime) -> Picture:
    """At most :data:`MAX_DRAWN` devices, connected ones first, and their links; a fixed number of queries."""
    visible = visible_nodes(membership)
    chosen = query.devices.select(visible, now)
    nodes = {node.pk: node for node in _connected_first(chosen, now)[:MAX_DRAWN]}
    room = MAX_DRAWN - len(nodes) if query.names_some else 0
    ends = reported(nodes, now, among=not room)
    peers = {pk for end in ends for pk in (end.node, end.peer)} - nodes.keys()
    near = _connected_first(visible.filter(pk__in=peers), now)[:room] if peers else ()
    beside = {node.pk: node for node in near}
    drawn = nodes | beside
    picture = Picture(
        nodes=drawn,
        beside=frozenset(beside),
        links=_links(ends, drawn),
        total=chosen.count(),
    )
    return picture if query.path is None else _only(picture, query.path)


def _links(ends: Iterable[End], drawn: Mapping[int, Node]) -> list[Link]:
    """The pairs of devices that are drawn."""
    told = [end for end in ends if end.node in drawn and end.peer in drawn]
    relayed = {pk for end in told if end.kind is Kind.RELAYED for pk in (end.node, end.peer)}
    return merge(told, exit_nodes=_exit_nodes(drawn.values()), latencies=_latencies(relayed))


def _only(picture: Picture, path: Kind) -> Picture:
    """The pairs connected in this way alone, and nobody else."""
    links = [link for link in picture.links if link.kind is path]
    kept = {pk for link in links for pk in link.pair}
    return Picture(
        nodes={pk: node for pk, node in picture.nodes.items() if pk in kept},
        beside=picture.beside & kept,
        links=links,
        total=picture.total,
    )


def _connected_first(devices: QuerySet[Node], now: datetime) -> QuerySet[Node]:
    away = Case(When(online_at(now), then=Value(0)), default=Value(1), output_field=IntegerField())
    light = devices.select_related(None).select_related("presence")
    light = light.only(*STATED, *SYSTEM, "reported_exit_node")
    return light.annotate(away=away).order_by("away", "name", "pk")


def links_of(node: Node, *, membership: Membership, now: datetime) -> tuple[list[Link], dict[int, Node], int]:
    """One device's links, the peers at their other ends, and how many more there are that are not shown."""
    ends = reported([node.pk], now)
    uses = {node.pk: node.reported_exit_node}
    visible = visible_nodes(membership)
    ids = {end.peer if end.node == node.pk else end.node for end in ends}
    found = visible.filter(Q(pk__in=ids) | Q(stable_id=uses[node.pk] or "-")).exclude(pk=node.pk)
    peers = {peer.pk: peer for peer in found.prefetch_related(None)[:MAX_DRAWN]}
    links = _links(ends, {node.pk: node} | peers)
    links = [link for link in links if node.pk in link.pair]
    return links, peers, len(ids - peers.keys())


def _latencies(devices: Collection[int]) -> Latencies:
    """How far these devices say that they are from the relay regions, in one query."""
    rows = Node.objects.filter(pk__in=devices).order_by()
    told = rows.values_list("pk", "hostinfo__NetInfo__DERPLatency")
    return {pk: region_seconds(latencies) for pk, latencies in told}


def _exit_nodes(nodes: Iterable[Node]) -> dict[int, int]:
    """Which of these devices uses which of them as exit node."""
    nodes = list(nodes)
    by_stable_id = {node.stable_id: node.pk for node in nodes}
    used = ((node.pk, by_stable_id.get(node.reported_exit_node or "")) for node in nodes)
    return {user: exit_node for user, exit_node in used if exit_node is not None}


def largest_owners(membership: Membership) -> list[tuple[int | None, str, int]]:
    """The owners with the most devices: id (``None`` = tagged), name, number."""
    counted = visible_nodes(membership).prefetch_related(None).select_related(None).order_by()
    rows = counted.values_list("user_id", "user__email").annotate(n=Count("pk")).order_by("-n", "user__email")
    return [(user, email or "", number) for user, email, number in rows[:MAX_GROUPS]]
