"""Volatile facts: endpoints, disco keys, home relays, who is online.

They skip the database on their way out: pushed at once (those of a few milliseconds as one step), told to the
other workers, and written behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from controlplane.hub.audience import Audience
from controlplane.hub.layer import Layer, facts_in
from controlplane.hub.pushing import Pushes
from controlplane.hub.reports import Recent, Unwritten
from controlplane.netmap.engine import Engine
from controlplane.netmap.snapshot import NodeSnapshot
from nodes.hostinfo import merged, preferred_derp
from nodes.posture import told_anew

COALESCE_SECONDS = 0.004


def gone() -> dict[str, Any]:
    """The facts of a node that is no longer connected, from now on."""
    return {"online": False, "online_since": None, "last_seen": datetime.now(UTC)}


class Facts:
    """The volatile facts of one tailnet's nodes, by their names in :class:`NodeSnapshot`.

    Those that are news go to ``_recent``, which lies over every row that is read, and their nodes to
    ``_waiting``, who are in the next push.
    """

    def __init__(
        self, engine: Engine, audience: Audience, pushes: Pushes, unwritten: Unwritten, layer: Layer
    ) -> None:
        self._engine = engine
        self._audience = audience
        self._pushes = pushes
        self._unwritten = unwritten
        self._layer = layer
        self._recent = Recent()
        self._waiting: set[int] = set()
        self._flush_handle: asyncio.TimerHandle | None = None

    @property
    def are_waiting(self) -> bool:
        """Whether a push is due."""
        return self._flush_handle is not None

    # -- what comes in

    def report(self, node_id: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Take a node's facts: pushed, told and written; returns those that were news."""
        if news := self.take(node_id, facts):
            self._unwritten.add(node_id, news)
            self._layer.tell_workers(self._engine.snapshot.id, node_id, news)
        return news

    def take_hostinfo(self, node_id: int, hostinfo: dict[str, Any]) -> None:
        """Take a node's new Hostinfo and what follows from it; an absent NetInfo keeps the one before."""
        node = self._engine.snapshot.nodes.get(node_id)
        if node is not None:
            whole = merged(node.hostinfo, hostinfo)
            home = preferred_derp(whole) or node.home_derp
            self.report(node_id, {"hostinfo": whole, "home_derp": home})

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take another worker's report; a newer stream of a node there ends the older one here."""
        node_id, facts = message["node"], facts_in(message)
        node, audience = self._engine.snapshot.nodes.get(node_id), self._audience
        if node is None:  # it has just joined: its row is being read
            self._remember(node_id, facts)
            return
        if "disco_key" in facts:
            audience.incarnations.admits(node_id, facts["disco_key"], node.disco_key)
        here, left = audience.subscribers.get(node_id), facts.get("online") is False
        if here is None and left:
            audience.release(node_id)
        if here is not None and message["epoch"] > here.epoch > 0:
            here.stream.close()
        if here is not None and left:
            facts = {name: value for name, value in facts.items() if name not in gone()}
        self.take(node_id, facts)

    def take(self, node_id: int, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Take facts of a node into the next push; returns those that are news."""
        node = self._engine.snapshot.nodes.get(node_id)
        if node is None:
            return {}
        if node_id in self._waiting:
            node = self.overlay(node)
        news = {name: value for name, value in facts.items() if getattr(node, name) != value}
        if news:
            self._remember(node_id, news)
            self._waiting.add(node_id)
            self._flush_soon()
        return news

    def _remember(self, node_id: int, facts: Mapping[str, Any]) -> None:
        self._recent.add(node_id, facts, asyncio.get_running_loop().time())

    # -- what goes out

    def _flush_soon(self) -> None:
        loop = asyncio.get_running_loop()
        if self._flush_handle is None:
            at = max(loop.time() + COALESCE_SECONDS, self._pushes.rest_until)
            self._flush_handle = loop.call_at(at, self._flush)

    def _flush(self) -> None:
        """Push the changes of the last milliseconds as one step, once the push before it is done."""
        if self._pushes.is_busy:
            self._flush_handle = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._flush)
            return
        self._flush_handle = None
        nodes, waiting = self._engine.snapshot.nodes, self._waiting
        self._waiting = set()
        fresh = {i: self.overlay(nodes[i]) for i in waiting if i in nodes}
        self._pushes.push_soon(self._engine.with_nodes(fresh))

    # -- what is kept

    def overlay(self, node: NodeSnapshot) -> NodeSnapshot:
        """A row that was just read, under what was reported of its node and may not be written yet."""
        facts = self._recent.of(node.id)
        if node.id in self._audience.subscribers and not node.online:
            facts = facts | {"online": True}
        if "hostinfo" in facts:
            facts = facts | {"attributes": told_anew(node.attributes, facts["hostinfo"])}
        return replace(node, **facts) if facts else node

    def laid_over(
        self, read: Mapping[int, NodeSnapshot], rows: Collection[int] | None
    ) -> dict[int, NodeSnapshot]:
        """The nodes after a reading of these rows (``None`` = all); unchanged ones stay the same objects."""
        known, nodes = self._engine.snapshot.nodes, {}
        for node_id, row in read.items():
            before = known.get(node_id)
            if before is not None and rows is not None and node_id not in rows:
                nodes[node_id] = before  # volatile facts may have moved on while the rows were read
                continue
            node = self.overlay(row)
            nodes[node_id] = before if before is not None and before == node else node
        return nodes

    def forget(self, node_id: int) -> None:
        """The node is gone."""
        self._recent.forget(node_id)

    def forget_written(self) -> None:
        """Drop reports that every row read from now on holds."""
        now = asyncio.get_running_loop().time()
        self._recent.forget_old(now, keep=self._unwritten.node_ids | self._waiting)
