"""The engine of one tailnet: an immutable snapshot, its changes, and the bytes that each viewer gets.

A change is a new snapshot. :meth:`Engine.update` returns an :class:`Update`, which answers for each viewer
with the smallest message that brings it from the old snapshot to the new one.
Viewers of the same view share one serialised (and compressed) delta. The law, tested with generated
histories: applying the deltas that a node got equals the full map it would get now.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

import orjson

from controlplane.netmap import builder
from controlplane.netmap.peers import Fragments, Shared
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.netmap.state import State, differing_nodes
from controlplane.netmap.update import Update, joined, own_members
from wire.control import format_time


class Engine:
    """One tailnet's state with the JSON fragments cached from it."""

    def __init__(self, begin: TailnetSnapshot | State) -> None:
        self.state = begin if isinstance(begin, State) else State.of(begin)
        self.fragments = Fragments()
        self._shared = Shared()

    @property
    def snapshot(self) -> TailnetSnapshot:
        return self.state.snapshot

    # -- changes

    def update(
        self,
        snapshot: TailnetSnapshot,
        changed: Iterable[int] | None = None,
        prepared: State | None = None,
    ) -> Update:
        """Swap in a new snapshot. ``changed`` names the nodes that may differ; ``None`` = compare all.

        ``prepared``: :meth:`State.next`.
        """
        old = self.state
        self.state, ids = old.next(snapshot, changed, prepared)
        for node_id in ids - snapshot.nodes.keys():
            self.fragments.drop(node_id)
        return Update(old, self.state, ids, self.fragments, self.full_map)

    def since(self, old: State) -> Update:
        """The one step from an earlier state to the present one, for a viewer that missed some."""
        ids = differing_nodes(old.snapshot, self.snapshot)
        return Update(old, self.state, ids, self.fragments, self.full_map)

    def with_nodes(self, nodes: Mapping[int, NodeSnapshot | None]) -> Update:
        """Replace (or with ``None`` remove) some nodes at the same version."""
        merged = dict(self.snapshot.nodes)
        for node_id, node in nodes.items():
            if node is None:
                merged.pop(node_id, None)
            else:
                merged[node_id] = node
        return self.update(replace(self.snapshot, nodes=merged), nodes.keys())

    # -- messages

    def full_map(self, node_id: int, now: datetime, *, peers: bool = True) -> bytes:
        """The JSON of a whole map for one node; raises ``KeyError`` for an unknown one."""
        state, snapshot = self.state, self.snapshot
        viewer = snapshot.nodes[node_id]
        pieces, people = self.fragments.peers_of(viewer, state)
        members = [
            *own_members(state, viewer),
            *self._shared.of(snapshot),
            builder.profiles_member(snapshot, people),
            b'"CollectServices":false,"Debug":{"DisableLogTail":true}',
            b'"ControlTime":' + orjson.dumps(format_time(now)),
        ]
        if not pieces or not peers:
            return joined(members)
        return b"".join([b"{", b",".join(members), b',"Peers":[', *pieces, b"]}"])
