"""A hub on a real loop with real engines; its database is plain memory, its streams only listen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any

from controlplane.hub import Hub
from controlplane.hub.database import Database
from controlplane.hub.facts import COALESCE_SECONDS
from controlplane.hub.layer import Layer
from controlplane.hub.room import Room
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.netmap.state import State
from nodes.services.presence import Claim
from nodes.services.volatile import Volatile
from tests.controlplane.snapshots import tailnet
from wire.codec import MapDecoder
from wire.delta import apply
from wire.netmap import MapResponse, NetMap

TAILNET = 1


class Stream:
    """A long poll's answer that keeps what it is given; ``pending`` is what its peer has not taken."""

    def __init__(self, *, zstd: bool = False) -> None:
        self.decoder = MapDecoder(compress=zstd)
        self.messages: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self.pending = 0
        self.is_open = True
        self.callback: Callable[[], None] | None = None
        self.owed = 0
        self.answers_pings = True

    def send(self, frame: bytes) -> bool:
        self.frames.append(frame)
        self.messages += self.decoder.receive(frame)
        return self.is_open

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            if self.callback is not None:
                self.callback()

    def on_closed(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def ping(self) -> int:
        self.owed = 0 if self.answers_pings else self.owed + 1
        return self.owed

    def abort(self) -> None:
        self.close()

    @property
    def netmap(self) -> NetMap:
        result: NetMap | None = None
        for message in self.messages:
            if "KeepAlive" not in message:
                result = apply(result, MapResponse.from_json(message))
        assert result is not None
        return result


class Memory(Database):
    """What the hub reads is in ``tailnets``; ``reads`` and ``written`` tell what it asked for and gave.

    ``failing``: it is away. ``ended``: the nodes whose leases have ended.
    """

    def __init__(self) -> None:
        super().__init__("here")
        self.tailnets: dict[int, TailnetSnapshot] = {}
        self.reads: list[Any] = []
        self.written: list[Volatile] = []
        self.clones: list[Mapping[int, str]] = []
        self.renewed: list[int] = []
        self.ended: list[int] = []
        self.epoch = 0
        self.failing = False

    async def _turn(self) -> None:
        await asyncio.sleep(0)
        if self.failing:
            raise OSError("the database is away")

    async def load_tailnet(self, tailnet_id: int) -> TailnetSnapshot | None:
        self.reads.append("tailnet")
        await self._turn()
        return self.tailnets.get(tailnet_id)

    async def load_nodes(
        self, snapshot: TailnetSnapshot, node_ids: Collection[int], version: int
    ) -> TailnetSnapshot:
        self.reads.append(set(node_ids))
        await self._turn()
        return self.tailnets[snapshot.id]

    async def load_versions(self, tailnet_ids: Collection[int]) -> dict[int, int]:
        await self._turn()
        return {i: one.version for i, one in self.tailnets.items() if i in tailnet_ids}

    async def claim(self, tailnet_id: int, node_ids: Collection[int]) -> dict[int, Claim]:
        await self._turn()
        self.epoch += 1
        return dict.fromkeys(node_ids, Claim(self.epoch, datetime.now(UTC)))

    async def renew(self, tailnet_id: int, node_ids: Collection[int]) -> None:
        await self._turn()
        self.renewed += node_ids

    async def release(self, tailnet_id: int, node_id: int, epoch: int) -> bool:
        await self._turn()
        return True

    async def ended_presences(self, tailnet_id: int, node_ids: Collection[int]) -> list[int]:
        await self._turn()
        return [node_id for node_id in node_ids if node_id in self.ended]

    async def write_volatile(self, tailnet_id: int, reports: Collection[Volatile]) -> None:
        await self._turn()
        self.written += reports

    async def saw_clones(self, tailnet_id: int, seen: Mapping[int, str]) -> None:
        await self._turn()
        self.clones.append(seen)


class Letters(Layer):
    """Keeps what it is given: ``sent`` as (group, message), ``answers`` as (channel, result)."""

    def __init__(self) -> None:
        super().__init__("here")
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[tuple[str, Mapping[str, str]]] = []
        self.memberships: list[str] = []

    async def join(self, tailnet_id: int) -> None:
        self.memberships.append("join")

    async def leave(self, tailnet_id: int) -> None:
        self.memberships.append("leave")

    async def answer(self, channel: str, result: Mapping[str, str]) -> None:
        self.answers.append((channel, result))

    def publish(self, group: str, message: dict[str, Any]) -> None:
        self.sent.append((group, message))


class World:
    """A hub, and what is around it."""

    def __init__(self) -> None:
        self.database, self.layer = Memory(), Letters()
        self.hub = Hub(self.database, self.layer)

    async def stop(self) -> None:
        await self.hub.tasks.stop()
        self.hub.workshop.close()

    def open_room(self, *nodes: NodeSnapshot, **values: Any) -> Room:
        snapshot = tailnet(*nodes, **values)
        self.database.tailnets[snapshot.id] = snapshot
        return self.hub.rooms.add(State.of(snapshot))

    async def subscribe(
        self, node_id: int, disco_key: str = "", *, zstd: bool = False, address: str = ""
    ) -> Stream:
        """A stream that has got its map."""
        stream = Stream(zstd=zstd)
        assert await self.hub.subscribe(
            TAILNET, node_id, stream, zstd=zstd, disco_key=disco_key, address=address
        )
        return stream

    async def settle(self, room: Room) -> None:
        """Wait until every push is out."""
        quiet = 0
        for _ in range(1000):
            await asyncio.sleep(COALESCE_SECONDS)
            busy = room.presence.is_claiming or room.facts.are_waiting or room.pushes.is_busy
            quiet = 0 if busy else quiet + 1
            if quiet == 3:
                return
        raise AssertionError("the hub never came to rest")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what must come true."""
        for _ in range(2000):
            if condition():
                return
            await asyncio.sleep(COALESCE_SECONDS)
        raise AssertionError("it never came true")
