"""The relays that this node talks through, by region: the home one always, others while they are needed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from client.magicsock.dial import Connection, Resolver, dial
from client.magicsock.link import FrameQueue, Link
from client.magicsock.tls import RelayError
from wire import derp
from wire.derpmap import DERPMap, DERPRegion
from wire.errors import WireError
from wire.keys import NodePrivate, NodePublic

log = logging.getLogger(__name__)

_random = random.SystemRandom()


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Seconds. The home relay is pinged every ``ping``; a silence of ``dead`` after a ping ends the link.

    One of ``doubt`` is told: another relay may be the better home long before this one is given up.
    """

    tick: float = 1.0
    ping: float = 5.0
    doubt: float = 3.0
    dead: float = 15.0
    dead_after_change: float = 3.0
    idle: float = 60.0
    stable: float = 5.0
    first_retry: float = 0.5
    last_retry: float = 5.0


def backoff(failures: int, timing: Timing, jitter: float) -> float:
    """Seconds until the next try: doubling up to a bound; ``jitter`` in [0, 1) spreads the upper half."""
    full = min(timing.last_retry, timing.first_retry * 2.0 ** (min(failures, 16) - 1))
    return full * (1 + jitter) / 2


class DerpPool:
    """Connections to relays. All methods belong to the running loop.

    ``on_packets(region, sender, packets)`` gets disco and WireGuard packets alike, in batches;
    ``on_gone(region, peer, reason)`` what a relay says of a peer; ``on_change(region, answers)`` ups and
    downs, also that a relay which is still connected has fallen silent, or answers again.
    """

    def __init__(
        self,
        *,
        node_key: NodePrivate,
        mark: int,
        on_packets: Callable[[int, NodePublic, list[bytes]], None],
        on_gone: Callable[[int, NodePublic, int], None],
        on_change: Callable[[int, bool], None],
        timing: Timing | None = None,
    ) -> None:
        self.node_key = node_key
        self.mark = mark
        self.on_packets = on_packets
        self.on_gone = on_gone
        self.on_change = on_change
        self.timing = timing or Timing()
        self.resolver = Resolver()
        self.loop = asyncio.get_running_loop()
        self._home = 0
        self._regions: dict[int, _Region] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ticker = self.loop.call_later(self.timing.tick, self._tick)

    def set_map(self, derp_map: DERPMap) -> None:
        """Connections to regions that vanished or changed are closed; the home region is dialled anew."""
        for number, region in list(self._regions.items()):
            if derp_map.regions.get(number) != region.region:
                region.stop()
                del self._regions[number]
        for number, description in derp_map.regions.items():
            if number not in self._regions:
                self._regions[number] = _Region(self, description)
        self.set_home(self._home)

    def set_home(self, region: int) -> None:
        """The region to stay connected to; 0 = none. It may come into the map later."""
        self._home = region
        for number, known in self._regions.items():
            known.set_home(number == region)

    def set_node_key(self, key: NodePrivate) -> None:
        """Reconnect everywhere under a new identity; what is queued waits for it."""
        if key != self.node_key:
            self.node_key = key
            for region in self._regions.values():
                region.restart()

    def link_changed(self) -> None:
        """The network changed: try again at once, and find out within seconds which connections are dead."""
        for region in self._regions.values():
            region.network_changed()

    def send(self, region: int, peer: NodePublic, packets: Sequence[bytes]) -> bool:
        """Queue packets, connecting on demand. ``False``: no such region, or the oldest were dropped."""
        known = self._regions.get(region)
        return known.send(peer, packets) if known is not None else False

    def answers(self, region: int) -> bool:
        """Connected, and not silent."""
        known = self._regions.get(region)
        return known is not None and known.link is not None and not known.is_silent

    async def close(self) -> None:
        self._ticker.cancel()
        for region in self._regions.values():
            region.stop()
        self._regions.clear()
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, region: _Region) -> asyncio.Task[None]:
        task = self.loop.create_task(region.run(), name=f"relay region {region.number}")
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed", task.get_name(), exc_info=error)

    def _tick(self) -> None:
        self._ticker = self.loop.call_later(self.timing.tick, self._tick)
        now = self.loop.time()
        for region in self._regions.values():
            region.tick(now)


