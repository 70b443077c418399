"""Magicsock: how this node reaches its peers, by whichever path is best now. The facade the daemon uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from client.engine.base import Engine
from client.magicsock.endpoints import Address, Endpoint
from client.magicsock.netcheck import Report
from wire.control import NetInfo
from wire.keys import DiscoPrivate, NodePrivate
from wire.netmap import NetMap


@dataclass(frozen=True, slots=True, kw_only=True)
class PingResult:
    """An answered disco ping; ``latency`` in seconds. Direct: ``endpoint`` set. Relayed: ``derp_region``."""

    latency: float
    endpoint: Address | None = None
    derp_region: int = 0
    derp_code: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStatus:
    """How a peer is reached now. ``current`` ``None`` = through the relay of ``relay_region``, for ``reason``."""

    current: Address | None = None
    relay_region: int = 0
    relay_code: str = ""
    active: bool = False
    rx_bytes: int = 0
    tx_bytes: int = 0
    last_handshake: float = 0.0
    reason: str = ""


class Magicsock:
    """Owns the raw port, the relay connections, the shuttle and every peer's path. One loop, one thread.

    ``on_endpoints`` and ``on_net_info`` are called with what the next lite update should say.
    """

    def __init__(
        self,
        *,
        engine: Engine,
        node_key: NodePrivate,
        disco_key: DiscoPrivate,
        listen_port: int,
        mark: int,
        on_endpoints: Callable[[tuple[Endpoint, ...]], None],
        on_net_info: Callable[[NetInfo], None],
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        raise NotImplementedError

    async def start(self) -> None:
        """Begin, once the engine has its key, its port and its link up. Raises ``SetupError``."""

    async def close(self) -> None:
        """End every task and connection; WireGuard's own endpoints stay as they are."""

    async def set_netmap(self, netmap: NetMap) -> None:
        """Make WireGuard's peers, the relays and the paths follow ``netmap``. Raises ``EngineError``."""

    async def set_node_key(self, key: NodePrivate) -> None:
        """Reconnect the relays under a rotated key (the engine has it already)."""

    def link_changed(self) -> None:
        """The host's addresses or routes changed: look again at everything."""

    def set_connected(self, connected: bool) -> None:
        """Whether the server hears us: while it does not, the home relay stays (peers would not learn of it)."""

    async def ping(self, node_id: int, timeout: float) -> PingResult:
        """Ask the peer's daemon by disco. Raises ``PeerNotFound``, ``PingTimeout``."""
        raise NotImplementedError

    def path_status(self, node_id: int) -> PathStatus:
        """Raises ``PeerNotFound``."""
        raise NotImplementedError

    async def netcheck(self) -> Report:
        """Measure the network now."""
        raise NotImplementedError
