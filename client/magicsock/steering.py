"""Makes WireGuard go where the paths say: the one place that sets endpoints, one after another."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from client.engine.base import Engine
from client.errors import EngineError
from client.magicsock.peers import Peer
from client.magicsock.ports import Shuttling
from client.routing import allowed_ips
from client.wireguard import Address, EngineStatus, PeerConfig, PeerStatus
from wire.keys import NodePublic

log = logging.getLogger(__name__)

# WireGuard without an endpoint: neither the peer's loopback one (``None`` to a path) nor a direct one.
UNSET: Address = ("127.0.0.1", 0)


class Steering:
    """``on_moved`` is called after an endpoint was set: what the engine then does is worth a look."""

    def __init__(self, engine: Engine, shuttle: Shuttling, *, on_moved: Callable[[], None]) -> None:
        self._engine = engine
        self._shuttle = shuttle
        self._on_moved = on_moved
        self._lock = asyncio.Lock()  # the engine does one thing at a time
        self._set: dict[NodePublic, tuple[str, ...]] | None = None  # the engine's peers, as far as is known
        self._waiting: dict[int, Peer] = {}
        self._work = asyncio.Event()

    def steer(self, peer: Peer) -> None:
        """The peer's path has (perhaps) another endpoint than WireGuard."""
        self._waiting[peer.node.id] = peer
        self._work.set()

    def forget(self, peer: Peer) -> None:
        self._waiting.pop(peer.node.id, None)
        self._shuttle.remove(peer.key)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._work.wait()
            self._work.clear()
            try:
                await self._steer_all()
            except EngineError as error:  # the next look at the engine finds what is still to be done
                log.warning("%s", error)

    async def set_peers(self, peers: Sequence[Peer]) -> None:
        """WireGuard's peers are these; new ones begin where their path is. Raises ``EngineError``.

        A peer may send from the prefixes that the netmap, reduced to what is used, has for it. Most netmaps
        change nothing of it (an endpoint, who is online): then the engine is left alone.
        """
        prefixes = {peer.key: allowed_ips(peer.node) for peer in peers}
        async with self._lock:
            if prefixes == self._set:
                return
            self._set = None
            await self._engine.set_peers(
                [
                    PeerConfig(key=key, allowed_ips=prefixes[key], endpoint=self._wanted(peer))
                    for key, peer in {peer.key: peer for peer in peers}.items()
                ]
            )
            self._set = prefixes

    async def status(self) -> EngineStatus:
        """Raises ``EngineError``."""
        async with self._lock:
            return await self._engine.status()

    def seen_by_path(self, key: NodePublic, status: PeerStatus) -> Address | None:
        """The endpoint of ``status`` as paths see it: ``None`` = the peer's loopback one."""
        if status.endpoint == self._shuttle.address_of(key):
            return None
        return status.endpoint or UNSET

    def _wanted(self, peer: Peer) -> Address:
        return peer.path.endpoint or self._shuttle.add(peer.key)

    async def _steer_all(self) -> None:
        async with self._lock:
            while self._waiting:
                peer = self._waiting.pop(next(iter(self._waiting)))
                # The order is what keeps the tunnel from snapping back (Shuttle.set_direct).
                self._shuttle.set_direct(peer.key, peer.path.endpoint)
                await self._engine.set_endpoint(peer.key, self._wanted(peer))
        self._on_moved()
