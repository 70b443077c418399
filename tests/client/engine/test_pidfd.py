"""Duplicates of another process's sockets, and of nothing else."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from client.engine.wireguard_go import PidFd

pytestmark = pytest.mark.root


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_only_sockets_are_duplicated_and_nothing_else_stays_open() -> None:
    """A TUN device that is kept open by mistake outlives the WireGuard whose it was."""
    reading, writing = os.pipe()
    with PidFd(os.pidfd_open(os.getpid())) as process, socket.socket() as mine:
        before = descriptors()
        with process.duplicate(mine.fileno()) as other:
            assert other.type == socket.SOCK_STREAM
        for number in (reading, writing):
            with pytest.raises(OSError, match="socket"):
                process.duplicate(number)
        assert descriptors() == before
    os.close(reading)
    os.close(writing)
