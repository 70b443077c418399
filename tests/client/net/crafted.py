"""Packets that are put into a tunnel by hand, and what of them the host takes in or passes on."""

from __future__ import annotations

import fcntl
import os
import re
import select
import socket
import struct
import subprocess
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

TUN, LAN = "trenza0", "lan0"
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
SO_RCVBUFFORCE = 33
BUFFER_BYTES = 64 << 20
MAX_PACKET = 65536
PROTOCOLS = (1, 6, 17, 47, 50, 58, 89, 99, 132)
MARK = re.compile(rb"<(\d{6})>")
QUIET_SECONDS = 0.1


def marked(number: int) -> bytes:
    """The content by which a packet is known again."""
    return b"<%06d>" % number


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def interface(name: str, *addresses: str) -> Iterator[int]:
    """A TUN interface, up, with these addresses: its descriptor takes packets in and gives them out."""
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
        for address in addresses:
            run("ip", "address", "add", address, "dev", name, *(("nodad",) if ":" in address else ()))
        run("ip", "link", "set", name, "txqueuelen", "20000", "up")
        yield descriptor
    finally:
        os.close(descriptor)


def forward_packets() -> None:
    """The kernel passes on what is not for this host, wherever it comes from."""
    for path, value in (
        ("ipv4/ip_forward", "1"),
        ("ipv4/conf/all/rp_filter", "0"),
        ("ipv4/conf/default/rp_filter", "0"),
        ("ipv6/conf/all/forwarding", "1"),
    ):
        Path("/proc/sys/net", path).write_text(value)


class Host:
    """What arrives: to the host itself by a socket for each protocol, and through it at ``lan``."""

    def __init__(self, lan: int) -> None:
        self._lan = lan
        self._sockets = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for protocol in PROTOCOLS:
                sock = socket.socket(family, socket.SOCK_RAW, protocol)
                sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
                sock.setblocking(False)
                self._sockets.append(sock)

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()

    def arrived(self) -> set[int]:
        """The numbers of those that have come since the last time, once no more come."""
        found: set[int] = set()
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < QUIET_SECONDS:
            ready, _, _ = select.select([*self._sockets, self._lan], [], [], QUIET_SECONDS)
            for source in ready:
                content = os.read(source, MAX_PACKET) if isinstance(source, int) else source.recv(MAX_PACKET)
                if mark := MARK.search(content):
                    found.add(int(mark[1]))
                quiet_since = time.monotonic()
        return found


def put(tunnel: int, packets: Iterable[bytes]) -> None:
    for packet in packets:
        os.write(tunnel, packet)


def drain(tunnel: int) -> None:
    """Throw away what the host answers into the tunnel."""
    while select.select([tunnel], [], [], 0)[0]:
        os.read(tunnel, MAX_PACKET)
