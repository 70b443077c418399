"""The hub: one per web process. It holds the engine of every tailnet with streams here and pushes changes.

Truth is ``Tailnet.netmap_version``. Messages of the channel layer say that rows changed; a lost, reordered or
foreign change is caught by comparing versions once a second. Volatile facts (endpoints, disco keys, home
relays, who is online) are pushed at once, kept in the snapshot, merged over reloads, and written behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from channels.layers import get_channel_layer

from accounts.changes import LAYER_ERRORS, publish
from controlplane import snapshots
from controlplane.env import environment
from controlplane.liveness import PROBE_SECONDS, silent_routers
from controlplane.netmap.engine import Engine, Update
from controlplane.netmap.incarnations import MAX_SHADOWS, NOBODY, SURE_SECONDS, Incarnations, Seen, describe
from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot
from controlplane.relaykeys import RelayKeys
from controlplane.snapshots import in_thread
from nodes.hostinfo import hostname, merged, preferred_derp
from nodes.services.clones import saw_clones
from nodes.services.presence import claim_presences, release_presence, renew_presence
from nodes.services.volatile import Volatile, write_volatile
from wire.codec import KEEPALIVE, compress, encode_json, frame_map

logger = logging.getLogger("trenza.hub")

CHECK_SECONDS = 1.0
LAYER_SECONDS = 2.0  # a channel layer that does not answer in this time is away
GAP_SECONDS = 0.05
COALESCE_SECONDS = 0.004
# After a fan-out that took long, volatile changes gather for this many times as long, up to a limit.
REST_RATIO = 3.0
MAX_REST_SECONDS = 0.25
OFFLINE_SECONDS = 10.0
LEASE_RENEW_SECONDS = 10.0
CLAIM_BATCH = 500
WRITE_BEHIND_SECONDS = 1.5
VOLATILE_SECONDS = 10.0  # by then a report is written: rows that are read later hold it
ROOM_IDLE_SECONDS = 600  # a tailnet without streams is dropped after this long
# With other workers about: a report that was under way while a room was loaded, or lost with a message, is
# read from the database, soon after loading and then now and again.
SETTLE_SECONDS = 4
RECONCILE_SECONDS = 60
KEEPALIVE_SECONDS = 50
KEEPALIVE_SPREAD = 10
FAN_OUT_BATCH = 200
MAX_PENDING_BYTES = 256 * 1024  # a stream that holds more gets one full map later instead of deltas
MAX_FULL_MAPS_AT_ONCE = 4
BIG_MAP_BYTES = 64 * 1024
RESUME_SECONDS = 0.5
CLONES_SECONDS = 2.0

# Only the end of such a node's key changes anything.
KEY_COUNTS = frozenset({Standing.ACTIVE, Standing.PENDING})
# Changes of these leave netmaps as they are.
NOT_IN_NETMAPS = frozenset({"preauthkey", "invite"})

Asker = Callable[[int, int, str, bytes], Awaitable[bytes]]

KEEPALIVE_PLAIN = frame_map(KEEPALIVE)
KEEPALIVE_ZSTD = frame_map(compress(KEEPALIVE))


class ClientSilent(Exception):
    """The client has no stream here, or did not answer in time."""


class MapStream(Protocol):
    """One long poll's answer, as the control driver gives it."""

    @property
    def pending(self) -> int: ...

    def send(self, frame: bytes) -> bool: ...

    def close(self) -> None: ...

    def ping(self) -> int: ...

    def abort(self) -> None: ...

    def on_closed(self, callback: Callable[[], None]) -> None: ...


@dataclass(eq=False, slots=True)
class Subscriber:
    """One node's map stream here. ``behind``: it gets no deltas, for a full map is due (the first, too).

    ``disco_key`` names the run of the client ("" = not said), ``seen`` what a person is told of it.
    """

    node_id: int
    stream: MapStream
    zstd: bool
    peers: bool = True
    epoch: int = 0
    behind: bool = True
    keepalive_due: int = 0
    disco_key: str = ""
    seen: Seen = NOBODY
    since: float = 0.0

    def send(self, message: bytes) -> None:
        self.stream.send(frame_map(compress(message) if self.zstd else message))


