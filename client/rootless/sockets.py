"""Options of sockets that take what is meant for any address and port (Linux: networking/tproxy)."""

from __future__ import annotations

import socket
import struct

LOOPBACK = "127.0.0.1"
IP_TRANSPARENT, IP_RECVORIGDSTADDR = 19, 20
IPV6_TRANSPARENT, IPV6_RECVORIGDSTADDR = 75, 74
SOCKADDR_IN, SOCKADDR_IN6 = struct.Struct("!2xH4s"), struct.Struct("!2xH4x16s")
ANCILLARY_BYTES = socket.CMSG_SPACE(28)  # struct sockaddr_in6

Address = tuple[str, int]


def transparent(sock: socket.socket) -> socket.socket:
    """May be given, and may speak for, addresses that it is not bound to; returns the same socket."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    return sock


def tell_destinations(sock: socket.socket) -> None:
    """From now on each datagram bears the address and port that it was sent to."""
    if sock.family == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVORIGDSTADDR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1)


def destination(ancillary: list[tuple[int, int, bytes]]) -> Address | None:
    """Where a datagram was sent to, from what the kernel added to it."""
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IP, IP_RECVORIGDSTADDR):
            port, host = SOCKADDR_IN.unpack_from(data)
            return socket.inet_ntop(socket.AF_INET, host), port
        if (level, kind) == (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR):
            port, host = SOCKADDR_IN6.unpack_from(data)
            return socket.inet_ntop(socket.AF_INET6, host), port
    return None
