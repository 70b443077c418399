"""The disco pings of one peer that are not answered yet. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from client.magicsock.candidates import Address
from wire.disco import TXID_BYTES, Ping
from wire.keys import NodePublic

PING_TIMEOUT = 5.0
MAX_OUTSTANDING = 512


@dataclass(frozen=True, slots=True)
class SentPing:
    """``to`` ``None`` = through a relay. ``number``: of a person's ping; 0 = nobody waits for the answer."""

    to: Address | None
    at: float
    number: int


class Pings:
    """Pings by transaction id, ``entropy(n)`` gives n random bytes."""

    def __init__(self, entropy: Callable[[int], bytes]) -> None:
        self._entropy = entropy
        self._sent: dict[bytes, SentPing] = {}

    def new(self, to: Address | None, own_key: NodePublic, now: float, *, number: int) -> Ping | None:
        """A ping to send, or ``None`` while too many are out."""
        self._forget_old(now)
        if len(self._sent) >= MAX_OUTSTANDING:
            return None
        txid = self._entropy(TXID_BYTES)
        self._sent[txid] = SentPing(to, now, number)
        return Ping(txid, own_key)

    def answered(self, txid: bytes, source: Address | None, now: float) -> SentPing | None:
        """The ping that a pong from ``source`` answers: in time, once, and by the way it was sent."""
        sent = self._sent.get(txid)
        if sent is None or now - sent.at > PING_TIMEOUT or (sent.to is None) != (source is None):
            return None
        return self._sent.pop(txid)

    def clear(self) -> None:
        self._sent.clear()

    def _forget_old(self, now: float) -> None:
        """The oldest are first: they were sent in the order they are kept."""
        for txid, sent in list(self._sent.items()):
            if now - sent.at <= PING_TIMEOUT:
                return
            del self._sent[txid]
