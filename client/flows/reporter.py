"""Has flows counted while the server wants to know, and tells them: every minute, of each minute.

A server wants it where this node's CapMap says so (``wire.flows``). Once it does not, nothing is counted, and
what was not told yet is forgotten. What is counted while the server is away waits, so many minutes of it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from client.control.session import Session
from client.errors import ClientError, ControlError
from client.flows.carried import Carried
from client.flows.sorting import Sorter
from client.flows.table import FlowTable
from client.magicsock.results import PathStatus
from wire.codec import encode_json
from wire.flows import CAPABILITY, MAX_PERIOD, PATH, FlowReport, report_json
from wire.keys import NodePublic
from wire.netmap import NetMap

log = logging.getLogger("trenzad.flows")

LOOK_SECONDS = 5.0
PERIOD_SECONDS = 60.0
SPREAD_SECONDS = 5.0  # so that not all nodes report at once
AGAIN_SECONDS = 300.0  # after the host could not count
MAX_WAITING = 10  # reports
UNKNOWN_PATH = (404, 405, 501)
LATER = (429, 500, 502, 503, 504)


class Counted(Protocol):
    """What of :class:`client.tunnel.Tunnel` is needed."""

    @property
    def flows(self) -> FlowTable: ...

    @property
    def netmap(self) -> NetMap | None: ...

    def live_paths(self) -> Mapping[int, PathStatus]: ...

    def all_paths(self) -> Mapping[int, PathStatus]: ...


@dataclass(slots=True)
class Period:
    """What is being counted. ``place``: of which server's which node; ``due``: by the loop's clock."""

    place: tuple[str, str]
    begun: datetime
    due: float
    carried: Carried


class FlowReporter:
    """``tunnel`` is counted; ``server``, ``session`` and ``key`` are what there is of them now."""

    def __init__(
        self,
        *,
        tunnel: Counted,
        server: Callable[[], str],
        session: Callable[[], Session | None],
        key: Callable[[], NodePublic | None],
        now: Callable[[], datetime],
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._tunnel = tunnel
        self._server = server
        self._session = session
        self._key = key
        self._now = now
        self._spread = spread
        self._period: Period | None = None
        self._waiting: deque[tuple[tuple[str, str], FlowReport]] = deque(maxlen=MAX_WAITING)
        self._unwelcome: Session | None = None  # where nobody wants to hear of it
        self._try_at = float("-inf")
        self._is_on = False
        self._said = ""  # the last complaint

    async def run(self) -> None:
        """Until cancelled. What is counted ends with the tunnel."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Begin, go on or stop counting, as is wanted now; tell what waits."""
        try:
            await self._count()
        except ClientError as error:
            self._failed(error)
        try:
            await self._tell()
        except (ControlError, TimeoutError) as error:  # the session may be ending: its loop sees to that
            log.debug("flows are not told: %s", error)

    # --- counting ----------------------------------------------------------------------------------------

    def _place(self, netmap: NetMap) -> tuple[str, str]:
        return self._server(), netmap.node.stable_id

    async def _count(self) -> None:
        netmap, time = self._tunnel.netmap, asyncio.get_running_loop().time()
        if netmap is None or CAPABILITY not in netmap.node.cap_map:
            return await self._stop(forget=netmap is not None)
        period = self._period
        if period is None or not self._tunnel.flows.is_open or period.place != self._place(netmap):
            if time >= self._try_at:
                await self._begin(netmap, time)
            return None
        period.carried.see(self._tunnel.live_paths(), netmap)
        if time >= period.due:
            await self._finish(period, netmap, time)
        return None

    async def _begin(self, netmap: NetMap, time: float) -> None:
        self._period = None
        await self._tunnel.flows.open()
        if not self._is_on:
            log.info("this tailnet logs network flows: whom this device talks to is told to its server")
        self._is_on, self._said = True, ""
        carried = Carried(self._tunnel.all_paths())
        self._period = Period(self._place(netmap), self._now(), self._due(time), carried)

    async def _finish(self, period: Period, netmap: NetMap, time: float) -> None:
        reading = await self._tunnel.flows.take()
        begun, end = period.begun, self._now()
        period.begun, period.due = end, self._due(time)
        found = await asyncio.to_thread(Sorter.of(netmap).sorted, reading)
        found["physical"] = period.carried.take()
        if any(found.values()):
            start = min(max(begun, end - MAX_PERIOD), end)  # the host may have slept, its time been set
            self._waiting.append((period.place, FlowReport(start=start, end=end, **found)))

    def _due(self, time: float) -> float:
        return time + PERIOD_SECONDS + self._spread(-SPREAD_SECONDS, SPREAD_SECONDS)

    async def _stop(self, *, forget: bool) -> None:
        """``forget``: it is not wanted any more, rather than not possible now."""
        if forget:
            self._waiting.clear()
            self._is_on = False
        self._period = None
        if self._tunnel.flows.is_open:
            await self._tunnel.flows.close()

    def _failed(self, error: ClientError) -> None:
        """A kernel or an nft that cannot do it costs the logs and nothing else."""
        self._period = None
        self._try_at = asyncio.get_running_loop().time() + AGAIN_SECONDS
        text = f"network flows are not counted: {error}"
        log.log(logging.DEBUG if text == self._said else logging.WARNING, "%s", text)
        self._said = text

    # --- telling -----------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        """One report at a time: after a while without the server they do not come all at once."""
        session, key, netmap = self._session(), self._key(), self._tunnel.netmap
        if session is None or key is None or netmap is None or not self._waiting:
            return
        place, report = self._waiting[0]
        if session is self._unwelcome or place != self._place(netmap):
            self._waiting.popleft()
            return
        answer = await session.link.request("POST", PATH, encode_json(report_json(key, report)))
        if answer.status in UNKNOWN_PATH:
            self._unwelcome = session
        elif answer.status not in LATER and self._waiting and self._waiting[0][1] is report:
            self._waiting.popleft()
