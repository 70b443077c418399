"""STUN over UDP: tells clients their public address. Anything but a well-formed request gets silence."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any

from relay.config import ConfigProblem, Endpoint
from relay.limits import STUN_BATCH, STUN_MAX_PACKET
from wire.stun import binding_response, parse_binding_request

IP_PKTINFO = 8  # linux/in.h; Python has a name for the IPv6 one only
CONTROL_BYTES = 64  # room for either packet info


def bind_stun(endpoint: Endpoint) -> socket.socket:
    """The UDP socket; raises :class:`ConfigProblem`."""
    sock = None
    try:
        family, _, _, _, address = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_DGRAM)[0]
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.bind(address)
    except OSError as error:
        if sock is not None:
            sock.close()
        raise ConfigProblem(
            f"cannot listen on UDP {endpoint}: {error.strerror or error}; "
            "free the port or set TRENZA_RELAY_STUN (off: no STUN)"
        ) from error
    return sock


def bind_second(stun: Endpoint, derp_port: int) -> socket.socket | None:
    """STUN once more on DERP's port number: two ports tell a client whether its NAT's mapping varies.

    ``None`` where that UDP port is another program's (HTTP/3 on 443, say): then one must do.
    """
    if derp_port == stun.port:
        return None
    with contextlib.suppress(ConfigProblem):
        return bind_stun(Endpoint(stun.host, derp_port))
    return None


class StunServer:
    """Answers on a bound socket, from the very address that was asked, until closed."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> None:
        self._loop = loop
        self._sock = sock
        self.answered = 0
        self.ignored = 0
        loop.add_reader(sock, self._on_readable)

    @property
    def port(self) -> int:
        return int(self._sock.getsockname()[1])

    def close(self) -> None:
        self._loop.remove_reader(self._sock)
        self._sock.close()

    def _on_readable(self) -> None:
        for _ in range(STUN_BATCH):
            try:
                packet, control, _, source = self._sock.recvmsg(STUN_MAX_PACKET, CONTROL_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # an ICMP error of an earlier answer
            self._answer(packet, control, source)

    def _answer(self, packet: bytes, control: list[tuple[int, int, bytes]], source: Any) -> None:
        txid = parse_binding_request(packet)
        if txid is None:
            self.ignored += 1
            return
        self.answered += 1
        host = source[0].partition("%")[0]
        with contextlib.suppress(OSError):
            self._sock.sendmsg([binding_response(txid, (host, source[1]))], _from_there(control), 0, source)


def _from_there(control: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Control data by which an answer leaves from the address that was asked, by whatever interface.

    A host has many addresses, and a NAT expects the answer from the one it knows.
    """
    for level, kind, data in control:
        if (level, kind) == (socket.IPPROTO_IP, IP_PKTINFO):  # ifindex 4, local address 4, destination 4
            return [(level, kind, bytes(4) + data[4:12])]
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_PKTINFO):  # address 16, ifindex 4
            return [(level, kind, data[:16] + bytes(4))]
    return []
