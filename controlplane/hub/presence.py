"""Who is connected, as the database, pages and other workers are told: claims, leases, and going offline.

A stream is claimed in the database (:mod:`nodes.services.presence`), which gives it an epoch. A node goes
offline ten seconds after its stream has ended, or with its lease if its worker died; a router that has a
stand-in also when it owes too many answers (:mod:`controlplane.liveness`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping

from controlplane.background import RETRY_SECONDS, Tasks
from controlplane.hub.audience import Audience, Subscriber
from controlplane.hub.database import Database
from controlplane.hub.facts import Facts, gone
from controlplane.hub.layer import Layer
from controlplane.liveness import silent_routers
from controlplane.netmap.engine import Engine
from nodes.services.presence import Claim

logger = logging.getLogger("trenza.hub")

OFFLINE_SECONDS = 10.0
CLAIM_BATCH = 500


class Presence:
    """The streams of one tailnet's nodes that are here, towards everybody else."""

    def __init__(
        self,
        engine: Engine,
        audience: Audience,
        facts: Facts,
        *,
        database: Database,
        layer: Layer,
        tasks: Tasks,
    ) -> None:
        self._engine = engine
        self._audience = audience
        self._facts = facts
        self._database = database
        self._layer = layer
        self._tasks = tasks
        self._tailnet_id = engine.snapshot.id
        self._unclaimed: set[int] = set()
        self._claiming: asyncio.Task[None] | None = None
        self._epochs: dict[int, int] = {}
        self._told = 0

    @property
    def is_claiming(self) -> bool:
        return self._claiming is not None and not self._claiming.done()

    # -- coming

    def claim_soon(self, node_id: int) -> None:
        self._unclaimed.add(node_id)
        if not self.is_claiming:
            self._claiming = self._tasks.spawn(self._claim())

    async def _claim(self) -> None:
        """Tell the database, pages and other workers whose streams are here, many in one go."""
        while self._unclaimed:
            node_ids = sorted(self._unclaimed)[:CLAIM_BATCH]
            self._unclaimed.difference_update(node_ids)
            try:
                claims = await self._database.claim(self._tailnet_id, node_ids)
            except Exception:
                logger.exception("streams could not be claimed; trying again")
                self._unclaimed.update(node_ids)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            self._take_claims(claims)

    def _take_claims(self, claims: Mapping[int, Claim]) -> None:
        for node_id, claim in claims.items():
            self._epochs[node_id] = claim.epoch
            facts = {"online": True, "online_since": claim.since}
            if (subscriber := self._audience.subscribers.get(node_id)) is not None:
                if node_id not in self._unclaimed:  # else it is a newer stream than the one of this claim
                    subscriber.epoch = claim.epoch
                self._facts.take(node_id, facts)
            self._layer.tell_workers(self._tailnet_id, node_id, facts, claim.epoch)
        self._tell_pages(claims)

    def _tell_pages(self, node_ids: Collection[int]) -> None:
        """Pages read who is online from the database: they are told after it knows."""
        if node_ids:
            self._told += 1
            self._layer.tell_pages(self._tailnet_id, self._engine.snapshot.version, self._told, node_ids)

    # -- going

    def left(self, subscriber: Subscriber) -> None:
        """A stream ended; unless another one takes its place, the node goes offline in ten seconds."""
        if self._audience.leave(subscriber):
            loop = asyncio.get_running_loop()
            loop.call_later(OFFLINE_SECONDS, self._maybe_offline, subscriber.node_id)

    def _maybe_offline(self, node_id: int) -> None:
        if node_id not in self._audience.subscribers and not self._audience.closed:
            self._tasks.spawn(self._go_offline(node_id))

    async def _go_offline(self, node_id: int) -> None:
        epoch = self._epochs.pop(node_id, 0)
        ended = await self._database.release(self._tailnet_id, node_id, epoch)
        if ended and node_id not in self._audience.subscribers:
            self._facts.report(node_id, gone())
            self._tell_pages([node_id])

    def forget(self, node_id: int) -> None:
        """The node is gone."""
        self._epochs.pop(node_id, None)

    # -- looking after

    def give_up_silent(self) -> None:
        """Ask routers that have a stand-in for a sign of life; who owes too many is offline at once."""
        streams = {node_id: one.stream for node_id, one in self._audience.subscribers.items()}
        for node_id in silent_routers(self._engine.snapshot, streams):
            logger.info("node %d of tailnet %d has gone silent", node_id, self._tailnet_id)
            streams[node_id].abort()
            self._tasks.spawn(self._go_offline(node_id))

    async def renew(self) -> None:
        """Renew the leases of the streams here."""
        if node_ids := list(self._audience.subscribers):
            await self._database.renew(self._tailnet_id, node_ids)

    async def find_dead(self) -> None:
        """Nodes that were online in a worker that died: offline when their lease has ended."""
        here = self._audience.subscribers
        nodes = self._engine.snapshot.nodes.values()
        elsewhere = [node.id for node in nodes if node.online and node.id not in here]
        if not elsewhere:
            return
        for node_id in await self._database.ended_presences(self._tailnet_id, elsewhere):
            if node_id not in here:
                self._facts.report(node_id, gone())
