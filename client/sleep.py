"""Notices that the host slept, or that this process was stopped: much time went by between two looks.

Timers of the loop count a clock that stands still while the host sleeps, and a connection may have died
without a word: whoever holds such things is called on waking.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from client.servertime import since_boot

logger = logging.getLogger("trenzad")

LOOK_SECONDS = 1.0
SLEPT_SECONDS = 6.0  # a busy host is late by less


class SleepWatch:
    """Calls ``on_wake`` when ``steady``, which goes on during sleep, has run ahead of the loop's waits.

    It is told by how many seconds.
    """

    def __init__(self, *, on_wake: Callable[[float], None], steady: Callable[[], float] = since_boot) -> None:
        self._on_wake = on_wake
        self._steady = steady

    async def run(self) -> None:
        """Look until cancelled."""
        before = self._steady()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = self._steady()
            away, before = now - before - LOOK_SECONDS, now
            if away >= SLEPT_SECONDS:
                logger.info("this machine slept, or trenzad was stopped, for %.0f s", away)
                self._on_wake(away)
