"""Watches the host's links, addresses and routes, and calls back once when a burst of changes is over.

What is then as it was before was none.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.net.exitroutes import TABLE
from client.net.surface import Surface, read_surface

logger = logging.getLogger("trenzad.net")

QUIET_SECONDS = 0.5
RETRY_SECONDS = 5.0
INDEX_ATTRIBUTES = {"RTM_NEWROUTE": "RTA_OIF", "RTM_DELROUTE": "RTA_OIF"}
WATCHED = {f"RTM_{verb}{what}" for verb in ("NEW", "DEL") for what in ("LINK", "ADDR", "ROUTE")}


class Monitor:
    """``ignore`` is the tunnel's own interface: what the daemon does there is no news, but for its end.

    Nor is what it does in its own routing table.
    """

    def __init__(self, *, ignore: str, on_change: Callable[[], None]) -> None:
        self._ignore = ignore
        self._on_change = on_change
        self._timer: asyncio.TimerHandle | None = None
        self._comparing: asyncio.Task[None] | None = None
        self._surface: Surface | None = None
        self._is_certain = False

    async def run(self) -> None:
        """Watch until cancelled; a netlink socket that overflowed counts as a change."""
        try:
            while True:
                try:
                    self._surface = await read_surface(ignore=self._ignore)
                    await self._watch()
                except (NetlinkError, OSError) as error:
                    logger.info("network monitor: %s", error)
                    self._changed(certain=True)
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            for part in (self._timer, self._comparing):
                if part is not None:
                    part.cancel()

    async def _watch(self) -> None:
        async with AsyncIPRoute() as netlink:
            await netlink.bind()
            ignored: set[int] = set()
            while True:
                async for message in netlink.get():
                    if self._is_news(message, ignored):
                        self._changed(certain=self._is_end_of_tunnel(message))

    def _is_news(self, message: Any, ignored: set[int]) -> bool:
        event = message.get("event")
        if event not in WATCHED or message.get_attr("RTA_TABLE") == TABLE:
            return False
        if "LINK" in event and message.get_attr("IFLA_IFNAME") == self._ignore:
            if event == "RTM_DELLINK":
                ignored.discard(message["index"])
                return True
            ignored.add(message["index"])
        name = INDEX_ATTRIBUTES.get(event)
        index = message.get_attr(name) if name else message.get("index")
        return index not in ignored

    def _is_end_of_tunnel(self, message: Any) -> bool:
        ended = message.get("event") == "RTM_DELLINK"
        return bool(ended and message.get_attr("IFLA_IFNAME") == self._ignore)

    def _changed(self, *, certain: bool) -> None:
        """``certain``: it need not be looked for in what the host's network is now."""
        self._is_certain |= certain
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._quiet)

    def _quiet(self) -> None:
        if self._comparing is not None:
            self._comparing.cancel()
        self._comparing = asyncio.get_running_loop().create_task(self._compare())

    async def _compare(self) -> None:
        try:
            surface = await read_surface(ignore=self._ignore)
        except (NetlinkError, OSError) as error:
            logger.info("network monitor: %s", error)
            self._is_certain, surface = True, frozenset()
        if self._is_certain or surface != self._surface:
            self._surface, self._is_certain = surface, False
            self._on_change()
