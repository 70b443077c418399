"""Memory that a burst of work took and left, given back to the system.

A large netmap passes through megabytes of JSON, nftables rules and WireGuard's answers; glibc keeps what they
have used for the next time, which may never come.
"""

from __future__ import annotations

import ctypes

_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone: malloc_trim(3)


def give_back() -> None:
    """Takes about a millisecond; elsewhere than on glibc nothing happens."""
    if _trim is not None:
        _trim(0)
