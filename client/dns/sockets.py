"""The sockets by which other resolvers are asked."""

from __future__ import annotations

import socket
from typing import Protocol

from client.net.marks import mark_socket


class OpenSocket(Protocol):
    """A non-blocking socket to ask ``address`` by; ``marked``: its packets leave outside the tunnel.

    Raises ``OSError`` while there is no way there.
    """

    async def __call__(self, address: str, kind: int, /, *, marked: bool) -> socket.socket: ...


async def open_here(address: str, kind: int, /, *, marked: bool) -> socket.socket:
    """One of this host, whose routes lead into the tunnel."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    if marked:
        mark_socket(sock)
    return sock
