"""Sending: the engine's steps to those they concern, and whole maps to those who come or fall behind.

Updates leave in the order in which the engine made them. They are put in line at once and sent by whoever
holds the lock: a task may start later than another one, and the older update would arrive last.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from time import perf_counter

from controlplane.background import Tasks
from controlplane.hub.audience import Audience, Subscriber
from controlplane.measures import FULL_MAPS, PUSH_SECONDS, PUSHES
from controlplane.netmap.engine import Engine
from controlplane.netmap.snapshot import TailnetSnapshot
from controlplane.netmap.state import State
from controlplane.netmap.update import Update
from wire.codec import compress, frame_map

# After a fan-out that took long, volatile changes gather for this many times as long, up to a limit.
REST_RATIO = 3.0
MAX_REST_SECONDS = 0.25
FAN_OUT_BATCH = 200
MAX_PENDING_BYTES = 256 * 1024  # a stream that holds more gets one full map later instead of deltas
RESUME_SECONDS = 0.5
MAX_FULL_MAPS_AT_ONCE = 4
BIG_MAP_BYTES = 64 * 1024
THREADS = 2


class Workshop:
    """Where all tailnets' whole maps are made: a few at a time (``places``), big ones packed in threads;
    and where policies are compiled."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(MAX_FULL_MAPS_AT_ONCE)
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="netmap")

    async def compress(self, message: bytes) -> bytes:
        if len(message) < BIG_MAP_BYTES:
            return compress(message)
        return await asyncio.get_running_loop().run_in_executor(self._threads, compress, message)

    async def prepare(self, snapshot: TailnetSnapshot) -> State:
        """What a tailnet's policy means, found out in a thread: a big one takes a while."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, State.of, snapshot)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class Pushes:
    """What one tailnet's streams are sent. No volatile push is due before ``rest_until`` (loop time)."""

    def __init__(self, engine: Engine, audience: Audience, workshop: Workshop, tasks: Tasks) -> None:
        self._engine = engine
        self._audience = audience
        self._workshop = workshop
        self._tasks = tasks
        self._line: deque[tuple[Update, float]] = deque()  # and since when it waits
        self._sending = asyncio.Lock()
        self.rest_until = 0.0

    @property
    def is_busy(self) -> bool:
        return self._sending.locked()

    def line_up(self, update: Update) -> None:
        """Give an update its place; :meth:`send` follows."""
        self._line.append((update, perf_counter()))

    async def send(self) -> None:
        """Send what is in line."""
        async with self._sending:
            while self._line:
                update, since = self._line.popleft()
                await self._send_update(update, since)

    def push_soon(self, update: Update) -> None:
        """Give an update its place now, and have a task send it."""
        self.line_up(update)
        self._tasks.spawn(self.send())

    async def _send_update(self, update: Update, since: float) -> None:
        """Send each subscriber what concerns it; equal bytes are compressed and framed once."""
        if update.is_empty:
            return
        loop = asyncio.get_running_loop()
        started, now = loop.time(), datetime.now(UTC)
        frames: dict[tuple[bytes, bool], bytes] = {}
        pushed = 0
        for count, subscriber in enumerate(self._audience.listeners(), 1):
            if count % FAN_OUT_BATCH == 0:
                await asyncio.sleep(0)
            message = update.message_for(subscriber.node_id, now)
            if message is not None:
                self._deliver(subscriber, message, frames)
                pushed += 1
            if subscriber.node_id in update.changed and subscriber.node_id not in update.new.snapshot.nodes:
                subscriber.stream.close()
        PUSHES.inc(pushed)
        PUSH_SECONDS.observe(perf_counter() - since)
        took = loop.time() - started
        self.rest_until = loop.time() + min(REST_RATIO * took, MAX_REST_SECONDS)

    def _deliver(
        self, subscriber: Subscriber, message: bytes, frames: dict[tuple[bytes, bool], bytes]
    ) -> None:
        if subscriber.behind:
            return
        if subscriber.stream.pending > MAX_PENDING_BYTES:
            subscriber.behind = True
            self._tasks.spawn(self._catch_up(subscriber))
            return
        key = (message, subscriber.zstd)
        if key not in frames:
            frames[key] = frame_map(compress(message) if subscriber.zstd else message)
        subscriber.stream.send(frames[key])

    async def _catch_up(self, subscriber: Subscriber) -> None:
        """A slow stream: wait until it has taken what it holds, then send one full map."""
        while self._audience.follows(subscriber):
            if subscriber.stream.pending <= MAX_PENDING_BYTES // 2:
                await self.send_full(subscriber)
                return
            await asyncio.sleep(RESUME_SECONDS)

    async def send_full(self, subscriber: Subscriber) -> None:
        """A whole map, and from then on deltas."""
        engine = self._engine
        async with self._workshop.places:
            if not self._audience.follows(subscriber):
                return
            sent = engine.state
            if subscriber.node_id not in sent.snapshot.nodes:
                subscriber.stream.close()
                return
            message = engine.full_map(subscriber.node_id, datetime.now(UTC), peers=subscriber.peers)
            if subscriber.zstd:
                message = await self._workshop.compress(message)
            subscriber.stream.send(frame_map(message))
            subscriber.behind = False
            FULL_MAPS.inc()
        if engine.state is not sent:
            missed = engine.since(sent).message_for(subscriber.node_id, datetime.now(UTC))
            if missed is not None:
                self._deliver(subscriber, missed, {})
