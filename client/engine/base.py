"""What a WireGuard backend is to the daemon: one interface, its keys and peers, and what they are doing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from client.wireguard import Address, EngineStatus, PeerConfig, PeerStatus
from wire.keys import NodePrivate, NodePublic

# The smallest MTU that IPv6 allows; every peer of this protocol uses it: tailscale net/tstun/mtu.go.
TUNNEL_MTU = 1280
# Written on every interface that this program makes, so that it never takes over someone else's.
INTERFACE_ALIAS = "trenza"
# The name of the engine that needs no root, and what --tun says for it.
USERSPACE = "userspace"


@dataclass(frozen=True, slots=True)
class PeerPlan:
    """What turns the peers that are into those that ought to be."""

    remove: tuple[NodePublic, ...] = ()
    add: tuple[PeerConfig, ...] = ()
    change: tuple[PeerConfig, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.remove or self.add or self.change)


def plan_peers(current: Mapping[NodePublic, PeerStatus], wanted: Sequence[PeerConfig]) -> PeerPlan:
    """Compare by key and allowed IPs; endpoints of known peers are left alone: WireGuard roams by itself."""
    by_key = {peer.key: peer for peer in wanted}
    return PeerPlan(
        remove=tuple(key for key in current if key not in by_key),
        add=tuple(peer for key, peer in by_key.items() if key not in current),
        change=tuple(
            peer
            for key, peer in by_key.items()
            if key in current and current[key].allowed_ips != frozenset(peer.allowed_ips)
        ),
    )


class Engine(Protocol):
    """A WireGuard interface. Every method raises :class:`client.errors.EngineError` when it cannot."""

    name: str
    interface: str

    async def start(self) -> bool:
        """Make the interface (left down), or take over the one that an earlier daemon left: then ``True``."""

    async def set_key(self, key: NodePrivate, *, listen_port: int, fwmark: int) -> None:
        """Set what differs only: on an interface that was taken over, equal values disturb nothing."""

    async def set_peers(self, peers: Sequence[PeerConfig]) -> None:
        """Add, remove, replace allowed IPs. An endpoint is set for new peers only, never for a live one."""

    async def set_endpoint(self, peer: NodePublic, endpoint: Address) -> None:
        """Move a peer; nothing happens when it is not (any more) there."""

    async def status(self) -> EngineStatus:
        """What the interface is doing now."""

    async def close(self, *, keep: bool) -> None:
        """``keep``: only let go, the tunnel lives on. Else remove the interface and what runs it."""