@dataclass(slots=True)
class Room:
    """One tailnet in this process.

    ``shadows`` are streams of machines that use another one's keys (:mod:`.netmap.incarnations`).
    ``volatile`` holds what was reported lately (and since when), ``unwritten`` what the database has not got,
    ``waiting`` who is in the next push. ``updates`` wait to be sent, in order, by whoever holds ``pushing``;
    ``rest_until`` is loop time. ``next_expiry`` is when the next node's key ends.
    """

    engine: Engine
    seen_version: int
    subscribers: dict[int, Subscriber] = field(default_factory=dict)
    shadows: set[Subscriber] = field(default_factory=set)
    incarnations: Incarnations = field(default_factory=Incarnations)
    pushing: asyncio.Lock = field(default_factory=asyncio.Lock)
    rest_until: float = 0.0
    updates: deque[Update] = field(default_factory=deque)
    dirty_rows: set[int] = field(default_factory=set)
    reload_whole: bool = False
    refreshing: asyncio.Task[None] | None = None
    volatile: dict[int, tuple[float, dict[str, Any]]] = field(default_factory=dict)
    unwritten: dict[int, dict[str, Any]] = field(default_factory=dict)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: set[int] = field(default_factory=set)
    flush_handle: asyncio.TimerHandle | None = None
    unclaimed: set[int] = field(default_factory=set)
    claiming: asyncio.Task[None] | None = None
    epochs: dict[int, int] = field(default_factory=dict)
    published: int = 0
    used: int = 0
    reload_due: int = 0
    next_expiry: datetime | None = None

    def __post_init__(self) -> None:
        self.plan_expiry()

    @property
    def snapshot(self) -> TailnetSnapshot:
        return self.engine.snapshot

    def listeners(self) -> list[Subscriber]:
        """Every stream that follows this tailnet."""
        return [*self.subscribers.values(), *self.shadows]

    def follows(self, subscriber: Subscriber) -> bool:
        """Whether the stream is still one of them: none has taken its place, and it has not ended."""
        return self.subscribers.get(subscriber.node_id) is subscriber or subscriber in self.shadows

    def shadows_of(self, node_id: int) -> list[Subscriber]:
        return [one for one in self.shadows if one.node_id == node_id]

    def plan_expiry(self) -> None:
        nodes = self.snapshot.nodes.values()
        ends = (node.key_expiry for node in nodes if node.standing in KEY_COUNTS)
        self.next_expiry = min((end for end in ends if end is not None), default=None)

    def expired(self, now: datetime) -> dict[int, NodeSnapshot]:
        """The nodes whose keys have just ended, as they are from now on. Their rows follow with the sweep."""
        if self.next_expiry is None or self.next_expiry > now:
            return {}
        return {
            node.id: replace(node, standing=Standing.EXPIRED)
            for node in self.snapshot.nodes.values()
            if node.standing in KEY_COUNTS and node.key_expiry is not None and node.key_expiry <= now
        }


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
        self.asker: Asker | None = None  # asks a client over its stream (the control protocol's part)

    # -- life

    async def start(self) -> None:
        self._layer = get_channel_layer()
        self._channel = await self._layer.new_channel()
        loops = (
            self._listen,
            self._check_versions,
            self._tick,
            self._renew,
            self._write_behind,
            self._probe,
            self._watch_clones,
        )
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
            room.used = self._second
            return room
        if tailnet_id not in self._loading:
            task = self.spawn(self._load_room(tailnet_id))
            self._loading[tailnet_id] = task
            task.add_done_callback(lambda _: self._loading.pop(tailnet_id, None))
        return await asyncio.shield(self._loading[tailnet_id])

    async def _load_room(self, tailnet_id: int) -> Room | None:
        await self._join(tailnet_id)
        snapshot = await in_thread(snapshots.load_tailnet)(tailnet_id)
        if snapshot is None:
            return None
        due = self._second + SETTLE_SECONDS
        room = Room(Engine(snapshot), snapshot.version, used=self._second, reload_due=due)
        self.rooms[tailnet_id] = room
        self._index(room.snapshot.nodes.values(), tailnet_id)
        return room

    async def _join(self, tailnet_id: int) -> None:
        """Subscribe to a tailnet's messages, or renew that; without a channel layer versions must do."""
        try:
            async with asyncio.timeout(LAYER_SECONDS):
                await self._layer.group_add(f"tailnet.{tailnet_id}", self._channel)
        except LAYER_ERRORS as error:
            logger.warning("no messages about tailnet %d for now: %s", tailnet_id, error or "no answer")

    async def learn(self, tailnet_id: int, node_id: int, node_key: str) -> bool:
        """Make sure that the tailnet's room knows a node by this key; ``False`` when it is gone.

        A node that has just joined (or changed its key) may ask before the message of that change is here.
        """
        room = await self.room(tailnet_id)
        if room is None:
            return False
        node = room.snapshot.nodes.get(node_id)
        if node is None or node.node_key != node_key:
            room.dirty_rows.add(node_id)
            await asyncio.shield(self._refresh(room, 0.0))
        return node_id in room.snapshot.nodes

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
        elif message["type"] == "netmap.ask" and message["node"] in room.subscribers:
            self.spawn(self._ask(room.snapshot.nodes[message["node"]], message))

    def _on_change(self, room: Room, message: dict[str, Any]) -> None:
        version = message["version"]
        if version <= room.snapshot.version:
            return
        rows = [row for row in message["rows"] if row["model"] not in NOT_IN_NETMAPS]
        in_order = version == room.seen_version + 1
        room.seen_version = max(room.seen_version, version)
        if in_order and not rows and not self._is_refreshing(room):
            room.engine.update(replace(room.snapshot, version=version), ())
        elif in_order and all(row["model"] == "node" for row in rows):
            room.dirty_rows.update(row["id"] for row in rows)
            self._refresh(room, 0.0)
        else:
            room.reload_whole = True
            self._refresh(room, 0.0 if in_order else GAP_SECONDS)

    @staticmethod
    def _is_refreshing(room: Room) -> bool:
        return room.refreshing is not None and not room.refreshing.done()

    def _refresh(self, room: Room, delay: float) -> asyncio.Task[None]:
        """The task that reads what is marked as changed; one at a time for each room."""
        if room.refreshing is None or room.refreshing.done():
            room.refreshing = self.spawn(self._refresh_room(room, delay))
        return room.refreshing

    async def _refresh_room(self, room: Room, delay: float) -> None:
        """Read what changed until nothing is left, and push each step."""
        if delay:
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
        before = room.snapshot
        nodes = self._merged(room, fresh, rows)
        update = room.engine.update(replace(fresh, nodes=nodes))
        room.seen_version = max(room.seen_version, fresh.version)
        for node_id in update.changed & before.nodes.keys():
            old_key = before.nodes[node_id].node_key
            if node_id not in nodes or nodes[node_id].node_key != old_key:
                self._node_keys.pop(old_key, None)
            if node_id not in nodes:
                room.volatile.pop(node_id, None)
                room.epochs.pop(node_id, None)
                room.incarnations.forget(node_id)
        self._index((nodes[i] for i in update.changed if i in nodes), fresh.id)
        room.plan_expiry()
        await self._fan_out(room, update)

    def _merged(self, room: Room, fresh: TailnetSnapshot, rows: set[int] | None) -> dict[int, NodeSnapshot]:
        """The nodes after a read of these rows (``None`` = all); unchanged ones stay the same objects."""
        current, nodes = room.snapshot.nodes, {}
        for node_id, read in fresh.nodes.items():
            known = current.get(node_id)
            if known is not None and rows is not None and node_id not in rows:
                nodes[node_id] = known  # volatile facts may have moved on while the rows were read
                continue
            node = self._overlay(room, read)
            nodes[node_id] = known if known is not None and known == node else node
        return nodes

    @staticmethod
    def _overlay(room: Room, node: NodeSnapshot) -> NodeSnapshot:
        """A row that was just read, under what was reported of its node and may not be written yet."""
        _, facts = room.volatile.get(node.id, (0.0, {}))
        if node.id in room.subscribers and not node.online:
            facts = facts | {"online": True}
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
            elif version != room.snapshot.version and not self._is_refreshing(room):
                room.seen_version = max(room.seen_version, version)
                room.reload_whole = True
                self._refresh(room, GAP_SECONDS)
            elif environment().scaled and room.reload_due <= self._second:
                room.reload_due = self._second + RECONCILE_SECONDS
                room.reload_whole = True
                self._refresh(room, 0.0)
            elif room.dirty_rows or room.reload_whole:  # an earlier read failed
                self._refresh(room, 0.0)

    async def _close_room(self, room: Room) -> None:
        """The tailnet was deleted, or nobody is here any more: its streams end."""
        self.rooms.pop(room.snapshot.id, None)
        for node in room.snapshot.nodes.values():
            self._node_keys.pop(node.node_key, None)
        for subscriber in room.listeners():
            subscriber.stream.close()
        with contextlib.suppress(*LAYER_ERRORS):
            async with asyncio.timeout(LAYER_SECONDS):
                await self._layer.group_discard(f"tailnet.{room.snapshot.id}", self._channel)

    # -- pushing

    def _fan_out(self, room: Room, update: Update) -> Coroutine[Any, Any, None]:
        """Put an update in line at once; returns what sends it. The order is the one of the engine's steps.

        A task may start later than another one, and the older update would arrive last.
        """
        room.updates.append(update)
        return self._send_updates(room)

    async def _send_updates(self, room: Room) -> None:
        async with room.pushing:
            while room.updates:
                await self._send_update(room, room.updates.popleft())

    async def _send_update(self, room: Room, update: Update) -> None:
        """Send each subscriber what concerns it; equal bytes are compressed and framed once."""
        if update.is_empty:
            return
        loop = asyncio.get_running_loop()
        started, now = loop.time(), datetime.now(UTC)
        frames: dict[tuple[bytes, bool], bytes] = {}
        for count, subscriber in enumerate(room.listeners(), 1):
            if count % FAN_OUT_BATCH == 0:
                await asyncio.sleep(0)
            message = update.message_for(subscriber.node_id, now)
            if message is not None:
                self._deliver(room, subscriber, message, frames)
            if subscriber.node_id in update.changed and subscriber.node_id not in update.new.nodes:
                subscriber.stream.close()
        took = loop.time() - started
        room.rest_until = loop.time() + min(REST_RATIO * took, MAX_REST_SECONDS)

    def _deliver(
        self, room: Room, subscriber: Subscriber, message: bytes, frames: dict[tuple[bytes, bool], bytes]
    ) -> None:
        if subscriber.behind:
            return
        if subscriber.stream.pending > MAX_PENDING_BYTES:
            subscriber.behind = True
            self.spawn(self._catch_up(room, subscriber))
            return
        key = (message, subscriber.zstd)
        if key not in frames:
            frames[key] = frame_map(compress(message) if subscriber.zstd else message)
        subscriber.stream.send(frames[key])

    async def _catch_up(self, room: Room, subscriber: Subscriber) -> None:
        """A slow stream: wait until it has taken what it holds, then send one full map."""
        while room.follows(subscriber):
            if subscriber.stream.pending <= MAX_PENDING_BYTES // 2:
                await self._send_full(room, subscriber)
                return
            await asyncio.sleep(RESUME_SECONDS)

    async def _send_full(self, room: Room, subscriber: Subscriber) -> None:
        """A whole map, and from then on deltas. Big ones are compressed in a thread."""
        async with self._full_maps:
            if not room.follows(subscriber):
                return
            sent = room.snapshot
            if subscriber.node_id not in sent.nodes:
                subscriber.stream.close()
                return
            message = room.engine.full_map(subscriber.node_id, datetime.now(UTC), peers=subscriber.peers)
            if subscriber.zstd:
                message = await self._compress(message)
            subscriber.stream.send(frame_map(message))
            subscriber.behind = False
        if room.snapshot is not sent:
            missed = room.engine.since(sent).message_for(subscriber.node_id, datetime.now(UTC))
            if missed is not None:
                self._deliver(room, subscriber, missed, {})

    async def _compress(self, message: bytes) -> bytes:
        if len(message) < BIG_MAP_BYTES:
            return compress(message)
        return await asyncio.get_running_loop().run_in_executor(self._pool, compress, message)

    # -- streams

    async def subscribe(
        self,
        tailnet_id: int,
        node_id: int,
        stream: MapStream,
        *,
        zstd: bool,
        peers: bool = True,
        disco_key: str = "",
        address: str = "",
    ) -> bool:
        """Give a node's long poll its full map, and every change from then on; ``False`` when it is gone.

        ``disco_key`` and ``address`` tell machines apart that use the same keys.
        """
        room = await self.room(tailnet_id)
        if room is None or node_id not in room.snapshot.nodes:
            return False
        subscriber = Subscriber(node_id, stream, zstd, peers, disco_key=disco_key)
        subscriber.seen = Seen(address, hostname(room.snapshot.nodes[node_id].hostinfo))
        subscriber.since = asyncio.get_running_loop().time()
        subscriber.keepalive_due = self._second + KEEPALIVE_SECONDS + secrets.randbelow(KEEPALIVE_SPREAD)
        if not self.admits(tailnet_id, node_id, disco_key):
            return await self._subscribe_shadow(room, subscriber)
        older = room.subscribers.get(node_id)
        room.subscribers[node_id] = subscriber
        if older is not None:
            older.stream.close()
        stream.on_closed(lambda: self._unsubscribe(room, subscriber))
        if room.subscribers.get(node_id) is not subscriber:
            return True
        await self._send_full(room, subscriber)
        self._claim_soon(room, node_id)
        self.report(tailnet_id, node_id, online=True)
        return True

    # -- two machines with the same keys

    def admits(self, tailnet_id: int, node_id: int, disco_key: str) -> bool:
        """Whether a run of a client speaks for the node, and not a machine that uses the same keys."""
        room = self.rooms.get(tailnet_id)
        node = room.snapshot.nodes.get(node_id) if room else None
        if room is None or node is None or room.incarnations.admits(node_id, disco_key, node.disco_key):
            return True
        if node_id in room.subscribers or node.online:
            return False
        room.incarnations.forget(node_id)  # the holder has gone: this one is the node now
        return True

    async def _subscribe_shadow(self, room: Room, subscriber: Subscriber) -> bool:
        """A map for a machine whose keys another one uses; its earlier stream, or the oldest, goes."""
        others = sorted(room.shadows_of(subscriber.node_id), key=lambda one: one.since)
        same = [one for one in others if one.disco_key == subscriber.disco_key]
        if same:
            subscriber.since = same[0].since  # it has been here for so long, with interruptions
        too_many = others[: max(0, len(others) + 1 - MAX_SHADOWS)]
        for older in same or too_many:
            older.stream.close()
        room.shadows.add(subscriber)
        subscriber.stream.on_closed(lambda: room.shadows.discard(subscriber))
        await self._send_full(room, subscriber)
        return True

    def _promote_shadows(self, room: Room, node_id: int) -> None:
        """The holder is gone: the others' streams end, and who comes back first is the node."""
        room.incarnations.forget(node_id)
        for shadow in room.shadows_of(node_id):
            shadow.stream.close()

    async def _watch_clones(self) -> None:
        """Tell the database of shadows that stay: no late word of a client that was restarted does."""
        await asyncio.sleep(CLONES_SECONDS)
        now = asyncio.get_running_loop().time()
        for room in list(self.rooms.values()):
            seen = {
                shadow.node_id: self._machines(room, shadow.node_id)
                for shadow in room.shadows
                if now - shadow.since >= SURE_SECONDS
            }
            if seen:
                await in_thread(saw_clones)(tailnet=room.snapshot.id, seen=seen)

    @staticmethod
    def _machines(room: Room, node_id: int) -> str:
        holder = room.subscribers.get(node_id)
        return describe(one.seen for one in [*([holder] if holder else []), *room.shadows_of(node_id)])

    async def full_map(self, tailnet_id: int, node_id: int, *, peers: bool) -> bytes | None:
        """One whole map as JSON, for a request that does not stream."""
        room = await self.room(tailnet_id)
        if room is None or node_id not in room.snapshot.nodes:
            return None
        return room.engine.full_map(node_id, datetime.now(UTC), peers=peers)

    def _claim_soon(self, room: Room, node_id: int) -> None:
        room.unclaimed.add(node_id)
        if room.claiming is None or room.claiming.done():
            room.claiming = self.spawn(self._claim(room))

    async def _claim(self, room: Room) -> None:
        """Tell the database, pages and other workers whose streams are here, many in one go."""
        while room.unclaimed:
            node_ids = sorted(room.unclaimed)[:CLAIM_BATCH]
            room.unclaimed.difference_update(node_ids)
            try:
                claims = await in_thread(claim_presences)(
                    tailnet=room.snapshot.id, node_ids=node_ids, worker=self.worker
                )
            except Exception:
                logger.exception("streams could not be claimed; trying again")
                room.unclaimed.update(node_ids)
                await asyncio.sleep(CHECK_SECONDS)
                continue
            for node_id, claim in claims.items():
                room.epochs[node_id] = claim.epoch
                if node_id in room.subscribers and node_id not in room.unclaimed:
                    room.subscribers[node_id].epoch = claim.epoch
                facts = {"online": True, "online_since": claim.since}
                if node_id in room.subscribers:
                    self._apply(room, node_id, facts)
                self._tell_others(room, node_id, facts, claim.epoch)
            self._tell_panel(room, claims)

    def _unsubscribe(self, room: Room, subscriber: Subscriber) -> None:
        """A stream ended; unless another one takes its place, the node goes offline in ten seconds."""
        if room.subscribers.get(subscriber.node_id) is not subscriber:
            return
        del room.subscribers[subscriber.node_id]
        self._promote_shadows(room, subscriber.node_id)
        asyncio.get_running_loop().call_later(OFFLINE_SECONDS, self._maybe_offline, room, subscriber)

    def _maybe_offline(self, room: Room, subscriber: Subscriber) -> None:
        if subscriber.node_id not in room.subscribers and self.rooms.get(room.snapshot.id) is room:
            self.spawn(self._go_offline(room, subscriber))

    async def _go_offline(self, room: Room, subscriber: Subscriber) -> None:
        node_id = subscriber.node_id
        ended = await in_thread(release_presence)(
            tailnet=room.snapshot.id, node_id=node_id, epoch=room.epochs.pop(node_id, 0)
        )
        if ended and node_id not in room.subscribers:
            self.report(room.snapshot.id, node_id, **_gone())
            self._tell_panel(room, [node_id])

    # -- volatile facts

    def report(self, tailnet_id: int, node_id: int, **facts: Any) -> dict[str, Any]:
        """A node's volatile facts (members of :class:`NodeSnapshot`): pushed at once, written behind.

        Returns those that were news.
        """
        room = self.rooms.get(tailnet_id)
        news = self._apply(room, node_id, facts) if room is not None else {}
        if room is None or not news:
            return {}
        if stored := _stored(news):
            room.unwritten.setdefault(node_id, {}).update(stored)
        self._tell_others(room, node_id, news, 0)
        return news

    def _apply(self, room: Room, node_id: int, facts: dict[str, Any]) -> dict[str, Any]:
        """Take facts of a node into the next push; returns those that are news."""
        node = room.snapshot.nodes.get(node_id)
        if node is None:
            return {}
        if node_id in room.waiting:
            node = self._overlay(room, node)
        news = {name: value for name, value in facts.items() if getattr(node, name) != value}
        if not news:
            return {}
        self._remember(room, node_id, news)
        room.waiting.add(node_id)
        loop = asyncio.get_running_loop()
        if room.flush_handle is None:
            at = max(loop.time() + COALESCE_SECONDS, room.rest_until)
            room.flush_handle = loop.call_at(at, self._flush, room)
        return news

    @staticmethod
    def _remember(room: Room, node_id: int, facts: dict[str, Any]) -> None:
        _, known = room.volatile.get(node_id, (0.0, {}))
        room.volatile[node_id] = (asyncio.get_running_loop().time(), known | facts)

    def _flush(self, room: Room) -> None:
        """Push the volatile changes of the last milliseconds as one step, once the push before it is done."""
        loop = asyncio.get_running_loop()
        if room.pushing.locked():
            room.flush_handle = loop.call_later(COALESCE_SECONDS, self._flush, room)
            return
        room.flush_handle = None
        nodes, waiting = room.snapshot.nodes, room.waiting
        room.waiting = set()
        fresh = {i: self._overlay(room, nodes[i]) for i in waiting if i in nodes}
        self.spawn(self._fan_out(room, room.engine.with_nodes(fresh)))

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

    def _tell_panel(self, room: Room, node_ids: Collection[int]) -> None:
        """Pages read who is online from the database: they are told after it knows."""
        if not node_ids:
            return
        room.published += 1
        changes = [
            {"type": "node", "id": node_id, "version": room.published, "op": "upsert"} for node_id in node_ids
        ]
        publish(
            f"panel.{room.snapshot.id}",
            {
                "type": "panel.change",
                "tailnet": room.snapshot.id,
                "version": room.snapshot.version,
                "changes": changes,
            },
        )

    def _on_volatile(self, room: Room, message: dict[str, Any]) -> None:
        """Another worker's report; a newer stream of a node there ends the older one here."""
        node_id = message["node"]
        facts = {name: _from_plain(name, value) for name, value in message["facts"].items()}
        if node_id not in room.snapshot.nodes:  # it has just joined: its row is being read
            self._remember(room, node_id, facts)
            return
        if "disco_key" in facts:
            room.incarnations.admits(node_id, facts["disco_key"], room.snapshot.nodes[node_id].disco_key)
        if facts.get("online") is False and node_id not in room.subscribers:
            self._promote_shadows(room, node_id)
        here = room.subscribers.get(node_id)
        if here is not None and message["epoch"] > here.epoch > 0:
            here.stream.close()
        if here is not None and facts.get("online") is False:
            facts = {name: value for name, value in facts.items() if name not in _gone()}
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
            try:
                await self._write_room(room)
            except Exception:  # one tailnet's rows must not keep the others' from being written
                logger.exception("reports of tailnet %d could not be written; trying again", room.snapshot.id)
            self._forget_old_reports(room)

    async def write_now(self, tailnet_id: int) -> None:
        """Wait until what was reported is written; those who wait together share a transaction."""
        if (room := self.rooms.get(tailnet_id)) is not None:
            await self._write_room(room)

    async def _write_room(self, room: Room) -> None:
        async with room.writing:
            if room.unwritten:
                await self._write_reports(room)

    async def _write_reports(self, room: Room) -> None:
        unwritten, room.unwritten = room.unwritten, {}
        reports = [Volatile(node_id=node_id, **_stored(facts)) for node_id, facts in unwritten.items()]
        try:
            await in_thread(write_volatile)(tailnet=room.snapshot.id, reports=reports)
        except Exception:
            for node_id, facts in unwritten.items():
                room.unwritten[node_id] = facts | room.unwritten.get(node_id, {})
            raise

    def _forget_old_reports(self, room: Room) -> None:
        before = asyncio.get_running_loop().time() - VOLATILE_SECONDS
        kept = room.unwritten.keys() | room.waiting
        old = [i for i, (since, _) in room.volatile.items() if since < before and i not in kept]
        for node_id in old:
            del room.volatile[node_id]

    # -- clockwork

    async def _tick(self) -> None:
        """Each second: keys that have ended, and keepalives that are due (one loop for all streams)."""
        await asyncio.sleep(1.0)
        self._second += 1
        now = datetime.now(UTC)
        for room in list(self.rooms.values()):
            if expired := room.expired(now):
                update = room.engine.with_nodes(expired)
                room.plan_expiry()
                self.spawn(self._fan_out(room, update))
            for subscriber in room.listeners():
                if subscriber.keepalive_due <= self._second:
                    spread = secrets.randbelow(KEEPALIVE_SPREAD)
                    subscriber.keepalive_due = self._second + KEEPALIVE_SECONDS + spread
                    subscriber.stream.send(KEEPALIVE_ZSTD if subscriber.zstd else KEEPALIVE_PLAIN)

    async def _renew(self) -> None:
        """Renew leases of the nodes here, and the group memberships that a channel layer lets expire."""
        await asyncio.sleep(LEASE_RENEW_SECONDS)
        for room in list(self.rooms.values()):
            ids = list(room.subscribers)
            if not ids and not room.unwritten and self._second - room.used > ROOM_IDLE_SECONDS:
                await self._close_room(room)
                continue
            if ids:
                room.used = self._second
                await in_thread(renew_presence)(tailnet=room.snapshot.id, worker=self.worker, node_ids=ids)
            await self._find_dead_streams(room)
        await asyncio.gather(*(self._join(tailnet_id) for tailnet_id in list(self.rooms)))

    async def _probe(self) -> None:
        """Routers that have a stand-in and answer no more are offline at once."""
        await asyncio.sleep(PROBE_SECONDS)
        for room in list(self.rooms.values()):
            streams = {node_id: one.stream for node_id, one in room.subscribers.items()}
            for node_id in silent_routers(room.snapshot, streams):
                subscriber = room.subscribers[node_id]
                logger.info("node %d of tailnet %d has gone silent", node_id, room.snapshot.id)
                subscriber.stream.abort()
                self.spawn(self._go_offline(room, subscriber))

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
                self.report(room.snapshot.id, node_id, **_gone())

    # -- asking a client

    async def _ask(self, node: NodeSnapshot, message: dict[str, Any]) -> None:
        """Have a client that holds its stream here answer a question that came over the channel layer."""
        try:
            if self.asker is None:
                raise ClientSilent("this process asks nobody")
            request = message["request"].encode("latin-1")
            answer = await self.asker(message["tailnet"], node.id, node.machine_key, request)
            result = {"response": answer.decode("latin-1")}
        except ClientSilent as error:
            logger.info("%s was asked in vain: %s", node.name, error)
            result = {"error": str(error)}
        if message["reply"]:
            with contextlib.suppress(*LAYER_ERRORS):
                async with asyncio.timeout(LAYER_SECONDS):
                    await self._layer.send(message["reply"], {"type": "netmap.answer", **result})

    def send_ping(self, tailnet_id: int, node_id: int, ping: dict[str, Any]) -> bool:
        """Send a PingRequest on a node's stream; ``False`` when it has none here."""
        room = self.rooms.get(tailnet_id)
        subscriber = room.subscribers.get(node_id) if room else None
        if subscriber is None:
            return False
        subscriber.send(encode_json({"KeepAlive": True, "PingRequest": ping}))
        return True


def _gone() -> dict[str, Any]:
    """The facts of a node that is no longer connected, from now on."""
    return {"online": False, "online_since": None, "last_seen": datetime.now(UTC)}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _from_plain(name: str, value: Any) -> Any:
    if name in ("last_seen", "online_since") and isinstance(value, str):
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
