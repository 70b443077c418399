"""Brings each packet to the peer that it is of: what port and relays hear, what WireGuard sends by relay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from client.magicsock.deeds import Deeds
from client.magicsock.derp import DerpPool
from client.magicsock.early import Early
from client.magicsock.handshakes import initiations
from client.magicsock.peers import Peer, Peers
from client.magicsock.ports import Shuttling
from client.magicsock.strangers import in_session
from client.magicsock.surroundings import Surroundings
from client.wireguard import Address
from wire import disco, stun
from wire.errors import WireError
from wire.keys import DiscoPrivate, NodePublic

log = logging.getLogger(__name__)

NEW_SECONDS = 10.0  # a peer is new for so long
COPY_SECONDS = (0.4, 0.9, 1.8)  # after a handshake that a new peer does not answer
MAX_TIMERS = 1000  # of copies that wait; who has more new peers than that is in no hurry


class Reception:
    """``on_heard`` is called for what a peer says that may be of a session which our WireGuard lacks.

    ``relayed_in`` and ``relayed_out`` are bytes since the start.
    """

    def __init__(
        self,
        *,
        peers: Peers,
        shuttle: Shuttling,
        pool: DerpPool,
        deeds: Deeds,
        surroundings: Surroundings,
        disco_key: DiscoPrivate,
        on_heard: Callable[[Peer], None],
    ) -> None:
        self.relayed_in = self.relayed_out = 0
        self._peers = peers
        self._shuttle = shuttle
        self._pool = pool
        self._deeds = deeds
        self._surroundings = surroundings
        self._disco_key = disco_key
        self._on_heard = on_heard
        self._early = Early()
        self._timers: list[asyncio.TimerHandle] = []
        self._loop = asyncio.get_running_loop()

    def udp(self, packet: bytes, source: Address) -> None:
        """What came to WireGuard's port and is not WireGuard's alone."""
        if stun.is_stun(packet):
            self._surroundings.receive_stun(packet)
            return
        if in_session(packet):
            for peer in self._peers:
                if peer.path.candidates.get(source) is not None:
                    self._on_heard(peer)
            return
        sender = disco.parse_header(packet) if source[0] not in self._peers.tailnet else None
        for peer in self._peers.by_disco(sender.raw) if sender else ():
            self._disco(peer, packet, source, 0)

    def derp(self, region: int, sender: NodePublic, packets: list[bytes]) -> None:
        """What came by a relay: WireGuard's is injected, in its order."""
        peer = self._peers.by_key(sender)
        if peer is None:
            self._early.keep(sender, packets, self._loop.time())
            return
        data = []
        for packet in packets:
            if disco.is_disco(packet):
                if disco.parse_header(packet) == peer.node.disco_key:
                    self._disco(peer, packet, None, region)
            else:
                data.append(packet)
        if data:
            peer.handshake.heard()
            self.relayed_in += sum(map(len, data))
            self._shuttle.inject(sender, data)
            if not peer.status.last_handshake and any(map(in_session, data)):
                self._on_heard(peer)
            self._deeds.do(peer, peer.path.relayed(region, self._loop.time()))

    def peers_came(self) -> None:
        """WireGuard knows those in the netmap by now: also who spoke before."""
        now = self._loop.time()
        for sender in self._early.senders:
            if self._peers.by_key(sender) and (packet := self._early.take(sender, now)):
                self._shuttle.inject(sender, [packet])

    def _say_again(self, peer: Peer) -> None:
        """One that is new here may not know us yet, either; who has heard a handshake drops its copies."""
        now = self._loop.time()
        self._timers = [timer for timer in self._timers if timer.when() > now]
        if len(self._timers) < MAX_TIMERS:
            self._timers += [self._loop.call_later(pause, self._copy, peer) for pause in COPY_SECONDS]

    def _copy(self, peer: Peer) -> None:
        packet, region = peer.handshake.copy(self._loop.time()), peer.path.region
        if packet and region and self._peers.by_key(peer.key) is peer:
            self._pool.send(region, peer.key, [packet])

    def close(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def outgoing(self, key: NodePublic, packets: list[bytes]) -> None:
        """What WireGuard sends to a peer by relay."""
        if peer := self._peers.by_key(key):
            now = self._loop.time()
            peer.handshake.sent(packets, now)
            if now - peer.since < NEW_SECONDS and any(initiations(packets)):
                self._say_again(peer)
            if region := peer.path.region:
                self.relayed_out += sum(map(len, packets))
                self._pool.send(region, key, packets)
            self._deeds.do(peer, peer.path.outgoing(now))

    def _disco(self, peer: Peer, packet: bytes, source: Address | None, region: int) -> None:
        try:
            message = disco.open(peer.shared_with(self._disco_key), packet)
        except WireError as error:
            log.debug("disco from %s: %s", peer.key.short(), error)
            return
        now, tailnet = self._loop.time(), self._peers.tailnet
        match message:
            case disco.Ping() if self._is_from(peer, message):
                self._on_heard(peer)
                self._deeds.do(peer, peer.path.got_ping(message, source, region, now))
            case disco.Pong():
                self._deeds.do(peer, peer.path.got_pong(message, source, region, now))
            case disco.CallMeMaybe() if source is None:  # what came by UDP anyone may have sent again
                outside = tuple(address for address in message.endpoints if address[0] not in tailnet)
                self._deeds.do(peer, peer.path.got_call(disco.CallMeMaybe(outside), region, now))

    def _is_from(self, peer: Peer, ping: disco.Ping) -> bool:
        """A ping's node key tells nodes with one disco key apart; else it may be newer than the netmap."""
        alone = len(self._peers.by_disco(peer.node.disco_key.raw)) == 1
        return alone or ping.node_key in (None, peer.key)
