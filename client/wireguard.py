"""WireGuard in plain values: what it is told and what it says of itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from wire.keys import NodePublic

Address = tuple[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConfig:
    """What a peer ought to be. ``allowed_ips`` are prefixes in CIDR form, without host bits."""

    key: NodePublic
    allowed_ips: tuple[str, ...]
    endpoint: Address | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """What a peer is. ``last_handshake`` is in Unix seconds, 0 = never."""

    endpoint: Address | None = None
    rx_bytes: int = 0
    tx_bytes: int = 0
    last_handshake: float = 0.0
    allowed_ips: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatus:
    """A backend's whole state. ``listen_port`` 0 = not set; ``public_key`` ``None`` = no key yet."""

    listen_port: int = 0
    public_key: NodePublic | None = None
    fwmark: int = 0
    peers: Mapping[NodePublic, PeerStatus] = field(default_factory=dict)
