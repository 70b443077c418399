"""Peers that speak in a session which our WireGuard does not have: it began after theirs. Pure.

WireGuard drops what comes in such a session without a word. The peer's waits fifteen seconds
(KEEPALIVE_TIMEOUT and REKEY_TIMEOUT: the WireGuard paper, §6.1) until it begins anew by itself, so ours is to
begin. A peer that is only beginning a session shows the same for a moment, and two beginnings at once cost
five seconds: that is waited for.
"""

from __future__ import annotations

from collections.abc import Iterable

from client.magicsock.peers import Peer

TRANSPORT = b"\x04\x00\x00\x00"  # a message within a session
SETTLE_SECONDS = 1.0  # a session that is only beginning is there by then
RETRY_SECONDS = 5.0  # REKEY_TIMEOUT: WireGuard itself begins no sooner again


class Strangers:
    """Knows since when which peers are heard without a session."""

    def __init__(self) -> None:
        self._heard: dict[int, float] = {}  # node ID → since when
        self._greeted: dict[int, float] = {}

    @property
    def expects(self) -> bool:
        """Whether a look at the engine would help."""
        return bool(self._heard)

    def heard(self, peer: Peer, now: float) -> bool:
        """The peer spoke; ``True`` when that is the first sign of it."""
        number = peer.node.id
        if peer.status.last_handshake or number in self._heard:
            return False
        if now - self._greeted.get(number, float("-inf")) < RETRY_SECONDS:
            return False
        self._heard[number] = now
        return True

    def due(self, peers: Iterable[Peer], now: float) -> list[Peer]:
        """After a look at the engine: with whom it is to begin a session now."""
        found = []
        for peer in peers:
            number = peer.node.id
            if peer.status.last_handshake:
                self._heard.pop(number, None)
                self._greeted.pop(number, None)
            elif now - self._heard.get(number, now) >= SETTLE_SECONDS:
                del self._heard[number]
                self._greeted[number] = now
                found.append(peer)
        return found

    def forget(self, peer: Peer) -> None:
        self._heard.pop(peer.node.id, None)
        self._greeted.pop(peer.node.id, None)


def in_session(packet: bytes) -> bool:
    """Whether WireGuard's packet belongs to a session that stands."""
    return packet.startswith(TRANSPORT)
