"""Which daemon a command means."""

from __future__ import annotations

import socket
from pathlib import Path

from client.places import SYSTEM_SOCKET, default_socket, find_socket


def test_a_users_own_daemon_comes_before_the_hosts(tmp_path: Path) -> None:
    session = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert find_socket(session, 1000) == SYSTEM_SOCKET
    own = default_socket(session, 1000)
    own.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(own))
        assert find_socket(session, 1000) == own
    assert find_socket(session, 0) == SYSTEM_SOCKET
