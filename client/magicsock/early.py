"""Handshakes of those that we do not know yet: the server told them of us a moment before it told us. Pure.

WireGuard would begin again only five seconds later (REKEY_TIMEOUT: the WireGuard paper, §6.1), so what comes
early waits here until the netmap knows whose it is. By itself it opens nothing: WireGuard judges it then.
"""

from __future__ import annotations

from client.magicsock.handshakes import RETRY_SECONDS, initiations
from wire.keys import NodePublic

MAX_SENDERS = 64  # that are remembered: the newest


class Early:
    """The last initiation of each unknown sender, as long as it is worth something."""

    def __init__(self) -> None:
        self._kept: dict[NodePublic, tuple[float, bytes]] = {}

    def keep(self, sender: NodePublic, packets: list[bytes], now: float) -> None:
        for packet in initiations(packets):
            self._kept.pop(sender, None)
            self._kept[sender] = (now, packet)
        while len(self._kept) > MAX_SENDERS:
            del self._kept[next(iter(self._kept))]

    @property
    def senders(self) -> tuple[NodePublic, ...]:
        return tuple(self._kept)

    def take(self, sender: NodePublic, now: float) -> bytes:
        """What it said, once; empty when that was nothing, or too long ago."""
        when, packet = self._kept.pop(sender, (float("-inf"), b""))
        return packet if now - when < RETRY_SECONDS else b""
