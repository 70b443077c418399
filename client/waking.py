"""After a long sleep nothing passes the tunnel until the server has said who is still in the network.

A peer may have been revoked meanwhile, and WireGuard, whose sessions may have outlived the sleep, would go on
with it for as long as this daemon takes to hear of that. Sleep that is announced closes the tunnel before it
begins, any other is noticed a moment after it has ended. A server that is away holds nothing up for long, and
one that was away before the sleep nothing at all: tunnels flow without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from client.errors import ClientError

logger = logging.getLogger("trenzad")

LONG_SECONDS = 60.0  # a shorter absence that nobody announced is like a moment without the server
PATIENCE_SECONDS = 5.0
ASLEEP_SECONDS = 120.0  # by the kernel's timers, which stand still while the host sleeps
CALLED_OFF_SECONDS = 30.0  # after an announcement that no sleep follows


class Holdable(Protocol):
    """What is needed of :class:`client.tunnel.Tunnel`."""

    @property
    def is_up(self) -> bool: ...
    async def hold(self, seconds: float, /) -> None: ...
    async def release(self) -> None: ...


class Waking:
    """``heard`` returns once what the server has to say by then is in force; raises ``ClientError``."""

    def __init__(
        self, tunnel: Holdable, *, is_connected: Callable[[], bool], heard: Callable[[], Awaitable[None]]
    ) -> None:
        self._tunnel = tunnel
        self._is_connected = is_connected
        self._heard = heard
        self._is_held = False
        self._task: asyncio.Task[None] | None = None

    async def fall_asleep(self) -> None:
        """The host is about to sleep: returns with the tunnel closed. Raises ``ClientError``."""
        if self._tunnel.is_up and self._is_connected():
            self.end()
            await self._tunnel.hold(ASLEEP_SECONDS)
            self._is_held = True
            self._task = asyncio.create_task(self._open(after=CALLED_OFF_SECONDS))

    def wake_up(self, away: float = 0.0) -> None:
        """The host slept: so many seconds, when nobody announced it."""
        if self._is_held or (away >= LONG_SECONDS and self._tunnel.is_up and self._is_connected()):
            self.end()  # what was heard before this sleep is worth nothing
            self._is_held = True
            self._task = asyncio.create_task(self._open())

    def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _open(self, *, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        try:
            await self._tunnel.hold(PATIENCE_SECONDS)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_SECONDS):
                    await self._heard()
            await self._tunnel.release()
        except ClientError as error:  # the kernel opens it in any case
            logger.warning("%s", error)
        self._is_held = False
