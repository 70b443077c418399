"""Which of several routers of a subnet carries it: an order that snapshots alone decide. Pure."""

from __future__ import annotations

from datetime import datetime

from controlplane.netmap.snapshot import NodeSnapshot

Rank = tuple[int, datetime, int]


def rank(node: NodeSnapshot, prefix: str) -> Rank:
    """How well a node would carry a prefix, the lowest best: here, for how long, and the older node."""
    approved = node.approved.get(prefix, node.created)
    if node.online and node.online_since is not None:
        return 0, max(node.online_since, approved), node.id
    return (1 if node.online else 2), approved, node.id
