"""The hub: one per web process. It holds the engine of every tailnet with streams here and pushes changes.

Truth is ``Tailnet.netmap_version``. Messages of the channel layer say that rows changed; a lost, reordered or
foreign change is caught by comparing versions once a second. Volatile facts (endpoints, disco keys, home
relays, who is online) are pushed at once, kept in the snapshot, merged over reloads, and written behind.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from channels.layers import get_channel_layer

from accounts.changes import publish
from controlplane import snapshots
from controlplane.env import environment
from controlplane.netmap.engine import Engine, Update
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.relaykeys import RelayKeys
from controlplane.snapshots import in_thread
from nodes.hostinfo import merged, preferred_derp
from nodes.services.presence import claim_presence, release_presence, renew_presence
from nodes.services.volatile import Volatile, write_volatile
from wire.codec import KEEPALIVE, compress, encode_json, frame_map

logger = logging.getLogger("trenza.hub")

CHECK_SECONDS = 1.0
GAP_SECONDS = 0.05
COALESCE_SECONDS = 0.004
OFFLINE_SECONDS = 10.0
LEASE_RENEW_SECONDS = 10.0
WRITE_BEHIND_SECONDS = 1.5
KEEPALIVE_SECONDS = 50
KEEPALIVE_SPREAD = 10
FAN_OUT_BATCH = 200
MAX_PENDING_BYTES = 256 * 1024  # a stream that holds more gets one full map later instead of deltas
MAX_FULL_MAPS_AT_ONCE = 4
BIG_MAP_BYTES = 64 * 1024
RESUME_SECONDS = 0.5

KEEPALIVE_PLAIN = frame_map(KEEPALIVE)
KEEPALIVE_ZSTD = frame_map(compress(KEEPALIVE))


class MapStream(Protocol):
    """One long poll's answer, as the control driver gives it."""

    @property
    def pending(self) -> int: ...

    def send(self, frame: bytes) -> bool: ...

    def close(self) -> None: ...

    def on_closed(self, callback: Callable[[], None]) -> None: ...


@dataclass(eq=False, slots=True)
class Subscriber:
    """One node's map stream here. ``behind``: deltas were held back, it must get a full map."""

    node_id: int
    stream: MapStream
    zstd: bool
    peers: bool = True
    epoch: int = 0
    behind: bool = False
    keepalive_due: int = 0

    def send(self, message: bytes) -> None:
        self.stream.send(frame_map(compress(message) if self.zstd else message))


@dataclass(slots=True)
class Room:
    """One tailnet in this process."""

    engine: Engine
    subscribers: dict[int, Subscriber] = field(default_factory=dict)
    dirty_rows: set[int] = field(default_factory=set)
    reload_whole: bool = False
    refreshing: asyncio.Task[None] | None = None
    volatile: dict[int, dict[str, Any]] = field(default_factory=dict)
    unwritten: dict[int, dict[str, Any]] = field(default_factory=dict)
    waiting: dict[int, NodeSnapshot] = field(default_factory=dict)
    flush_handle: asyncio.TimerHandle | None = None
    seen_version: int = 0
    published: int = 0

    @property
    def snapshot(self) -> TailnetSnapshot:
        return self.engine.snapshot


