"""Whose a node key is, over all tailnets that are loaded here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from controlplane.netmap.snapshot import NodeSnapshot


class Owner(NamedTuple):
    """The node that a key belongs to."""

    tailnet_id: int
    node_id: int


class NodeKeys:
    """An index; what it says of a node that has changed meanwhile is for the reader to check."""

    def __init__(self) -> None:
        self._owners: dict[str, Owner] = {}

    def add(self, tailnet_id: int, nodes: Iterable[NodeSnapshot]) -> None:
        for node in nodes:
            self._owners[node.node_key] = Owner(tailnet_id, node.id)

    def drop(self, node_key: str) -> None:
        self._owners.pop(node_key, None)

    def find(self, node_key: str) -> Owner | None:
        return self._owners.get(node_key)
