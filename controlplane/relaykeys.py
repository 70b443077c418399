"""Which node keys relays may serve, kept current for every relay link of this process.

A key is served while its node may talk to the network at all: pending nodes too, for they connect to their
home relay before they are approved. An expired, logged-out or deleted node's key is taken away at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from channels.layers import get_channel_layer

from accounts.changes import RELAY_GROUP
from controlplane import snapshots

MAX_QUEUED_KEYS = 100_000  # in changes that wait for one link
CHECK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class KeyChange:
    """Keys that a relay must take and drop to be at ``version``."""

    version: int
    added: list[str]
    removed: list[str]

    @property
    def size(self) -> int:
        return len(self.added) + len(self.removed)


@dataclass(eq=False, slots=True)
class KeySubscription:
    """One relay link's view: the full list, then each change; ``None`` when it fell too far behind."""

    tailnet_id: int | None
    version: int
    keys: list[str]
    _queue: deque[KeyChange] = field(default_factory=deque)
    _queued_keys: int = 0
    _too_slow: bool = False
    _wake: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, change: KeyChange) -> None:
        self._queued_keys += change.size
        if self._queued_keys > MAX_QUEUED_KEYS:
            self._too_slow = True
            self._queue.clear()
        if not self._too_slow:
            self._queue.append(change)
        self._wake.set()

    async def next(self) -> KeyChange | None:
        while not self._queue and not self._too_slow:
            self._wake.clear()
            await self._wake.wait()
        if self._too_slow:
            return None
        change = self._queue.popleft()
        self._queued_keys -= change.size
        return change


class RelayKeys:
    """The lists of all tailnets, and the links that follow them."""

    def __init__(self) -> None:
        self._keys: dict[int, frozenset[str]] = {}
        self._versions: dict[int, int] = {}
        self._until: dict[int, datetime] = {}
        self._links: set[KeySubscription] = set()
        self._counter = 0
        self._lock = asyncio.Lock()

    async def follow_messages(self) -> None:
        """One round: wait for a change and read that tailnet's keys again."""
        layer: Any = get_channel_layer()
        channel = await layer.new_channel()
        await layer.group_add(RELAY_GROUP, channel)
        try:
            while True:
                message = await layer.receive(channel)
                if self._links:
                    await self._reload({message["tailnet"]})
        finally:
            await layer.group_discard(RELAY_GROUP, channel)

    async def check_versions(self) -> None:
        """One round, once a second: catches keys that have ended, lost messages, other processes' changes."""
        await asyncio.sleep(CHECK_SECONDS)
        if not self._links:
            return
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Read again the keys of tailnets that changed, in which a key has ended, or that are gone."""
        versions = await snapshots.in_thread(snapshots.load_all_versions)()
        now = datetime.now(UTC)
        changed = {i for i, version in versions.items() if self._versions.get(i) != version}
        ended = {i for i, until in self._until.items() if until <= now}
        await self._reload(changed | ended | (self._versions.keys() - versions.keys()))

    async def _reload(self, tailnet_ids: set[int]) -> None:
        async with self._lock:
            for tailnet_id in sorted(tailnet_ids):
                self._take(tailnet_id, await snapshots.in_thread(snapshots.load_served_keys)(tailnet_id))

    def _take(self, tailnet_id: int, served: snapshots.ServedKeys | None) -> None:
        old = self._keys.pop(tailnet_id, frozenset())
        self._versions.pop(tailnet_id, None)
        self._until.pop(tailnet_id, None)
        fresh: frozenset[str] = frozenset(served.keys if served is not None else ())
        if served is not None:
            self._keys[tailnet_id], self._versions[tailnet_id] = fresh, served.version
            if served.until is not None:
                self._until[tailnet_id] = served.until
        if old == fresh:
            return
        self._counter += 1
        change = KeyChange(self._counter, sorted(fresh - old), sorted(old - fresh))
        for link in self._links:
            if link.tailnet_id in (None, tailnet_id):
                link.put(change)

    async def subscribe(self, tailnet_id: int | None) -> KeySubscription:
        """Follow one tailnet's keys, or with ``None`` everybody's; end with :meth:`unsubscribe`."""
        await self._catch_up()
        chosen = [tailnet_id] if tailnet_id is not None else list(self._keys)
        keys = sorted(key for i in chosen for key in self._keys.get(i, frozenset()))
        link = KeySubscription(tailnet_id, self._counter, keys)
        self._links.add(link)
        return link

    def unsubscribe(self, link: KeySubscription) -> None:
        self._links.discard(link)