class Hub:
    """See the module's docstring. All methods run on the server's loop."""

    def __init__(self) -> None:
        self.worker = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self.rooms: dict[int, Room] = {}
        self._loading: dict[int, asyncio.Task[Room | None]] = {}
        self._node_keys: dict[str, tuple[int, int]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._channel = ""
        self._layer: Any = None
        self._second = 0
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="netmap")
        self.relay_keys = RelayKeys()
        self._full_maps = asyncio.Semaphore(MAX_FULL_MAPS_AT_ONCE)

    # -- life

    async def start(self) -> None:
        self._layer = get_channel_layer()
        self._channel = await self._layer.new_channel()
        loops = (self._listen, self._check_versions, self._tick, self._renew, self._write_behind)
        for loop in (*loops, self.relay_keys.follow_messages, self.relay_keys.check_versions):
            self.spawn(self._forever(loop))

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for room in list(self.rooms.values()):
            await self._write_room(room)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run one of the hub's loops; a failed round is logged and the next one tries again."""
        while True:
            try:
                await step()
            except asyncio.CancelledError:
                raise
            except Exception:  # the edge of a task: the hub outlives its database and its Redis
                logger.exception("%s failed; trying again", step.__name__)
                await asyncio.sleep(CHECK_SECONDS)

    # -- rooms

    async def room(self, tailnet_id: int) -> Room | None:
        """The tailnet's room, loaded when it is not there yet; ``None`` when the tailnet is gone."""
        if (room := self.rooms.get(tailnet_id)) is not None:
            return room
        if tailnet_id not in self._loading:
            task = self.spawn(self._load_room(tailnet_id))
            self._loading[tailnet_id] = task
            task.add_done_callback(lambda _: self._loading.pop(tailnet_id, None))
        return await asyncio.shield(self._loading[tailnet_id])

    async def _load_room(self, tailnet_id: int) -> Room | None:
        await self._layer.group_add(f"tailnet.{tailnet_id}", self._channel)
        snapshot = await in_thread(snapshots.load_tailnet)(tailnet_id)
        if snapshot is None:
            return None
        room = Room(Engine(snapshot), seen_version=snapshot.version)
        self.rooms[tailnet_id] = room
        self._index(room.snapshot.nodes.values(), tailnet_id)
        return room

    def _index(self, nodes: Iterable[NodeSnapshot], tailnet_id: int) -> None:
        for node in nodes:
            self._node_keys[node.node_key] = (tailnet_id, node.id)

    def find_by_key(self, node_key: str) -> NodeSnapshot | None:
        """A node of a loaded tailnet by its key; ``None`` says nothing about tailnets that are not loaded."""
        where = self._node_keys.get(node_key)
        room = self.rooms.get(where[0]) if where else None
        node = room.snapshot.nodes.get(where[1]) if room and where else None
        return node if node is not None and node.node_key == node_key else None

    def tailnet_of_key(self, node_key: str) -> int | None:
        return self._node_keys[node_key][0] if self.find_by_key(node_key) else None

    # -- durable changes

    async def _listen(self) -> None:
        message = await self._layer.receive(self._channel)
        room = self.rooms.get(message.get("tailnet", 0))
        if room is None:
            return
        if message["type"] == "netmap.change":
            self._on_change(room, message)
        elif message["type"] == "netmap.volatile" and message["worker"] != self.worker:
            self._on_volatile(room, message)

    def _on_change(self, room: Room, message: dict[str, Any]) -> None:
        version = message["version"]
        if version <= room.snapshot.version:
            return
        rows = message["rows"]
        in_order = version == room.seen_version + 1
        room.seen_version = max(room.seen_version, version)
        if in_order and all(row["model"] == "node" for row in rows):
            room.dirty_rows.update(row["id"] for row in rows)
            self._refresh(room, 0.0)
        else:
            room.reload_whole = True
            self._refresh(room, 0.0 if in_order else GAP_SECONDS)

    def _refresh(self, room: Room, delay: float) -> None:
        if room.refreshing is None or room.refreshing.done():
            room.refreshing = self.spawn(self._refresh_room(room, delay))

    async def _refresh_room(self, room: Room, delay: float) -> None:
        """Read what changed until nothing is left, and push each step."""
        await asyncio.sleep(delay)
        while room.dirty_rows or room.reload_whole:
            rows, whole, version = set(room.dirty_rows), room.reload_whole, room.seen_version
            room.dirty_rows.clear()
            room.reload_whole = False
            try:
                fresh = await self._read(room, rows, whole, version)
            except Exception:
                room.reload_whole = True
                raise
            if fresh is None:
                await self._close_room(room)
                return
            await self._swap(room, fresh, None if whole else rows)

    async def _read(self, room: Room, rows: set[int], whole: bool, version: int) -> TailnetSnapshot | None:
        if whole:
            return await in_thread(snapshots.load_tailnet)(room.snapshot.id)
        return await in_thread(snapshots.load_nodes)(room.snapshot, rows, version)

    async def _swap(self, room: Room, fresh: TailnetSnapshot, rows: set[int] | None) -> None:
        """Merge volatile facts over what was read, swap it in, push the difference."""
        base = room.snapshot
        ids = fresh.nodes.keys() if rows is None else fresh.nodes.keys() & rows
        nodes = dict(fresh.nodes)
        if rows is not None:  # volatile facts may have moved on while the rows were read
            current = base.nodes
            nodes = {i: (nodes[i] if i in rows else current.get(i, nodes[i])) for i in nodes}
            for i in fresh.nodes.keys() - rows:
                if i in nodes and nodes[i].primary_routes != fresh.nodes[i].primary_routes:
                    nodes[i] = replace(nodes[i], primary_routes=fresh.nodes[i].primary_routes)
        for node_id in ids:
            nodes[node_id] = self._overlay(room, nodes[node_id])
        before = dict(base.nodes)
        update = room.engine.update(replace(fresh, nodes=nodes))
        room.seen_version = max(room.seen_version, fresh.version)
        for node_id in update.changed & before.keys():
            old_key = before[node_id].node_key
            if node_id not in nodes or nodes[node_id].node_key != old_key:
                self._node_keys.pop(old_key, None)
        self._index((nodes[i] for i in update.changed if i in nodes), fresh.id)
        await self._fan_out(room, update)

    @staticmethod
    def _overlay(room: Room, node: NodeSnapshot) -> NodeSnapshot:
        facts = room.volatile.get(node.id)
        return replace(node, **facts) if facts else node

    async def _check_versions(self) -> None:
        """Once a second: one query for all tailnets here; covers lost messages and other processes."""
        await asyncio.sleep(CHECK_SECONDS)
        if not self.rooms:
            return
        versions = await in_thread(snapshots.load_versions)(list(self.rooms))
        for tailnet_id, room in list(self.rooms.items()):
            version = versions.get(tailnet_id)
            if version is None:
                await self._close_room(room)
            elif version != room.snapshot.version and (room.refreshing is None or room.refreshing.done()):
                room.seen_version = max(room.seen_version, version)
                room.reload_whole = True
                self._refresh(room, GAP_SECONDS)

    async def _close_room(self, room: Room) -> None:
        """The tailnet was deleted: its streams end."""
        self.rooms.pop(room.snapshot.id, None)
        for subscriber in list(room.subscribers.values()):
            subscriber.stream.close()
        await self._layer.group_discard(f"tailnet.{room.snapshot.id}", self._channel)

    # -- pushing

    async def _fan_out(self, room: Room, update: Update) -> None:
        """Send each subscriber what concerns it; equal bytes are compressed and framed once."""
        if update.is_empty:
            return
        now = datetime.now(UTC)
        frames: dict[tuple[bytes, bool], bytes] = {}
        for count, subscriber in enumerate(list(room.subscribers.values()), 1):
            if count % FAN_OUT_BATCH == 0:
                await asyncio.sleep(0)
            message = update.message_for(subscriber.node_id, now)
            if message is not None:
                self._deliver(room, subscriber, message, frames)
            if subscriber.node_id in update.changed and subscriber.node_id not in update.new.nodes:
                subscriber.stream.close()

    def _deliver(
        self, room: Room, subscriber: Subscriber, message: bytes, frames: dict[tuple[bytes, bool], bytes]
    ) -> None:
        if subscriber.behind or subscriber.stream.pending > MAX_PENDING_BYTES:
            if not subscriber.behind:
                subscriber.behind = True
                self.spawn(self._catch_up(room, subscriber))
            return
        key = (message, subscriber.zstd)
        if key not in frames:
            frames[key] = frame_map(compress(message) if subscriber.zstd else message)
        subscriber.stream.send(frames[key])

    async def _catch_up(self, room: Room, subscriber: Subscriber) -> None:
        """A slow stream: wait until it has taken what it holds, then send one full map."""
        while room.subscribers.get(subscriber.node_id) is subscriber:
            if subscriber.stream.pending <= MAX_PENDING_BYTES // 2:
                subscriber.behind = False
                await self._send_full(room, subscriber)
                return
            await asyncio.sleep(RESUME_SECONDS)

    async def _send_full(self, room: Room, subscriber: Subscriber) -> None:
        """A whole map. Big ones are compressed in a thread; what changes meanwhile follows in order."""
        if subscriber.node_id not in room.snapshot.nodes:
            subscriber.stream.close()
            return
        async with self._full_maps:
            message = room.engine.full_map(subscriber.node_id, datetime.now(UTC), peers=subscriber.peers)
            if not subscriber.zstd or len(message) < BIG_MAP_BYTES:
                subscriber.send(message)
                return
            subscriber.behind = True
            version = room.engine.snapshot
            loop = asyncio.get_running_loop()
            packed = await loop.run_in_executor(self._pool, compress, message)
            subscriber.stream.send(frame_map(packed))
            subscriber.behind = False
        if room.engine.snapshot is not version:
            await self._send_missed(room, subscriber, version)

    async def _send_missed(self, room: Room, subscriber: Subscriber, since: TailnetSnapshot) -> None:
        """What changed while a full map was being compressed."""
        update = Engine(since).update(room.snapshot)
        message = update.message_for(subscriber.node_id, datetime.now(UTC))
        if message is not None:
            self._deliver(room, subscriber, message, {})

    # -- streams

    async def subscribe(
        self, tailnet_id: int, node_id: int, stream: MapStream, *, zstd: bool, peers: bool = True
    ) -> bool:
        """Give a node's long poll its full map, and every change from then on; ``False`` when it is gone."""
        room = await self.room(tailnet_id)
        if room is None or node_id not in room.snapshot.nodes:
            return False
        subscriber = Subscriber(node_id, stream, zstd, peers)
        subscriber.keepalive_due = self._second + KEEPALIVE_SECONDS + secrets.randbelow(KEEPALIVE_SPREAD)
        older = room.subscribers.get(node_id)
        room.subscribers[node_id] = subscriber
        if older is not None:
            older.stream.close()
        stream.on_closed(lambda: self._unsubscribe(room, subscriber))
        if room.subscribers.get(node_id) is not subscriber:
            return True
        await self._send_full(room, subscriber)
        self.spawn(self._claim(room, subscriber))
        self.report(tailnet_id, node_id, online=True)
        return True

    async def full_map(self, tailnet_id: int, node_id: int, *, peers: bool) -> bytes | None:
        """One whole map as JSON, for a request that does not stream."""
        room = await self.room(tailnet_id)
        if room is None or node_id not in room.snapshot.nodes:
            return None
        return room.engine.full_map(node_id, datetime.now(UTC), peers=peers)

    async def _claim(self, room: Room, subscriber: Subscriber) -> None:
        epoch = await in_thread(claim_presence)(
            tailnet=room.snapshot.id, node_id=subscriber.node_id, worker=self.worker
        )
        subscriber.epoch = epoch
        self._tell_others(room, subscriber.node_id, {"online": True}, epoch)

    def _unsubscribe(self, room: Room, subscriber: Subscriber) -> None:
        """A stream ended; unless another one takes its place, the node goes offline in ten seconds."""
        if room.subscribers.get(subscriber.node_id) is not subscriber:
            return
        del room.subscribers[subscriber.node_id]
        asyncio.get_running_loop().call_later(OFFLINE_SECONDS, self._maybe_offline, room, subscriber)

    def _maybe_offline(self, room: Room, subscriber: Subscriber) -> None:
        if subscriber.node_id not in room.subscribers and self.rooms.get(room.snapshot.id) is room:
            self.spawn(self._go_offline(room, subscriber))

    async def _go_offline(self, room: Room, subscriber: Subscriber) -> None:
        ended = await in_thread(release_presence)(
            tailnet=room.snapshot.id, node_id=subscriber.node_id, epoch=subscriber.epoch
        )
        if ended and subscriber.node_id not in room.subscribers:
            self.report(room.snapshot.id, subscriber.node_id, online=False, last_seen=datetime.now(UTC))

    # -- volatile facts

    def report(self, tailnet_id: int, node_id: int, **facts: Any) -> None:
        """A node's volatile facts (members of :class:`NodeSnapshot`): pushed at once, written behind."""
        room = self.rooms.get(tailnet_id)
        if room is None or node_id not in room.snapshot.nodes:
            return
        self._apply(room, node_id, facts)
        stored = {name: value for name, value in facts.items() if name != "online"}
        if stored:
            room.unwritten.setdefault(node_id, {}).update(stored)
        self._tell_others(room, node_id, facts, 0)

    def _apply(self, room: Room, node_id: int, facts: dict[str, Any]) -> None:
        node = room.waiting.get(node_id) or room.snapshot.nodes[node_id]
        if all(getattr(node, name) == value for name, value in facts.items()):
            return
        room.volatile.setdefault(node_id, {}).update(facts)
        room.waiting[node_id] = replace(node, **facts)
        if room.flush_handle is None:
            loop = asyncio.get_running_loop()
            room.flush_handle = loop.call_later(COALESCE_SECONDS, self._flush, room)
        if "online" in facts:
            self._tell_panel(room, node_id)

    def _flush(self, room: Room) -> None:
        """Push the volatile changes of the last milliseconds as one step."""
        room.flush_handle = None
        waiting = {i: node for i, node in room.waiting.items() if i in room.snapshot.nodes}
        room.waiting.clear()
        fresh: dict[int, NodeSnapshot | None] = {
            i: self._overlay(room, room.snapshot.nodes[i]) for i in waiting
        }
        update = room.engine.with_nodes(fresh)
        self.spawn(self._fan_out(room, update))

    def _tell_others(self, room: Room, node_id: int, facts: dict[str, Any], epoch: int) -> None:
        if not environment().scaled:  # no other worker
            return
        publish(
            f"tailnet.{room.snapshot.id}",
            {
                "type": "netmap.volatile",
                "tailnet": room.snapshot.id,
                "worker": self.worker,
                "node": node_id,
                "epoch": epoch,
                "facts": {name: _plain(value) for name, value in facts.items()},
            },
        )

    def _tell_panel(self, room: Room, node_id: int) -> None:
        room.published += 1
        change = {"type": "node", "id": node_id, "version": room.published, "op": "upsert"}
        publish(
            f"panel.{room.snapshot.id}",
            {
                "type": "panel.change",
                "tailnet": room.snapshot.id,
                "version": room.snapshot.version,
                "changes": [change],
            },
        )

    def _on_volatile(self, room: Room, message: dict[str, Any]) -> None:
        """Another worker's report; a newer stream of a node there ends the older one here."""
        node_id = message["node"]
        if node_id not in room.snapshot.nodes:
            return
        here = room.subscribers.get(node_id)
        if here is not None and message["epoch"] > here.epoch > 0:
            here.stream.close()
        facts = {name: _from_plain(name, value) for name, value in message["facts"].items()}
        if here is not None and facts.get("online") is False:
            facts.pop("online")
        if facts:
            self._apply(room, node_id, facts)

    def take_hostinfo(self, tailnet_id: int, node_id: int, hostinfo: dict[str, Any]) -> None:
        """A node's new Hostinfo and what follows from it; an absent NetInfo keeps the one before."""
        room = self.rooms.get(tailnet_id)
        if room is None or node_id not in room.snapshot.nodes:
            return
        node = room.snapshot.nodes[node_id]
        whole = merged(node.hostinfo, hostinfo)
        home = preferred_derp(whole) or node.home_derp
        self.report(tailnet_id, node_id, hostinfo=whole, home_derp=home)

    def hostinfo_of(self, tailnet_id: int, node_id: int) -> dict[str, Any]:
        """What a node said of its host last; empty for one that is not here."""
        room = self.rooms.get(tailnet_id)
        node = room.snapshot.nodes.get(node_id) if room else None
        return dict(node.hostinfo) if node else {}

    async def _write_behind(self) -> None:
        await asyncio.sleep(WRITE_BEHIND_SECONDS)
        for room in list(self.rooms.values()):
            await self._write_room(room)

    async def _write_room(self, room: Room) -> None:
        if not room.unwritten:
            return
        unwritten, room.unwritten = room.unwritten, {}
        reports = [Volatile(node_id=node_id, **_stored(facts)) for node_id, facts in unwritten.items()]
        try:
            await in_thread(write_volatile)(tailnet=room.snapshot.id, reports=reports)
        except Exception:
            for node_id, facts in unwritten.items():
                room.unwritten[node_id] = facts | room.unwritten.get(node_id, {})
            raise

    # -- clockwork

    async def _tick(self) -> None:
        """Each second: keepalives that are due (one loop for all streams)."""
        await asyncio.sleep(1.0)
        self._second += 1
        for room in list(self.rooms.values()):
            for subscriber in list(room.subscribers.values()):
                if subscriber.keepalive_due <= self._second:
                    spread = secrets.randbelow(KEEPALIVE_SPREAD)
                    subscriber.keepalive_due = self._second + KEEPALIVE_SECONDS + spread
                    subscriber.stream.send(KEEPALIVE_ZSTD if subscriber.zstd else KEEPALIVE_PLAIN)

    async def _renew(self) -> None:
        """Renew leases of the nodes here, and the group memberships that a channel layer lets expire."""
        await asyncio.sleep(LEASE_RENEW_SECONDS)
        for room in list(self.rooms.values()):
            ids = list(room.subscribers)
            if ids:
                await in_thread(renew_presence)(tailnet=room.snapshot.id, worker=self.worker, node_ids=ids)
            await self._layer.group_add(f"tailnet.{room.snapshot.id}", self._channel)
            await self._find_dead_streams(room)

    async def _find_dead_streams(self, room: Room) -> None:
        """Nodes that were online in a worker that died: offline when their lease has ended."""
        elsewhere = [
            node.id
            for node in room.snapshot.nodes.values()
            if node.online and node.id not in room.subscribers
        ]
        if not elsewhere:
            return
        gone = await in_thread(snapshots.ended_presences)(room.snapshot.id, elsewhere)
        for node_id in gone:
            if node_id not in room.subscribers:
                self.report(room.snapshot.id, node_id, online=False, last_seen=datetime.now(UTC))

    # -- asking a client

    def send_ping(self, tailnet_id: int, node_id: int, ping: dict[str, Any]) -> bool:
        """Send a PingRequest on a node's stream; ``False`` when it has none here."""
        room = self.rooms.get(tailnet_id)
        subscriber = room.subscribers.get(node_id) if room else None
        if subscriber is None:
            return False
        subscriber.send(encode_json({"KeepAlive": True, "PingRequest": ping}))
        return True


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_plain(name: str, value: Any) -> Any:
    if name == "last_seen" and isinstance(value, str):
        return datetime.fromisoformat(value)
    return tuple(value) if name == "endpoints" else value


def _stored(facts: dict[str, Any]) -> dict[str, Any]:
    """Facts as :class:`Volatile` names them."""
    return {name: value for name, value in facts.items() if name in Volatile.__dataclass_fields__}


_hub: Hub | None = None


async def start_hub() -> Hub:
    """Make and start this process's hub."""
    global _hub  # noqa: PLW0603 - one hub per process, made at start-up
    _hub = Hub()
    await _hub.start()
    return _hub


async def stop_hub() -> None:
    global _hub  # noqa: PLW0603
    if _hub is not None:
        await _hub.stop()
        _hub = None


def get_hub() -> Hub:
    """This process's hub; raises ``RuntimeError`` outside a running web worker."""
    if _hub is None:
        raise RuntimeError("no hub runs in this process")
    return _hub
