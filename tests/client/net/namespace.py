"""A network namespace for one test: the calling thread, and what it starts, lives in it for a while."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"
libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int) -> None:
    if result != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


@contextmanager
def in_namespace() -> Iterator[None]:
    """A fresh, empty namespace; back in the old one afterwards. Needs root."""
    before = os.open(OWN, os.O_RDONLY)
    try:
        _check(libc.unshare(CLONE_NEWNET))
        yield
    finally:
        _check(libc.setns(before, CLONE_NEWNET))
        os.close(before)
