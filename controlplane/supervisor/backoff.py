"""How long to wait before a child that ended gets its next life. Times in seconds."""

from __future__ import annotations

BACKOFF_FIRST = 0.1
BACKOFF_MAX = 10.0
STEADY_SECONDS = 30.0


class Backoff:
    """One child's: each short life doubles the wait, a long one begins it anew."""

    def __init__(self) -> None:
        self._wait = BACKOFF_FIRST

    def after(self, lived: float) -> float:
        """The wait after a life of so many seconds."""
        self._wait = BACKOFF_FIRST if lived > STEADY_SECONDS else min(self._wait * 2, BACKOFF_MAX)
        return self._wait
