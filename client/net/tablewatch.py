"""Has what guards the tunnel put back when another program removes it: a service that loads its own rules
begins with ``flush ruleset``, and means everybody's.

The kernel tells of every table that goes. What our own programs remove is told of as well: whoever is called
knows whether that was meant.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator

from client.errors import ClientError

logger = logging.getLogger("trenzad.net")

NETLINK_NETFILTER = 12  # linux/netlink.h
NFTABLES_GROUP = 1 << (7 - 1)  # linux/netfilter/nfnetlink.h: NFNLGRP_NFTABLES
TABLE_GONE = (10 << 8) | 2  # NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE
TABLE_NAME = 1  # NFTA_TABLE_NAME
NETLINK_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
NETFILTER_HEADER_BYTES = 4
ATTRIBUTE_HEADER = struct.Struct("=HH")  # length, type
MAX_DATAGRAM = 65536
RETRY_SECONDS = 5.0


class TableWatch:
    """``gone`` is called with a lost table's name, with "" when some may have been missed."""

    def __init__(self, gone: Callable[[str], Awaitable[None]]) -> None:
        self._gone = gone

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                with _subscribed() as sock:
                    await self._gone("")
                    await self._watch(sock)
            except (OSError, ClientError) as error:  # an overflow, too: begin anew, and look
                logger.warning("watching the filter: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def _watch(self, sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            for name in lost_tables(await loop.sock_recv(sock, MAX_DATAGRAM)):
                await self._gone(name)


def _subscribed() -> socket.socket:
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, NETLINK_NETFILTER)
    try:
        sock.bind((0, NFTABLES_GROUP))
    except OSError:
        sock.close()
        raise
    return sock


def lost_tables(datagram: bytes) -> Iterator[str]:
    """The names of the tables that a datagram of the kernel says are gone; what is cut off says nothing."""
    while len(datagram) >= NETLINK_HEADER.size:
        length, kind, *_ = NETLINK_HEADER.unpack_from(datagram)
        if not NETLINK_HEADER.size <= length <= len(datagram):
            return
        if kind == TABLE_GONE:
            yield from _names(datagram[NETLINK_HEADER.size + NETFILTER_HEADER_BYTES : length])
        datagram = datagram[_aligned(length) :]


def _names(attributes: bytes) -> Iterator[str]:
    while len(attributes) >= ATTRIBUTE_HEADER.size:
        length, kind = ATTRIBUTE_HEADER.unpack_from(attributes)
        if not ATTRIBUTE_HEADER.size <= length <= len(attributes):
            return
        if kind == TABLE_NAME:
            yield attributes[ATTRIBUTE_HEADER.size : length].rstrip(b"\0").decode("utf-8", "replace")
        attributes = attributes[_aligned(length) :]


def _aligned(length: int) -> int:
    return (length + 3) & ~3
