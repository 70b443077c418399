"""The ends of node keys, told when they come: no row changes then. Pure but for the engine it looks at."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from controlplane.netmap.engine import Engine
from controlplane.netmap.snapshot import NodeSnapshot, Standing

# Only the end of such a node's key changes anything.
KEY_COUNTS = frozenset({Standing.ACTIVE, Standing.PENDING})


class Expiry:
    """When the next key of a tailnet ends (``next``); :meth:`plan` whenever rows were read."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.next: datetime | None = None
        self.plan()

    def plan(self) -> None:
        nodes = self._engine.snapshot.nodes.values()
        ends = (node.key_expiry for node in nodes if node.standing in KEY_COUNTS)
        self.next = min((end for end in ends if end is not None), default=None)

    def expired(self, now: datetime) -> dict[int, NodeSnapshot]:
        """The nodes whose keys have just ended, as they are from now on. Their rows follow with the sweep."""
        if self.next is None or self.next > now:
            return {}
        return {
            node.id: replace(node, standing=Standing.EXPIRED)
            for node in self._engine.snapshot.nodes.values()
            if node.standing in KEY_COUNTS and node.key_expiry is not None and node.key_expiry <= now
        }
