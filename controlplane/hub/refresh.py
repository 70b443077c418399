"""Durable changes: which rows have changed, and reading them.

Truth is ``Tailnet.netmap_version``. Messages say which rows changed; a lost, reordered or foreign change is
a hole in the versions, or shows when they are compared with the database, once a second: all is read then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, NamedTuple

from controlplane.background import Tasks
from controlplane.env import environment
from controlplane.hub.database import Database
from controlplane.measures import READ_SECONDS
from controlplane.netmap.engine import Engine
from controlplane.netmap.snapshot import TailnetSnapshot

GAP_SECONDS = 0.05
# With other workers about: a report that was under way while a room was loaded, or lost with a message, is
# read from the database, soon after loading and then now and again.
SETTLE_SECONDS = 4
RECONCILE_SECONDS = 60
# Changes of these leave netmaps as they are.
NOT_IN_NETMAPS = frozenset({"preauthkey", "apitoken", "oauthclient", "invite"})


class Reading(NamedTuple):
    """What is to be read: these nodes, or (``rows`` is ``None``) everything; ``version`` is then reached."""

    rows: set[int] | None
    version: int


@dataclass(slots=True)
class Unread:
    """What has changed since the last reading, as far as it was heard. Pure.

    ``version`` is the newest that was heard of; ``whole``: only a reading of everything will do.
    """

    version: int
    rows: set[int] = field(default_factory=set)
    whole: bool = False

    def __bool__(self) -> bool:
        return bool(self.rows) or self.whole

    def hear(self, version: int, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Note the rows of one message; ``False`` when messages before it are missing."""
        in_order = version == self.version + 1
        self.version = max(self.version, version)
        rows = [row for row in rows if row["model"] not in NOT_IN_NETMAPS]
        if in_order and all(row["model"] == "node" for row in rows):
            self.rows.update(row["id"] for row in rows)
        else:
            self.whole = True
        return in_order

    def take(self) -> Reading:
        """What to read now; nothing of it is unread from then on."""
        reading = Reading(None if self.whole else set(self.rows), self.version)
        self.rows.clear()
        self.whole = False
        return reading


class Refresher:
    """Reads what changed in one tailnet; one reading at a time.

    ``take`` gets what was read and of which rows (``None`` = all), ``gone`` is called when the tailnet is.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        database: Database,
        tasks: Tasks,
        take: Callable[[TailnetSnapshot, set[int] | None], Awaitable[None]],
        gone: Callable[[], Awaitable[None]],
    ) -> None:
        self._engine = engine
        self._database = database
        self._tasks = tasks
        self._take = take
        self._gone = gone
        self.unread = Unread(engine.snapshot.version)
        self._reading: asyncio.Task[None] | None = None
        self._heard: float | None = None  # when the first of what is unread was heard of
        self._reconcile_at = asyncio.get_running_loop().time() + SETTLE_SECONDS

    @property
    def is_reading(self) -> bool:
        return self._reading is not None and not self._reading.done()

    # -- what has changed

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message about changed rows."""
        version, snapshot = message["version"], self._engine.snapshot
        if version <= snapshot.version:
            return
        in_order = self.unread.hear(version, message["rows"])
        if not self.unread and not self.is_reading:  # no netmap shows it
            self._engine.update(replace(snapshot, version=version), ())
        else:
            self._read_soon(0.0 if in_order else GAP_SECONDS)

    def compare(self, version: int) -> None:
        """Take the database's version, once a second: covers lost messages and other processes."""
        now = asyncio.get_running_loop().time()
        if version != self._engine.snapshot.version and not self.is_reading:
            self.unread.version = max(self.unread.version, version)
            self._read_whole(GAP_SECONDS)
        elif environment().scaled and self._reconcile_at <= now:
            self._reconcile_at = now + RECONCILE_SECONDS
            self._read_whole(0.0)
        elif self.unread:  # an earlier reading failed
            self._read_soon(0.0)

    async def learn(self, node_id: int) -> None:
        """Read a node's row now."""
        self.unread.rows.add(node_id)
        await asyncio.shield(self._read_soon(0.0))

    # -- reading it

    def _read_whole(self, delay: float) -> None:
        self.unread.whole = True
        self._read_soon(delay)

    def _read_soon(self, delay: float) -> asyncio.Task[None]:
        """The task that reads what is unread."""
        if self._heard is None:
            self._heard = perf_counter()
        if self._reading is None or self._reading.done():
            self._reading = self._tasks.spawn(self._read(delay))
        return self._reading

    async def _read(self, delay: float) -> None:
        """Read what changed until nothing is left."""
        if delay:
            await asyncio.sleep(delay)
        while self.unread:
            reading, heard = self.unread.take(), self._heard
            self._heard = None
            try:
                fresh = await self._load(reading)
            except Exception:
                self.unread.whole = True
                raise
            if fresh is None:
                await self._gone()
                return
            self.unread.version = max(self.unread.version, fresh.version)
            if heard is not None:
                READ_SECONDS.observe(perf_counter() - heard)
            await self._take(fresh, reading.rows)
        self._heard = None

    async def _load(self, reading: Reading) -> TailnetSnapshot | None:
        snapshot = self._engine.snapshot
        if reading.rows is None:
            return await self._database.load_tailnet(snapshot.id)
        return await self._database.load_nodes(snapshot, reading.rows, reading.version)
