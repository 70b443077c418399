"""An engine in memory, for tests: what was set can be read, what a peer does can be said."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from client.engine.base import Engine, plan_peers
from client.errors import EngineError
from client.wireguard import Address, EngineStatus, PeerConfig, PeerStatus
from wire.keys import NodePrivate, NodePublic


class FakeEngine:
    """Behaves like a backend whose interface is always up. ``running``: an earlier daemon left it so."""

    name = "fake"

    def __init__(self, interface: str = "trenza0", *, running: bool = False) -> None:
        self.interface = interface
        self.running = running
        self.key: NodePrivate | None = None
        self.closed_keeping: bool | None = None
        self.endpoint_changes: list[tuple[NodePublic, Address]] = []
        self._status = EngineStatus()

    async def start(self) -> bool:
        taken_over, self.running = self.running, True
        return taken_over

    async def set_key(self, key: NodePrivate, *, listen_port: int, fwmark: int) -> None:
        self._check()
        self.key = key
        self._status = replace(self._status, public_key=key.public(), listen_port=listen_port, fwmark=fwmark)

    async def set_peers(self, peers: Sequence[PeerConfig]) -> None:
        self._check()
        now = dict(self._status.peers)
        plan = plan_peers(now, peers)
        for key in plan.remove:
            del now[key]
        for peer in plan.add:
            now[peer.key] = PeerStatus(endpoint=peer.endpoint, allowed_ips=frozenset(peer.allowed_ips))
        for peer in plan.change:
            now[peer.key] = replace(now[peer.key], allowed_ips=frozenset(peer.allowed_ips))
        self._status = replace(self._status, peers=now)

    async def set_endpoint(self, peer: NodePublic, endpoint: Address) -> None:
        self._check()
        if peer in self._status.peers:
            self.endpoint_changes.append((peer, endpoint))
            self.observe(peer, endpoint=endpoint)

    async def status(self) -> EngineStatus:
        self._check()
        return self._status

    async def close(self, *, keep: bool) -> None:
        self.closed_keeping = keep
        if not keep:
            self.running, self._status = False, EngineStatus()

    def observe(
        self,
        peer: NodePublic,
        *,
        endpoint: Address | None = None,
        received: int = 0,
        sent: int = 0,
        last_handshake: float | None = None,
    ) -> None:
        """Let WireGuard do by itself what it does: roam, carry bytes, shake hands."""
        old = self._status.peers[peer]
        new = PeerStatus(
            endpoint=endpoint or old.endpoint,
            rx_bytes=old.rx_bytes + received,
            tx_bytes=old.tx_bytes + sent,
            last_handshake=old.last_handshake if last_handshake is None else last_handshake,
            allowed_ips=old.allowed_ips,
        )
        self._status = replace(self._status, peers={**self._status.peers, peer: new})

    def _check(self) -> None:
        if not self.running:
            raise EngineError(f"{self.interface} is not there; start the engine first")


def _conforms(engine: FakeEngine) -> Engine:
    return engine
