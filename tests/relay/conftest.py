"""Relays in the test's own loop, on free ports, with everything real below them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.config import Config, Endpoint
from relay.server import Relay
from tests.relay.peer import Peer

StartRelay = Callable[..., Awaitable[Relay]]
Connect = Callable[..., Awaitable[Peer]]


def make_config(data: Path, **changes: Any) -> Config:
    values: dict[str, Any] = {
        "listen": Endpoint("127.0.0.1", 0),
        "stun": None,
        "data": data,
        "tls": False,
        "open_admission": True,
        **changes,
    }
    return Config(**values)


@pytest.fixture
async def start_relay(tmp_path: Path) -> AsyncIterator[StartRelay]:
    """``await start_relay(name, **config)``: a relay that serves everybody, plain, unless told otherwise."""
    relays: list[Relay] = []

    async def start(name: str = "data", **changes: Any) -> Relay:
        relay = Relay(make_config(tmp_path / name, **changes))
        await relay.start()
        relays.append(relay)
        return relay

    yield start
    for relay in relays:
        if relay._sock.fileno() >= 0:  # the test has not stopped it
            await relay.stop()


@pytest.fixture
async def relay(start_relay: StartRelay) -> Relay:
    return await start_relay()


@pytest.fixture
async def connect(relay: Relay) -> AsyncIterator[Connect]:
    """``await connect(…)``: a client of ``relay``, or of another one given as ``to``; closed at the end."""
    peers: list[Peer] = []

    async def one(cls: type[Peer] = Peer, *, to: Relay | None = None, **options: Any) -> Peer:
        peer = cls((to or relay).derp_port, **options)
        peers.append(peer)
        return await peer.connect()

    yield one
    for peer in peers:
        if hasattr(peer, "writer"):
            peer.leave()
