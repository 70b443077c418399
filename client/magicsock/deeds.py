"""Does what paths want, and wakes each path when its time has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from client.magicsock.actions import Action, Answered, CallPeer, SendDirect, SendRelay, UseDirect, UseRelay
from client.magicsock.derp import DerpPool
from client.magicsock.peers import Peer, Peers
from client.magicsock.ports import Port
from client.magicsock.steering import Steering
from client.magicsock.surroundings import Surroundings
from wire import disco
from wire.errors import WireError
from wire.keys import NONCE_BYTES, DiscoPrivate


class Deeds:
    """``raw`` sends from WireGuard's port, ``pool`` by relays, ``steering`` moves WireGuard itself."""

    def __init__(
        self,
        *,
        peers: Peers,
        raw: Port,
        pool: DerpPool,
        steering: Steering,
        surroundings: Surroundings,
        disco_key: DiscoPrivate,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._peers = peers
        self._raw = raw
        self._pool = pool
        self._steering = steering
        self._surroundings = surroundings
        self._disco_key = disco_key
        self._entropy = entropy
        self._loop = asyncio.get_running_loop()
        self._callers: dict[int, int] = {}  # node ID → region of a call-me-maybe that waits for fresh STUN

    def do(self, peer: Peer, actions: list[Action]) -> None:
        """All of it, in order."""
        for action in actions:
            self._act(peer, action)
        self._arm(peer)

    def forget(self, peer: Peer) -> None:
        """Nothing more is done for this peer."""
        if peer.timer is not None:
            peer.timer.cancel()
        self._callers.pop(peer.node.id, None)

    def call_waiting(self) -> None:
        """Our endpoints are fresh: tell them to those that waited."""
        callers, self._callers = self._callers, {}
        for node_id, region in callers.items():
            if peer := self._peers.by_id(node_id):
                self._call(peer, region)

    def seal(self, peer: Peer, message: disco.Message) -> bytes | None:
        """The packet that only this peer can open; ``None`` when its key is no key."""
        try:
            shared = peer.shared_with(self._disco_key)
        except WireError:
            return None
        return disco.seal(shared, self._disco_key.public(), self._entropy(NONCE_BYTES), message)

    def _act(self, peer: Peer, action: Action) -> None:
        match action:
            case SendDirect(to, message):
                if packet := self.seal(peer, message):
                    self._raw.send(packet, to)
            case SendRelay(region, message):
                if packet := self.seal(peer, message):
                    self._pool.send(region, peer.key, [packet])
            case CallPeer(region):
                self._call(peer, region)
            case UseDirect(endpoint):
                self._steering.steer(peer)
                if handshake := peer.handshake.copy(self._loop.time()):
                    self._raw.send(handshake, endpoint)
            case UseRelay():
                self._steering.steer(peer)
            case Answered(number):
                if (answer := peer.pings.get(number)) and not answer.done():
                    answer.set_result(action)

    def _call(self, peer: Peer, region: int) -> None:
        """Our endpoints must be fresh: a NAT may have changed them since the last look."""
        if not self._surroundings.is_fresh:
            self._callers[peer.node.id] = region
            self._surroundings.refresh()
            return
        call = disco.CallMeMaybe(tuple(endpoint.address for endpoint in self._surroundings.endpoints))
        if call.endpoints and (packet := self.seal(peer, call)):
            self._pool.send(region, peer.key, [packet])

    def _arm(self, peer: Peer) -> None:
        """One timer a peer, for when its path has something to do."""
        due = peer.path.deadline
        if peer.timer is not None:
            if due is not None and not peer.timer.cancelled() and peer.timer.when() == due:
                return
            peer.timer.cancel()
        peer.timer = None if due is None else self._loop.call_at(due, self._tick, peer)

    def _tick(self, peer: Peer) -> None:
        peer.timer = None
        self.do(peer, peer.path.tick(max(self._loop.time(), peer.path.deadline or 0.0)))
