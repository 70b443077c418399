"""A node of the simulated network: a WireGuard that roams, and a daemon that runs real paths."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from client.magicsock.actions import Action, Answered, CallPeer, SendDirect, SendRelay, UseDirect, UseRelay
from client.magicsock.path import Path
from client.magicsock.states import PeerInfo, State
from client.wireguard import PeerStatus
from tests.natlab.world import RELAY_DELAY, Address, Site, World
from wire.disco import CallMeMaybe, Message, Ping, Pong
from wire.keys import DiscoPublic, NodePublic

PORT = 41641
REGION = 900
STUN_SERVERS = (("198.51.100.1", 3478), ("198.51.100.2", 3478))
POLL = 1.0
HANDSHAKE_LIFE = 180.0
KEEPALIVE = 10.0


@dataclass(frozen=True)
class Disco:
    """A sealed packet: only who holds the ``to`` key can read it."""

    sender: DiscoPublic
    to: DiscoPublic
    message: Message


@dataclass(frozen=True)
class Data:
    """A WireGuard packet. ``number`` 0 = a keepalive."""

    sender: NodePublic
    number: int


@dataclass
class Tunnel:
    """What WireGuard holds for one peer. ``endpoint`` ``None`` = the loopback one, which means the relay."""

    endpoint: Address | None = None
    rx: int = 0
    tx: int = 0
    handshake_at: float = -1e9
    owes_keepalive: bool = False
    got: set[int] = field(default_factory=set)


@dataclass
class Remote:
    """The daemon's side of one peer."""

    node: SimNode
    path: Path
    injects_as: Address | None = None
    tick_at: float | None = None
    answers: list[Answered] = field(default_factory=list)
    moves: list[tuple[float, Address | None]] = field(default_factory=list)


