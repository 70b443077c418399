"""What the facade answers: a ping, a peer's path."""

from __future__ import annotations

from dataclasses import dataclass

from client.magicsock.candidates import Address
from wire.paths import Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class PingResult:
    """An answered disco ping; ``latency`` in seconds. Direct: ``endpoint`` set.

    Relayed: ``derp_region`` instead, and why.
    """

    latency: float
    endpoint: Address | None = None
    derp_region: int = 0
    derp_code: str = ""
    reason: Reason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathStatus:
    """How a peer is reached now. ``current`` ``None`` = by the relay of ``relay_region``, for ``reason``.

    ``latency`` is the direct path's, in seconds; 0 = not measured.
    """

    current: Address | None = None
    latency: float = 0.0
    relay_region: int = 0
    relay_code: str = ""
    active: bool = False
    rx_bytes: int = 0
    tx_bytes: int = 0
    last_handshake: float = 0.0
    reason: Reason | None = None
