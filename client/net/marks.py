"""The firewall mark of the daemon's own sockets, so that their packets never enter the tunnel.

Source: tailscale net/tsaddr, net/netns (the same mark and mask: rules of both are alike).
"""

from __future__ import annotations

import contextlib
import socket

MARK = 0x80000
MARK_MASK = 0xFF0000


def mark_socket(sock: socket.socket, mark: int = MARK) -> None:
    """Set SO_MARK; without CAP_NET_ADMIN or CAP_NET_RAW the socket stays unmarked (no rule needs it then)."""
    with contextlib.suppress(PermissionError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
