"""A peer's handshake that may have gone nowhere: WireGuard itself sends the next one only five seconds later.

Sent once more by a way that has just opened, it saves those seconds. A copy that comes second is dropped by
the peer as a replay, so a needless one does no harm. Source: the WireGuard paper, §5.4.2 and §6.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

INITIATION = b"\x01\x00\x00\x00"
INITIATION_BYTES = 148
RETRY_SECONDS = 5.0  # REKEY_TIMEOUT: then WireGuard tries again by itself
MAX_COPIES = 3


class Handshake:
    """The last initiation that WireGuard sent towards the relay, until the peer is heard."""

    def __init__(self) -> None:
        self._packet = b""
        self._until = float("-inf")
        self._copies = 0

    def sent(self, packets: Iterable[bytes], now: float) -> None:
        """What WireGuard sent."""
        for packet in initiations(packets):
            self._packet, self._until, self._copies = packet, now + RETRY_SECONDS, 0

    def heard(self) -> None:
        """A packet of the peer's WireGuard came: nothing need be sent again."""
        self._packet = b""

    def copy(self, now: float) -> bytes:
        """The initiation to send by another way; empty when there is none that is worth it."""
        if now >= self._until or self._copies >= MAX_COPIES:
            return b""
        self._copies += 1
        return self._packet


def initiations(packets: Iterable[bytes]) -> Iterator[bytes]:
    """Those that begin a handshake."""
    return (packet for packet in packets if len(packet) == INITIATION_BYTES and packet.startswith(INITIATION))
