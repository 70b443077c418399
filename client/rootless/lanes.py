"""Who is who inside: every host outside, and every peer's relay, has a loopback address there. Pure.

WireGuard in the namespace knows its peers by these addresses alone and roams between them by itself, as it
would between real ones.
"""

from __future__ import annotations

import socket
import struct
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

from wire.keys import NodePublic

Address = tuple[str, int]

FIRST, LAST = 0x7F400001, 0x7F7FFFFF  # 127.64.0.1 to 127.127.255.255
MAX_IDLE = 1024  # lanes of hosts that no peer is at
PKTINFO = struct.Struct("=i4s4s")  # struct in_pktinfo: interface, local address, header's destination


@dataclass(slots=True, eq=False)
class Lane:
    """``peer`` for a relay's lane, ``outside`` for a host's. ``source``: the in_pktinfo to send from it."""

    inside: bytes
    host: str
    source: bytes
    peer: NodePublic | None = None
    outside: Address | None = None
    direct: Lane | None = None  # of a relay's lane: what its packets are disguised as (see Shuttle)
    spoken_to: bool = False  # WireGuard has sent something here


class Lanes:
    """At most ``MAX_IDLE`` lanes of hosts that nothing is known of; the one idle for longest goes first."""

    def __init__(self) -> None:
        self.by_inside: dict[bytes, Lane] = {}
        self.by_peer: dict[NodePublic, Lane] = {}
        self.by_outside: dict[Address, Lane] = {}
        self._idle: OrderedDict[bytes, Lane] = OrderedDict()
        self._next = FIRST

    def of_peer(self, peer: NodePublic) -> Lane:
        """The lane that means "relay" for this peer, made at the first call."""
        if peer not in self.by_peer:
            lane = self._make()
            lane.peer = peer
            self.by_peer[peer] = lane
        return self.by_peer[peer]

    def of_host(self, outside: Address) -> Lane:
        """A host's lane, made at the first call; idle until :meth:`use` says otherwise."""
        lane = self.by_outside.get(outside)
        if lane is None:
            lane = self._make()
            lane.outside = outside
            self.by_outside[outside] = self._idle[lane.inside] = lane
            self._trim()
        elif lane.inside in self._idle:
            self._idle.move_to_end(lane.inside)
        return lane

    def at(self, host: str) -> Lane | None:
        """The lane with this address inside."""
        try:
            return self.by_inside.get(socket.inet_aton(host))
        except OSError:
            return None

    def use(self, used: Iterable[Lane]) -> None:
        """These hosts' lanes are some peer's endpoint now: they stay. All others are idle."""
        kept = {lane.inside for lane in used}
        for inside, lane in self.by_inside.items():
            if inside in kept:
                self._idle.pop(inside, None)
            elif lane.outside is not None and inside not in self._idle:
                self._idle[inside] = lane
        self._trim()

    def remove(self, peer: NodePublic) -> Lane | None:
        if lane := self.by_peer.pop(peer, None):
            self.by_inside.pop(lane.inside, None)
        return lane

    def rekey(self, old: NodePublic, new: NodePublic) -> None:
        """The same lane under a peer's new key."""
        if old == new or old not in self.by_peer:
            return
        self.remove(new)
        lane = self.by_peer.pop(old)
        lane.peer = new
        self.by_peer[new] = lane

    def _make(self) -> Lane:
        while (inside := self._next.to_bytes(4, "big")) in self.by_inside:
            self._advance()
        self._advance()
        lane = Lane(inside, socket.inet_ntoa(inside), PKTINFO.pack(0, inside, bytes(4)))
        self.by_inside[inside] = lane
        return lane

    def _advance(self) -> None:
        self._next = FIRST if self._next == LAST else self._next + 1

    def _trim(self) -> None:
        while len(self._idle) > MAX_IDLE:
            inside, lane = self._idle.popitem(last=False)
            del self.by_inside[inside]
            if lane.outside is not None:
                del self.by_outside[lane.outside]
