"""WireGuard backends, and the choice between them."""

from __future__ import annotations

from client.engine.base import Address, Engine, EngineStatus, PeerConfig, PeerStatus

__all__ = ["Address", "Engine", "EngineStatus", "PeerConfig", "PeerStatus", "choose_engine"]


def choose_engine(interface: str) -> Engine:
    """The kernel's WireGuard where it exists, else wireguard-go; raises ``SetupError`` saying what to do.

    A running interface of an earlier daemon decides by itself: its backend is taken.
    """
    raise NotImplementedError
