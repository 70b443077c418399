"""Which of our addresses the host would send from, as its routes and rules are now."""

from __future__ import annotations

import socket

from client.net.marks import mark_socket

DISCARD_PORT = 9  # nothing is sent: connecting a UDP socket only asks the kernel for its way


def own_address(towards: str, mark: int) -> str:
    """Our address on the way to ``towards`` for traffic with ``mark``; raises :class:`OSError`."""
    family = socket.AF_INET6 if ":" in towards else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        mark_socket(probe, mark)
        probe.connect((towards, DISCARD_PORT))
        address: str = probe.getsockname()[0]
        return address
