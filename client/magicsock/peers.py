"""The peers of the netmap, found by node ID, node key or disco key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

from client.magicsock.actions import Answered
from client.magicsock.candidates import parse_address
from client.magicsock.handshakes import Handshake
from client.magicsock.path import Path
from client.magicsock.states import PeerInfo
from client.prefixes import tailnet_addresses
from client.wireguard import PeerStatus
from wire.keys import DiscoPrivate, NodePublic, SharedKey
from wire.netmap import NetMap, Node


@dataclass(slots=True, eq=False)
class Peer:
    """A peer and its path. The path belongs to the node ID: it outlives the node's keys."""

    node: Node
    path: Path
    status: PeerStatus = field(default_factory=PeerStatus)
    timer: asyncio.TimerHandle | None = None
    pings: dict[int, asyncio.Future[Answered]] = field(default_factory=dict)
    shared: SharedKey | None = None
    handshake: Handshake = field(default_factory=Handshake)
    since: float = float("-inf")  # when the netmap began to know it

    @property
    def key(self) -> NodePublic:
        return self.node.key

    def shared_with(self, own: DiscoPrivate) -> SharedKey:
        """The key of the boxes between us, computed when first needed. Raises ``DecryptError``."""
        if self.shared is None:
            self.shared = own.shared(self.node.disco_key)
        return self.shared

    def set_node(self, node: Node) -> None:
        if node.disco_key != self.node.disco_key:
            self.shared = None
        self.node = node


def usable_nodes(netmap: NetMap) -> dict[int, Node]:
    """The nodes that WireGuard may know: with a key, not expired; of two with one key the later."""
    by_key = {
        node.key: node
        for _, node in sorted(netmap.peers.items())
        if not node.key.is_zero and not node.expired and node.key != netmap.node.key
    }
    return {node.id: node for node in by_key.values()}


def peer_info(node: Node, tailnet: frozenset[str]) -> PeerInfo:
    """What a path needs of a node. Addresses of the tailnet itself are no way to reach a peer."""
    parsed = (parse_address(text) for text in node.endpoints)
    endpoints = tuple(address for address in parsed if address and address[0] not in tailnet)
    return PeerInfo(disco=node.disco_key, home=node.home_derp, endpoints=endpoints)


def tailnet_hosts(netmap: NetMap) -> frozenset[str]:
    """Every node's address inside the tunnel."""
    texts = (text for node in (netmap.node, *netmap.peers.values()) for text in node.addresses)
    return frozenset(map(str, tailnet_addresses(texts)))


class Peers:
    """Indexes are rebuilt after each netmap; looking up is what must be quick.

    ``tailnet``: every host inside the tunnel. None is a way to carry the tunnel.
    """

    def __init__(self) -> None:
        self.tailnet: frozenset[str] = frozenset()
        self._by_id: dict[int, Peer] = {}
        self._by_key: dict[NodePublic, Peer] = {}
        self._by_disco: dict[bytes, list[Peer]] = {}

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def by_id(self, node_id: int) -> Peer | None:
        return self._by_id.get(node_id)

    def by_key(self, key: NodePublic) -> Peer | None:
        return self._by_key.get(key)

    def by_disco(self, raw: bytes) -> list[Peer]:
        """Mostly one: two nodes of one machine (two accounts) may share a disco key."""
        return self._by_disco.get(raw, [])

    def add(self, peer: Peer) -> None:
        self._by_id[peer.node.id] = peer

    def remove(self, node_id: int) -> Peer | None:
        return self._by_id.pop(node_id, None)

    def index(self) -> None:
        """After nodes were added, removed or changed."""
        self._by_key = {peer.key: peer for peer in self}
        self._by_disco = {}
        for peer in self:
            if not peer.node.disco_key.is_zero:
                self._by_disco.setdefault(peer.node.disco_key.raw, []).append(peer)


def is_fresh(status: PeerStatus, wall: float, bound: float) -> bool:
    """Whether WireGuard shook hands at most ``bound`` seconds before ``wall`` (Unix time)."""
    return status.last_handshake > 0 and wall - status.last_handshake < bound
