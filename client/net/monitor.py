"""Watches the host's links, addresses and routes, and calls back once when a burst of changes is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.net.exitroutes import TABLE

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

    async def run(self) -> None:
        """Watch until cancelled; a netlink socket that overflowed counts as a change."""
        try:
            while True:
                try:
                    await self._watch()
                except (NetlinkError, OSError) as error:
                    logger.info("network monitor: %s", error)
                    self._changed()
                    await asyncio.sleep(RETRY_SECONDS)
        finally:
            if self._timer is not None:
                self._timer.cancel()

    async def _watch(self) -> None:
        async with AsyncIPRoute() as netlink:
            await netlink.bind()
            ignored: set[int] = set()
            while True:
                async for message in netlink.get():
                    if self._is_news(message, ignored):
                        self._changed()

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

    def _changed(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(QUIET_SECONDS, self._on_change)
