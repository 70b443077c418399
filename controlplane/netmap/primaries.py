"""Which node carries a subnet that several offer: decided by the snapshot alone, so all workers agree. Pure.

A client that was told of two carriers would send everything to the last one, so each prefix has one: of the
approved nodes that are online the one that has been serving it for the longest time. A node that was away
starts again at the end of the line: when it returns, nothing moves back, and no connection breaks twice.
Prefixes that overlap are different prefixes; clients choose by the longest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from controlplane.netmap.ranking import rank
from controlplane.netmap.snapshot import EXIT_ROUTES, NodeSnapshot, Standing, TailnetSnapshot
from controlplane.netmap.visibility import is_offered


def is_router(node: NodeSnapshot | None) -> bool:
    """Whether the election could depend on this node."""
    return node is not None and bool(node.routes or node.primary_routes)


def candidates(nodes: Iterable[NodeSnapshot]) -> dict[str, list[NodeSnapshot]]:
    """Who may carry each approved subnet: nodes that peers are shown and whose keys are good."""
    offers: dict[str, list[NodeSnapshot]] = {}
    for node in nodes:
        if node.routes and node.standing is Standing.ACTIVE and is_offered(node):
            for prefix in node.routes:
                if prefix not in EXIT_ROUTES:
                    offers.setdefault(prefix, []).append(node)
    return offers


def reassigned(nodes: Mapping[int, NodeSnapshot]) -> dict[int, NodeSnapshot]:
    """The nodes whose ``primary_routes`` the election changes, as they are from now on."""
    carried: dict[int, list[str]] = {}
    for prefix, offers in sorted(candidates(nodes.values()).items()):
        best = min(offers, key=lambda node: rank(node, prefix))
        carried.setdefault(best.id, []).append(prefix)
    return {
        node.id: replace(node, primary_routes=serving)
        for node in nodes.values()
        if node.primary_routes != (serving := tuple(carried.get(node.id, ())))
    }


def elected(snapshot: TailnetSnapshot, among: set[int] | None = None) -> TailnetSnapshot:
    """The snapshot after the election of who carries which subnet; ``among`` learns whom it changed."""
    moved = reassigned(snapshot.nodes)
    if among is not None:
        among.update(moved)
    return replace(snapshot, nodes=dict(snapshot.nodes) | moved) if moved else snapshot


def redundant_routers(nodes: Iterable[NodeSnapshot]) -> set[frozenset[int]]:
    """The groups of online nodes that could carry one and the same subnet, two at least in each."""
    online = candidates(node for node in nodes if node.online)
    return {frozenset(node.id for node in offers) for offers in online.values() if len(offers) > 1}
