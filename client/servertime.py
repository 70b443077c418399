"""The server's time, by which keys run out, though the host's clock may be wrong or be set at any moment."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

MAX_SKEW = timedelta(days=365_000)  # what is farther off is no time, and would overflow


def utc_now() -> datetime:
    return datetime.now(UTC)


def since_boot() -> float:
    """Seconds on a clock that nobody sets and that goes on during suspend."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class ServerTime:
    """What the server said last, moved on by ``steady``; before it said anything, what the ``host`` says."""

    def __init__(
        self, *, host: Callable[[], datetime] = utc_now, steady: Callable[[], float] = since_boot
    ) -> None:
        self._host = host
        self._steady = steady
        self._told: tuple[datetime, float] | None = None

    def tell(self, moment: datetime) -> None:
        if abs(moment - self._host()) <= MAX_SKEW:
            self._told = moment, self._steady()

    def now(self) -> datetime:
        if self._told is None:
            return self._host()
        moment, at = self._told
        return moment + timedelta(seconds=self._steady() - at)

    def skew(self) -> timedelta:
        """How far the host's clock is ahead of the server's."""
        return self._host() - self.now()