class SimNode:
    """``hosts`` are its addresses. ``alive``: whether its daemon runs; WireGuard always does."""

    def __init__(self, world: World, site: Site, name: int, hosts: tuple[str, ...]) -> None:
        self.world = world
        self.site = site
        self.hosts = hosts
        self.key = NodePublic(bytes([name]) * 32)
        self.disco = DiscoPublic(bytes([name, 1]) * 16)
        self.alive = True
        self.online = True
        self.generation = 0
        self.tunnels: dict[NodePublic, Tunnel] = {}
        self.remotes: dict[NodePublic, Remote] = {}
        self.sent: dict[str, int] = {}
        self._numbers = 0
        for host in hosts:
            site.attach(host, self._receive)

    # --- set up ------------------------------------------------------------------------------------------

    def know(self, other: SimNode) -> None:
        """A netmap with ``other`` in it."""
        if other.key not in self.remotes:
            path = Path(own_key=self.key, entropy=self.world.random.randbytes)
            self.remotes[other.key] = Remote(other, path)
            self.tunnels.setdefault(other.key, Tunnel())
        self.learn(other)

    def learn(self, other: SimNode) -> None:
        """The server passes on what it knows of ``other``."""
        remote = self.remotes[other.key]
        info = PeerInfo(disco=other.disco, home=REGION, endpoints=other.endpoints())
        self._do(remote, remote.path.netmap_changed(info, self.world.now))

    def start(self) -> None:
        self._poll(self.generation)

    def endpoints(self) -> tuple[Address, ...]:
        source = (self.hosts[0], PORT)
        seen = [self.site.seen_as(source, server) for server in STUN_SERVERS if ":" not in self.hosts[0]]
        public = [address for address in seen[:1] if address is not None]
        return (*public, *((host, PORT) for host in self.hosts))

    # --- what a test does --------------------------------------------------------------------------------

    def path_to(self, other: SimNode) -> Path:
        return self.remotes[other.key].path

    def send(self, other: SimNode, count: int = 1, gap: float = 0.1) -> list[int]:
        """``count`` packets, the first one now; returns their numbers."""
        numbers = list(range(self._numbers + 1, self._numbers + 1 + count))
        self._numbers += count
        for index, number in enumerate(numbers):
            self.world.after(index * gap, lambda number=number: self._encrypt(other.key, number))
        return numbers

    def missing(self, sender: SimNode, numbers: list[int]) -> list[int]:
        """Which of a sender's packets did not come."""
        return [number for number in numbers if number not in self.tunnels[sender.key].got]

    def ping(self, other: SimNode) -> None:
        remote = self.remotes[other.key]
        self._do(remote, remote.path.ping(1, self.world.now))

    def kill(self) -> None:
        """kill -9: what was in memory is gone, WireGuard goes on."""
        self.alive = False
        self.generation += 1
        for remote in self.remotes.values():
            remote.tick_at = None

    def restart(self, *, new_disco: bool = True) -> None:
        """A new daemon takes over the running WireGuard."""
        self.alive = True
        if new_disco:
            self.disco = DiscoPublic(self.world.random.randbytes(32))
        others = [remote.node for remote in self.remotes.values()]
        self.remotes.clear()
        for other in others:
            self.know(other)
            tunnel, remote = self.tunnels[other.key], self.remotes[other.key]
            if tunnel.endpoint and self.world.now - tunnel.handshake_at < HANDSHAKE_LIFE:
                self._do(remote, remote.path.adopt(tunnel.endpoint, self.world.now))
            else:
                tunnel.endpoint = None
        self.start()

    def move(self, site: Site, hosts: tuple[str, ...]) -> None:
        """To another network."""
        for host in self.hosts:
            self.site.hosts.pop(host, None)
        self.site, self.hosts = site, hosts
        for host in hosts:
            site.attach(host, self._receive)
        for remote in self.remotes.values():
            self._do(remote, remote.path.link_changed(self.world.now))

    # --- WireGuard ---------------------------------------------------------------------------------------

    def _encrypt(self, to: NodePublic, number: int) -> None:
        tunnel = self.tunnels[to]
        tunnel.tx += 100 if number else 32
        packet = Data(self.key, number)
        if self.world.now - tunnel.handshake_at > 120:
            tunnel.handshake_at = self.world.now
        if tunnel.endpoint is not None:
            self._send_udp(tunnel.endpoint, packet)
        elif self.alive:
            remote = self.remotes[to]
            self._relay(remote, packet)
            self._do(remote, remote.path.outgoing(self.world.now))

    def _decrypt(self, packet: Data, source: Address | None) -> None:
        """An authentic packet: WireGuard roams to where it came from, and owes an answer within 10 s."""
        tunnel = self.tunnels[packet.sender]
        tunnel.endpoint = source
        tunnel.rx += 100 if packet.number else 32
        tunnel.handshake_at = max(tunnel.handshake_at, self.world.now - 119)
        tunnel.got.add(packet.number)
        if packet.number and not tunnel.owes_keepalive:
            tunnel.owes_keepalive = True
            self.world.after(KEEPALIVE, lambda: self._keep_alive(packet.sender))

    def _keep_alive(self, peer: NodePublic) -> None:
        self.tunnels[peer].owes_keepalive = False
        self._encrypt(peer, 0)

    # --- packets -----------------------------------------------------------------------------------------

    def _source_for(self, to: Address) -> Address | None:
        host = next((host for host in self.hosts if (":" in host) == (":" in to[0])), None)
        return None if host is None else (host, PORT)

    def _send_udp(self, to: Address, packet: Any) -> None:
        if self.online and (source := self._source_for(to)):
            self.site.send(source, to, packet)

    def _relay(self, remote: Remote, packet: Any) -> None:
        if self.world.relay_works and self.online:
            self.world.after(RELAY_DELAY, lambda: remote.node.from_relay(self, packet))

    def _receive(self, packet: Any, source: Address) -> None:
        if not self.online:
            return
        if isinstance(packet, Data):
            self._decrypt(packet, source)
        elif self.alive:
            self._open(packet, source)

    def from_relay(self, sender: SimNode, packet: Any) -> None:
        """The daemon's relay connection."""
        remote = self.remotes.get(sender.key)
        if not (self.alive and self.online and self.world.relay_works) or remote is None:
            return
        if isinstance(packet, Data):
            self._decrypt(packet, remote.injects_as)
            self._do(remote, remote.path.relayed(REGION, self.world.now))
        else:
            self._open(packet, None)

    def _open(self, packet: Disco, source: Address | None) -> None:
        now, region = self.world.now, 0 if source else REGION
        for remote in self.remotes.values():
            if packet.to != self.disco or packet.sender != remote.path.info.disco:
                continue
            match packet.message:
                case Ping() as ping:
                    self._do(remote, remote.path.got_ping(ping, source, region, now))
                case Pong() as pong:
                    self._do(remote, remote.path.got_pong(pong, source, region, now))
                case CallMeMaybe() as call:
                    self._do(remote, remote.path.got_call(call, region, now))

    # --- the daemon --------------------------------------------------------------------------------------

    def _poll(self, generation: int) -> None:
        if generation != self.generation or not self.alive:
            return
        for key, remote in self.remotes.items():
            tunnel = self.tunnels[key]
            seen = PeerStatus(endpoint=tunnel.endpoint, rx_bytes=tunnel.rx, tx_bytes=tunnel.tx)
            self._do(remote, remote.path.polled(seen, self.world.now, since=self.world.now))
        self.world.after(POLL, lambda: self._poll(generation))

    def _do(self, remote: Remote, actions: list[Action]) -> None:
        for action in actions:
            kind = type(action).__name__
            self.sent[kind] = self.sent.get(kind, 0) + 1
            match action:
                case SendDirect(to, message):
                    self._send_udp(to, Disco(self.disco, remote.path.info.disco, message))
                case SendRelay(_, message):
                    self._relay(remote, Disco(self.disco, remote.path.info.disco, message))
                case CallPeer():
                    call = CallMeMaybe(self.endpoints())
                    self._relay(remote, Disco(self.disco, remote.path.info.disco, call))
                case UseDirect(endpoint):
                    self._move(remote, endpoint)
                case UseRelay():
                    self._move(remote, None)
                case Answered():
                    remote.answers.append(action)
        self._arm(remote)

    def _move(self, remote: Remote, endpoint: Address | None) -> None:
        remote.injects_as = endpoint
        self.tunnels[remote.node.key].endpoint = endpoint
        if not remote.moves or remote.moves[-1][1] != endpoint:
            remote.moves.append((self.world.now, endpoint))

    def _arm(self, remote: Remote) -> None:
        due = remote.path.deadline
        if due is not None and (remote.tick_at is None or due < remote.tick_at):
            remote.tick_at = due
            delay = max(0.0, due - self.world.now)
            self.world.after(delay, lambda: self._tick(remote, due, self.generation))

    def _tick(self, remote: Remote, due: float, generation: int) -> None:
        if generation != self.generation or remote.tick_at != due:
            return
        remote.tick_at = None
        self._do(remote, remote.path.tick(max(self.world.now, due)))


def introduce(*nodes: SimNode) -> None:
    """Everyone gets a netmap with everyone, and starts."""
    for node in nodes:
        for other in nodes:
            if other is not node:
                node.know(other)
        node.start()


def states(one: SimNode, other: SimNode) -> tuple[State, State]:
    return one.path_to(other).state, other.path_to(one).state


__all__ = ["PORT", "Data", "Disco", "SimNode", "introduce", "states"]
