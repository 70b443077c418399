"""Two connections made one: what either sends reaches the other, ends included. All of it bounded."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence

PIECE_BYTES = 128 * 1024
BUFFER_BYTES = 256 * 1024  # what a stream may hold unread
HALF_CLOSED_SECONDS = 300.0  # one side has ended, and the other sends nothing for so long
KEEP_ALIVE_SECONDS = 60
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def splice(one: Streams, other: Streams) -> None:
    """Copy both ways until both have ended, or one breaks off; both are closed then."""
    writers = (one[1], other[1])
    for writer in writers:
        keep_alive(writer)
    ways = [_Way(one[0], other[1]), _Way(other[0], one[1])]
    copies = [asyncio.create_task(way.run()) for way in ways]
    losses = [asyncio.create_task(writer.wait_closed()) for writer in writers]
    is_whole = False
    try:
        is_whole = await _both(ways, copies, losses)
    finally:
        for task in (*copies, *losses):
            task.cancel()
        for writer in writers:
            if is_whole:
                writer.close()
            else:
                reset(writer)
        await asyncio.gather(*copies, *losses, return_exceptions=True)


async def _both(
    ways: Sequence[_Way], copies: Sequence[asyncio.Task[None]], losses: Sequence[asyncio.Task[None]]
) -> bool:
    """Wait for both ends; ``False`` when a way broke off, or stands still after the other's end."""
    pending = {*copies, *losses}
    while not all(copy.done() for copy in copies):
        half_closed, before = any(copy.done() for copy in copies), [way.moved for way in ways]
        done, pending = await asyncio.wait(
            pending,
            timeout=HALF_CLOSED_SECONDS if half_closed else None,
            return_when=asyncio.FIRST_COMPLETED,
        )
        stands_still = not done and before == [way.moved for way in ways]
        if stands_still or any(copy.done() and copy.exception() for copy in copies):
            return False
        if any(loss.done() for loss in losses) and not all(copy.done() for copy in copies):
            return False
    return not any(copy.exception() for copy in copies)


class _Way:
    """One direction; ``moved`` counts its bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.moved = 0
        self._reader, self._writer = reader, writer

    async def run(self) -> None:
        """Everything up to the end, which is passed on. Raises ``OSError``."""
        while piece := await self._reader.read(PIECE_BYTES):
            self.moved += len(piece)
            self._writer.write(piece)
            await self._writer.drain()
        if self._writer.can_write_eof():
            self._writer.write_eof()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break off: the other end learns at once that something went wrong."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


def keep_alive(writer: asyncio.StreamWriter) -> None:
    """A dead other end is noticed, whatever the programs at both ends do."""
    sock = writer.get_extra_info("socket")
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEP_ALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