class _Region:
    """One region: a queue that outlives its links, and the task that keeps a link while one is needed."""

    def __init__(self, pool: DerpPool, region: DERPRegion) -> None:
        self.region = region
        self.number = region.region_id
        self.link: Link | None = None
        self.is_silent = False
        self._pool = pool
        self._queue = FrameQueue()
        self._home = False
        self._task: asyncio.Task[None] | None = None
        self._last_used = 0.0
        self._last_ping = 0.0
        self._pinged: float | None = None
        self._patience = 0.0

    # --- what the pool asks ------------------------------------------------------------------------------

    def set_home(self, home: bool) -> None:
        if home == self._home:
            return
        self._home = home
        self._last_used = self._pool.loop.time()
        if self.link is not None:
            self.link.tell(derp.note_preferred_frame(home))
        elif home:
            self._ensure_running()

    def send(self, peer: NodePublic, packets: Sequence[bytes]) -> bool:
        now = self._last_used = self._pool.loop.time()
        link, kept = self.link, True
        for packet in packets:
            if link is not None and not link.allowance.take(len(packet), now):
                kept = False
            else:
                kept &= self._queue.push(derp.send_packet_frame(peer, packet))
        if link is not None:
            link.wake()
        else:
            self._ensure_running()
        return kept

    def network_changed(self) -> None:
        if self.link is not None:
            self._ping(self.link, self._pool.loop.time(), self._pool.timing.dead_after_change)
        else:
            self.restart()

    def restart(self) -> None:
        """Anew at once: another key, another network. The queue is kept."""
        if self._task is not None and not self._task.done():
            self.stop()
            self._ensure_running()

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._lose_link("closed")

    def tick(self, now: float) -> None:
        """Liveness of the home link, and the end of one that nobody needs any more."""
        link, timing = self.link, self._pool.timing
        if link is None:
            return
        if self._pinged is not None and link.last_received >= self._pinged:
            self._pinged = None
            self._set_silent(False)
        if self._pinged is not None and now - self._pinged > timing.doubt:
            self._set_silent(True)
        if self._pinged is not None and now - self._pinged > self._patience:
            link.end("the relay does not answer")
        elif self._home and now - self._last_ping >= timing.ping:
            self._ping(link, now, timing.dead)
        elif not self._home and now - self._last_used >= timing.idle:
            link.end("idle")

    def _set_silent(self, silent: bool) -> None:
        if silent != self.is_silent:
            self.is_silent = silent
            self._pool.on_change(self.number, not silent)

    # --- the task ----------------------------------------------------------------------------------------

    async def run(self) -> None:
        failures = 0
        while self._home or self._queue:
            started = self._pool.loop.time()
            reason = await self._dial_and_serve()
            lived = self._pool.loop.time() - started
            failures = 1 if lived > self._pool.timing.stable else failures + 1
            log.info("relay region %d: %s", self.number, reason)
            if self._home or self._queue:
                await asyncio.sleep(backoff(failures, self._pool.timing, _random.random()))

    async def _dial_and_serve(self) -> str:
        """Returns why it is over."""
        pool = self._pool
        try:
            connection = await dial(self.region, pool.node_key, resolver=pool.resolver, mark=pool.mark)
        except (OSError, WireError, RelayError) as error:
            if not self._home:
                self._queue.clear()  # what waited for this relay is stale, and must not keep us trying
            return str(error) or "the relay does not answer in time"
        return await self._serve(connection)

    async def _serve(self, connection: Connection) -> str:
        link = Link(connection, self._queue, on_packets=self._packets, on_gone=self._gone)
        self.link, self.is_silent = link, False
        self._last_ping, self._pinged = self._pool.loop.time(), None
        self._pool.on_change(self.number, True)
        try:
            if self._home:
                link.tell(derp.note_preferred_frame(True))
            link.start()
            return await link.ended
        finally:
            if self.link is link:
                self._lose_link("closed")

    def _ensure_running(self) -> None:
        if self._task is None or self._task.done():
            self._task = self._pool.spawn(self)

    def _lose_link(self, reason: str) -> None:
        link, self.link = self.link, None
        if link is not None:
            link.end(reason)
            self._pool.on_change(self.number, False)

    def _ping(self, link: Link, now: float, patience: float) -> None:
        """A ping that is unanswered yet keeps its deadline, unless the new one is earlier."""
        if self._pinged is None or now + patience < self._pinged + self._patience:
            self._pinged, self._patience = now, patience
        self._last_ping = now
        link.ping()

    # --- what the link hears -----------------------------------------------------------------------------

    def _packets(self, sender: NodePublic, packets: list[bytes]) -> None:
        self._last_used = self._pool.loop.time()
        self._pool.on_packets(self.number, sender, packets)

    def _gone(self, peer: NodePublic, reason: int) -> None:
        self._pool.on_gone(self.number, peer, reason)
