"""One tailnet in this process: its engine, and the parts that feed it and listen to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime

from controlplane.background import Tasks
from controlplane.hub.audience import Audience, Subscriber
from controlplane.hub.database import Database
from controlplane.hub.expiry import Expiry
from controlplane.hub.facts import Facts
from controlplane.hub.layer import Layer
from controlplane.hub.nodekeys import NodeKeys
from controlplane.hub.presence import Presence
from controlplane.hub.pushing import Pushes, Workshop
from controlplane.hub.refresh import Refresher
from controlplane.hub.reports import Unwritten
from controlplane.netmap.engine import Engine
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.netmap.state import State


@dataclass(frozen=True, slots=True)
class Shared:
    """What all rooms of a process use."""

    tasks: Tasks
    database: Database
    layer: Layer
    workshop: Workshop
    keys: NodeKeys


class Room:
    """See the module's docstring. ``used`` is the loop time at which somebody was last here.

    Durable changes come from the ``refresher``, volatile ones from the ``facts``, the ends of keys from
    ``expiry``; the engine's steps go to the ``pushes``, which send them to the ``audience``.
    """

    def __init__(self, state: State, shared: Shared, gone: Callable[[], Awaitable[None]]) -> None:
        tasks, database, layer = shared.tasks, shared.database, shared.layer
        snapshot = state.snapshot
        self.engine = engine = Engine(state)
        self._workshop = shared.workshop
        self.audience = audience = Audience()
        self.expiry = Expiry(engine)
        self.unwritten = Unwritten(snapshot.id, database)
        self.pushes = Pushes(engine, audience, shared.workshop, tasks)
        self.facts = Facts(engine, audience, self.pushes, self.unwritten, layer)
        self.presence = Presence(engine, audience, self.facts, database=database, layer=layer, tasks=tasks)
        self.refresher = Refresher(engine, database=database, tasks=tasks, take=self.swap, gone=gone)
        self.keys = shared.keys
        self.keys.add(snapshot.id, snapshot.nodes.values())
        self.used = asyncio.get_running_loop().time()

    @property
    def snapshot(self) -> TailnetSnapshot:
        return self.engine.snapshot

    # -- changes

    async def swap(self, fresh: TailnetSnapshot, rows: Collection[int] | None) -> None:
        """Swap in what was read of these rows (``None`` = all), and push the difference."""
        prepared = None
        if fresh.policy is not self.snapshot.policy and fresh.policy != self.snapshot.policy:
            prepared = await self._workshop.prepare(fresh)
        before, nodes = self.snapshot.nodes, self.facts.laid_over(fresh.nodes, rows)
        update = self.engine.update(replace(fresh, nodes=nodes), prepared=prepared)
        for node_id in update.changed & before.keys():
            self._follow(before[node_id], nodes.get(node_id))
        self.keys.add(fresh.id, (nodes[i] for i in update.changed if i in nodes))
        self.expiry.plan()
        self.pushes.line_up(update)
        await self.pushes.send()

    def _follow(self, before: NodeSnapshot, node: NodeSnapshot | None) -> None:
        """Forget what is no longer so of a node that has changed, or (``None``) is gone."""
        if node is None or node.node_key != before.node_key:
            self.keys.drop(before.node_key)
        if node is None:
            self.facts.forget(before.id)
            self.presence.forget(before.id)
            self.audience.incarnations.forget(before.id)

    def expire(self, now: datetime) -> None:
        """Push the ends of keys that have come."""
        if expired := self.expiry.expired(now):
            update = self.engine.with_nodes(expired)
            self.expiry.plan()
            self.pushes.push_soon(update)

    # -- streams

    async def join(self, subscriber: Subscriber, *, is_node: bool) -> None:
        """Send a stream its full map, and every change from then on.

        It becomes its node's, or (not ``is_node``) the one of a machine that uses another one's keys.
        """
        audience, stream = self.audience, subscriber.stream
        if not is_node:
            audience.add_shadow(subscriber)
            stream.on_closed(lambda: audience.shadows.discard(subscriber))
            await self.pushes.send_full(subscriber)
            return
        audience.seat(subscriber)
        stream.on_closed(lambda: self.presence.left(subscriber))
        if not audience.holds(subscriber):  # it has ended meanwhile
            return
        await self.pushes.send_full(subscriber)
        self.presence.claim_soon(subscriber.node_id)
        self.facts.report(subscriber.node_id, {"online": True})

    def close(self) -> None:
        """End every stream, and forget whose keys were here."""
        for node in self.snapshot.nodes.values():
            self.keys.drop(node.node_key)
        self.audience.close()
