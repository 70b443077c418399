"""Clients that mean no good: every hostile, truncated or stuck stream, one after another, at a steady pace.

``python -m tests.relay.hostile PORT SECONDS STREAMS_A_SECOND [tls]``
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import ssl
import struct
import sys

from tests.relay.peer import FAST_START, UPGRADE, Peer, Refused, any_certificate
from wire.derp import send_packet_frame
from wire.errors import WireError

HELD_SECONDS = 3.0

# before the handshake is done
RAW = (
    b"",
    b"\x16\x03\x01\xff\xff" + b"\xaa" * 2000,
    b"GET /derp HTT",
    b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000,
    UPGRADE,
    FAST_START + struct.pack(">BI", 2, 112) + b"\x09" * 112,
    FAST_START + struct.pack(">BI", 2, 200_000) + bytes(100_000),
    FAST_START + struct.pack(">BI", 0xFF, 2**32 - 1),
)


def after_handshake(peer: Peer) -> tuple[bytes, ...]:
    """What an admitted client may do wrong."""
    whole = send_packet_frame(peer.public, b"z" * 1000)
    return (
        whole[:500],
        struct.pack(">BI", 4, 2**32 - 1),
        struct.pack(">BI", 4, 3) + b"abc",
        struct.pack(">BI", 0x0A, 90) + bytes(90),
        struct.pack(">BI", 0x77, 2**32 - 1) + bytes(300_000),
        random.randbytes(5000),
        struct.pack(">BI", 0x12, 8) * 2000,
        whole * 100,
    )


async def attack(port: int, number: int, tls: ssl.SSLContext | None) -> None:
    """One stream; half of them are held open for a while, the others end at once."""
    peer = Peer(port, tls=tls, read_limit=1024)
    with contextlib.suppress(OSError, Refused, WireError, AssertionError, asyncio.IncompleteReadError):
        if number % 3:
            await peer.connect()
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            streams = after_handshake(peer)
        else:
            await peer.dial()
            streams = RAW
        peer.send(streams[number // 3 % len(streams)])
        await asyncio.sleep(HELD_SECONDS if number % 2 else 0)
    if hasattr(peer, "writer"):
        peer.leave()


async def storm(port: int, seconds: float, rate: float, tls: ssl.SSLContext | None = None) -> int:
    """Attack at ``rate`` streams a second; returns how many there were."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    running: set[asyncio.Task[None]] = set()
    for number in itertools.count():
        if loop.time() >= end:
            await asyncio.gather(*running, return_exceptions=True)
            return number
        task = loop.create_task(attack(port, number, tls))
        running.add(task)
        task.add_done_callback(running.discard)
        await asyncio.sleep(1 / rate)
    raise AssertionError


if __name__ == "__main__":
    context = any_certificate() if "tls" in sys.argv else None
    print(asyncio.run(storm(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), context)))
