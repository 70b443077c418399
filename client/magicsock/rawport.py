"""STUN and disco on the UDP port that WireGuard owns, through raw sockets with a BPF filter.

NATs and firewalls see one flow: what disco finds open is open for WireGuard. A raw socket stands behind the
host's own firewall, so disco sees exactly what WireGuard would see.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from contextlib import suppress

from client.errors import SetupError
from client.magicsock import bpf
from client.magicsock.routes import own_address
from client.magicsock.udp import (
    MAX_UDP_PAYLOAD,
    UDP_HEADER_BYTES,
    Address,
    parse_ipv4,
    parse_udp,
    udp4,
    udp_header,
)
from client.net.marks import mark_socket

IPV6_CHECKSUM = 7  # the option; its value is where in the datagram the kernel puts the checksum
UDP_CHECKSUM_OFFSET = 6
RECEIVE_BUFFER_BYTES = 1024 * 1024
MAX_DATAGRAM_BYTES = 65_535
MAX_DATAGRAMS_A_ROUND = 64

log = logging.getLogger(__name__)


class RawPort:
    """Sends from, and listens beside, WireGuard's ``port``.

    ``on_packet(payload, from)`` gets STUN answers and disco only; everything else stays in the kernel.
    """

    def __init__(self, port: int, *, mark: int, on_packet: Callable[[bytes, Address], None]) -> None:
        self._port = port
        self._mark = mark
        self._on_packet = on_packet
        self._v4: socket.socket | None = None
        self._v6: socket.socket | None = None

    def start(self) -> None:
        """Open the sockets on the running loop; raises ``SetupError`` without CAP_NET_RAW."""
        loop = asyncio.get_running_loop()
        self._v4 = self._open_v4()
        self._v6 = self._open_v6()
        loop.add_reader(self._v4, self._receive_v4, self._v4)
        if self._v6 is not None:
            loop.add_reader(self._v6, self._receive_v6, self._v6)

    def send(self, packet: bytes, to: Address) -> bool:
        """One datagram; ``False`` when the host has no way there (now)."""
        if len(packet) > MAX_UDP_PAYLOAD:
            return False
        try:
            return self._send_v6(packet, to) if ":" in to[0] else self._send_v4(packet, to)
        except OSError:
            return False

    def close(self) -> None:
        """Closing twice is fine."""
        for sock in (self._v4, self._v6):
            if sock is not None:
                asyncio.get_running_loop().remove_reader(sock)
                sock.close()
        self._v4 = self._v6 = None

    # --- sockets -----------------------------------------------------------------------------------------

    def _open_v4(self) -> socket.socket:
        try:
            return self._open(socket.AF_INET, bpf.ipv4_filter(self._port))
        except PermissionError as error:
            raise SetupError(
                "raw sockets are not permitted; run trenzad as root or with CAP_NET_RAW"
            ) from error
        except OSError as error:
            raise SetupError(f"cannot open a raw IPv4 socket: {error.strerror}") from error

    def _open_v6(self) -> socket.socket | None:
        try:
            sock = self._open(socket.AF_INET6, bpf.ipv6_filter(self._port))
        except OSError as error:
            log.info("no IPv6 on this host: %s", error.strerror)
            return None
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_CHECKSUM, UDP_CHECKSUM_OFFSET)
        return sock

    def _open(self, family: socket.AddressFamily, program: list[bpf.Instruction]) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_UDP)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            mark_socket(sock, self._mark)
            bpf.attach(sock, program)
            with suppress(BlockingIOError):  # unfiltered packets from before the filter
                while True:
                    sock.recv(MAX_DATAGRAM_BYTES)
        except BaseException:
            sock.close()
            raise
        return sock

    # --- sending -----------------------------------------------------------------------------------------

    def _send_v4(self, packet: bytes, to: Address) -> bool:
        if self._v4 is None:
            return False
        source = (own_address(to[0], self._mark), self._port)
        self._v4.sendto(udp4(source, to, packet), (to[0], 0))
        return True

    def _send_v6(self, packet: bytes, to: Address) -> bool:
        if self._v6 is None:
            return False
        datagram = udp_header(self._port, to[1], packet) + packet
        return self._v6.sendto(datagram, (to[0], 0)) >= UDP_HEADER_BYTES

    # --- receiving ---------------------------------------------------------------------------------------

    def _receive_v4(self, sock: socket.socket) -> None:
        with suppress(BlockingIOError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                if parsed := parse_ipv4(sock.recv(MAX_DATAGRAM_BYTES)):
                    source, payload = parsed
                    self._on_packet(payload, source)

    def _receive_v6(self, sock: socket.socket) -> None:
        with suppress(BlockingIOError):
            for _ in range(MAX_DATAGRAMS_A_ROUND):
                datagram, peer = sock.recvfrom(MAX_DATAGRAM_BYTES)
                if parsed := parse_udp(datagram):
                    port, payload = parsed
                    self._on_packet(payload, (_with_scope(peer), port))


def _with_scope(peer: tuple[str, int, int, int]) -> str:
    """A link-local address is only worth something with its interface."""
    host, _, _, scope = peer
    return f"{host}%{scope}" if scope else host
