"""What happens by the clock, for all rooms of a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from controlplane.hub.database import Database
from controlplane.hub.layer import Layer
from controlplane.hub.rooms import Rooms
from controlplane.liveness import PROBE_SECONDS
from controlplane.measures import STREAMS

logger = logging.getLogger("trenza.hub")

TICK_SECONDS = 1.0
CHECK_SECONDS = 1.0
WRITE_BEHIND_SECONDS = 1.5
CLONES_SECONDS = 2.0
LEASE_RENEW_SECONDS = 10.0
ROOM_IDLE_SECONDS = 600  # a tailnet without streams is dropped after this long


class Clockwork:
    """The rounds; each waits by itself first, then does its work once."""

    def __init__(self, rooms: Rooms, database: Database, layer: Layer) -> None:
        self._rooms = rooms
        self._database = database
        self._layer = layer

    @property
    def rounds(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        return (
            self.tick,
            self.check_versions,
            self.write_behind,
            self.probe,
            self.watch_clones,
            self.renew,
        )

    async def tick(self) -> None:
        """Keys that have ended, and keepalives that are due (one loop for all streams)."""
        await asyncio.sleep(TICK_SECONDS)
        now, loop_now = datetime.now(UTC), asyncio.get_running_loop().time()
        STREAMS.set(sum(len(room.audience.listeners()) for room in self._rooms))
        for room in self._rooms:
            room.expire(now)
            room.audience.keep_alive(loop_now)

    async def check_versions(self) -> None:
        """One query for all tailnets here."""
        await asyncio.sleep(CHECK_SECONDS)
        if not (ids := self._rooms.ids()):
            return
        versions = await self._database.load_versions(ids)
        for room in self._rooms:
            version = versions.get(room.snapshot.id)
            if version is None:
                await self._rooms.close(room)
            else:
                room.refresher.compare(version)

    async def write_behind(self) -> None:
        await asyncio.sleep(WRITE_BEHIND_SECONDS)
        for room in self._rooms:
            try:
                await room.unwritten.write()
            except Exception:  # one tailnet's rows must not keep the others' from being written
                logger.exception("reports of tailnet %d could not be written; trying again", room.snapshot.id)
            room.facts.forget_written()

    async def probe(self) -> None:
        await asyncio.sleep(PROBE_SECONDS)
        for room in self._rooms:
            room.presence.give_up_silent()

    async def watch_clones(self) -> None:
        """Tell the database of machines that share their keys."""
        await asyncio.sleep(CLONES_SECONDS)
        now = asyncio.get_running_loop().time()
        for room in self._rooms:
            if seen := room.audience.clones(now):
                await self._database.saw_clones(room.snapshot.id, seen)

    async def renew(self) -> None:
        """Renew leases of the nodes here, and the group memberships that a channel layer lets expire."""
        await asyncio.sleep(LEASE_RENEW_SECONDS)
        for room in self._rooms:
            now = asyncio.get_running_loop().time()
            if room.audience.subscribers:
                room.used = now
            elif not room.unwritten.node_ids and now - room.used > ROOM_IDLE_SECONDS:
                await self._rooms.close(room)
                continue
            await room.presence.renew()
            await room.presence.find_dead()
        await asyncio.gather(*map(self._layer.join, self._rooms.ids()))
