"""The data plane as one thing: filter, interface, WireGuard, addresses, routes, paths. Up, following, down.

Order is safety: the filter stands before the interface comes up; what fails on the way up is taken down.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from client.engine.base import USERSPACE, Engine
from client.engine.host import require_free_port
from client.errors import ClientError, EngineError, PeerNotFound, SetupError
from client.flows.table import FlowTable
from client.magicsock.endpoints import Endpoint
from client.magicsock.netcheck import Report
from client.magicsock.sock import Magicsock, PathStatus, PingResult
from client.net.firewall import TABLE, Door, Firewall
from client.net.forwarding import NO_GATEWAY
from client.net.hold import Hold
from client.net.marks import MARK
from client.net.router import Router, layout, same_layout
from client.net.traffic import Traffic
from client.prefixes import tailnet_addresses
from client.prefs import Prefs
from wire.control import NetInfo
from wire.keys import DiscoPrivate, NodePrivate
from wire.netmap import NetMap, Node

logger = logging.getLogger("trenzad.tunnel")

PORT_TRIES = 32
RANDOM_PORTS = (20000, 60000)
ROTATION_PAUSE_SECONDS = 0.1
DISCARD_PORT = 9
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
RANDOM_PORT = "randomize-client-port"  # an attribute of the node
PORTAL = "a captive portal answers in place of the servers: sign in to this network with a browser"


class Sock(Protocol):
    """What the tunnel needs of :class:`client.magicsock.sock.Magicsock`."""

    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def set_netmap(self, netmap: NetMap) -> None: ...
    async def set_node_key(self, key: NodePrivate) -> None: ...
    def link_changed(self) -> None: ...
    def set_connected(self, connected: bool) -> None: ...
    def set_control_url(self, url: str) -> None: ...
    @property
    def behind_portal(self) -> bool: ...
    async def ping(self, node_id: int, timeout: float) -> PingResult: ...  # noqa: ASYNC109
    def path_status(self, node_id: int) -> PathStatus: ...
    def live_paths(self) -> dict[int, PathStatus]: ...
    def relayed_bytes(self) -> tuple[int, int]: ...
    async def netcheck(self) -> Report: ...


class MakeSock(Protocol):
    """:class:`Magicsock`'s constructor, or a fake's."""

    def __call__(
        self,
        *,
        engine: Engine,
        node_key: NodePrivate,
        disco_key: DiscoPrivate,
        listen_port: int,
        mark: int,
        on_endpoints: Callable[[tuple[Endpoint, ...]], None],
        on_net_info: Callable[[NetInfo], None],
        greet: Callable[[Node], None],
    ) -> Sock: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    node: NodePrivate
    disco: DiscoPrivate


@dataclass(frozen=True, slots=True)
class Ports:
    """WireGuard's UDP port: as ``asked`` for on the command line, else as ``kept`` from before; 0 = none.

    ``random``: neither of them, but another one each time (:func:`wants_random_port`).
    """

    asked: int = 0
    kept: int = 0
    random: bool = False


class Tunnel:
    """``engine`` makes the interface; the rest is made around it."""

    def __init__(
        self,
        *,
        engine: Engine,
        on_endpoints: Callable[[tuple[Endpoint, ...]], None],
        on_net_info: Callable[[NetInfo], None],
        make_sock: MakeSock = Magicsock,
        firewall: Firewall | None = None,
        router: Router | None = None,
        traffic: Traffic | None = None,
        hold: Hold | None = None,
        flows: FlowTable | None = None,
    ) -> None:
        self.engine = engine
        self.sock: Sock | None = None
        self.listen_port = 0
        self.flows = flows or FlowTable(engine.interface)
        self._make_sock = make_sock
        self._firewall = firewall or Firewall(engine.interface)
        self._router = router or Router(engine.interface)
        self._traffic = traffic or Traffic(engine.interface)
        self._hold = hold or Hold(engine.interface)
        self._on_endpoints = on_endpoints
        self._on_net_info = on_net_info
        self._netmap: NetMap | None = None
        self._shields_up = False
        self._gateway = NO_GATEWAY
        self._node_key: NodePrivate | None = None

    @property
    def is_up(self) -> bool:
        return self.sock is not None

    @property
    def netmap(self) -> NetMap | None:
        """What is followed, reduced by :func:`client.routing.in_use`; ``None`` while it is down."""
        return self._netmap

    def live_paths(self) -> dict[int, PathStatus]:
        """The paths of those peers that this node talks to now."""
        return self.sock.live_paths() if self.sock is not None else {}

    def all_paths(self) -> dict[int, PathStatus]:
        """The paths of all peers; one that has just left may be missing."""
        found: dict[int, PathStatus] = {}
        if self.sock is not None and self._netmap is not None:
            for node_id in self._netmap.peers:
                with contextlib.suppress(PeerNotFound):
                    found[node_id] = self.sock.path_status(node_id)
        return found

    @property
    def is_userspace(self) -> bool:
        """Whether this host's programs see no interface of it."""
        return self.engine.name == USERSPACE

    async def is_alive(self) -> bool:
        """Whether WireGuard answers: its process may have died, its interface have been removed."""
        try:
            await self.engine.status()
        except EngineError:
            return False
        return True

    @property
    def troubles(self) -> list[str]:
        """What is wrong without being a reason to be down, in sentences."""
        portal = self.sock is not None and self.sock.behind_portal
        return [*self._traffic.troubles, *([PORTAL] if portal else [])]

    async def up(self, netmap: NetMap, keys: Keys, *, ports: Ports, prefs: Prefs) -> None:
        """Bring everything up under ``netmap``, its peers' prefixes reduced by :func:`client.routing.in_use`.

        Raises ``ClientError``, with nothing left behind but the kill switch of an exit node that is wanted.
        """
        try:
            await self._filter(netmap, prefs)
            await self.release()  # what a daemon that was killed held
            await self._count_nothing()
            await self._traffic.guard(prefs)
            taken_over = await self.engine.start()
            await self._set_key(keys.node, ports, taken_over=taken_over)
            await self._router.apply(layout(netmap))
            await self._traffic.follow(netmap, prefs, self.listen_port)
            sock = self._make_sock(
                engine=self.engine,
                node_key=keys.node,
                disco_key=keys.disco,
                listen_port=self.listen_port,
                mark=MARK,
                on_endpoints=self._on_endpoints,
                on_net_info=self._on_net_info,
                greet=lambda peer: self._poke([peer]),
            )
            await sock.start()
            self.sock = sock
            await sock.set_netmap(netmap)
            self._netmap, self._node_key = netmap, keys.node
        except BaseException:
            await self.down(keep=False, guarding=prefs)
            raise
        logger.info("%s is up (%s, UDP port %d)", self.engine.interface, self.engine.name, self.listen_port)

    async def apply(self, netmap: NetMap, node_key: NodePrivate, *, prefs: Prefs) -> None:
        """Follow a newer netmap or key: the filter closes before peers appear, routes come after them."""
        before, sock = self._netmap, self.sock
        if sock is None:
            return
        if node_key != self._node_key:
            await self._change_key(sock, node_key)
        await self._filter(netmap, prefs)
        await self._traffic.follow(netmap, prefs, self.listen_port)
        if netmap is before:
            return
        await sock.set_netmap(netmap)
        if before is None or not same_layout(before, netmap):
            await self._router.apply(layout(netmap))
        self._netmap = netmap
        self._poke(rekeyed_peers(before, netmap))

    async def open_doors(self, doors: frozenset[Door]) -> None:
        """Let every peer reach these ports of ours; raises ``SetupError``."""
        if doors != self._firewall.doors:
            self._firewall.doors = doors
            if self._netmap is not None:
                await self._firewall.apply(self._netmap, shields_up=self._shields_up, gateway=self._gateway)

    async def keep_filter(self, lost: str) -> None:
        """A table of this host's, by name ("": any), is gone; ours is put back. Raises ``SetupError``."""
        if lost in ("", TABLE["name"]) and await self._firewall.restore():
            logger.warning("another program of this host removed the tunnel's filter; it is back")

    async def _filter(self, netmap: NetMap, prefs: Prefs) -> None:
        """The filter for this node, and for what it serves."""
        self._gateway = await self._traffic.gateway(netmap, prefs)
        await self._firewall.apply(netmap, shields_up=prefs.shields_up, gateway=self._gateway)
        self._shields_up = prefs.shields_up

    def link_changed(self) -> None:
        """The host's network changed: paths and routes are looked at anew."""
        self._traffic.link_changed()
        if self.sock is not None:
            self.sock.link_changed()

    async def _change_key(self, sock: Sock, key: NodePrivate) -> None:
        """The server, and by now the peers, know our new key: use it, and shake hands with everybody anew."""
        # A peer that learns of the new key later than our handshake drops it, and the next is 5 s away.
        await asyncio.sleep(ROTATION_PAUSE_SECONDS)
        await self.engine.set_key(key, listen_port=self.listen_port, fwmark=MARK)
        await sock.set_node_key(key)
        self._node_key = key
        status = await self.engine.status()
        talking = {key for key, peer in status.peers.items() if peer.last_handshake}
        peers = self._netmap.peers.values() if self._netmap else ()
        self._poke(peer for peer in peers if peer.key in talking)

    def _poke(self, peers: Iterable[Node]) -> None:
        with contextlib.ExitStack() as stack:
            sockets = {}
            for version, family in own_versions(self._netmap).items() if self._netmap else ():
                with contextlib.suppress(OSError):  # a host without that version
                    sockets[version] = stack.enter_context(
                        socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
                    )
            poke(sockets, peers)

    async def hold(self, seconds: float) -> None:
        """Nothing passes for so long, unless it is released before. Raises ``SetupError``."""
        if self.is_up:
            await self._hold.close(seconds)

    async def release(self) -> None:
        """Also when it is down by now. Raises ``SetupError``."""
        await self._hold.open()

    async def _count_nothing(self) -> None:
        """Whether flows are logged is seen once the tunnel is up."""
        with contextlib.suppress(ClientError):
            await self.flows.close()

    async def guard(self, prefs: Prefs | None) -> None:
        """While there is no tunnel: block what an exit node is wanted for; ``None``: let everything out."""
        if self.sock is None:
            await self._traffic.close(prefs)

    async def down(self, *, keep: bool, guarding: Prefs | None = None) -> None:
        """``keep``: let go of a tunnel that lives on. Else remove all that :meth:`up` made.

        ``guarding``: but what these preferences want an exit node for stays blocked.
        """
        sock, self.sock, self._netmap = self.sock, None, None
        if sock is not None:
            await sock.close()
        await self.engine.close(keep=keep)  # should it fail, the interface keeps its filter
        if not keep:
            with contextlib.suppress(SetupError):  # without nft there is nothing to remove
                await self._firewall.remove()
                await self.release()
                await self._count_nothing()
            await self._traffic.close(guarding)

    async def _set_key(self, key: NodePrivate, ports: Ports, *, taken_over: bool) -> None:
        running = (await self.engine.status()).listen_port if taken_over else 0
        self.listen_port = choose_port(ports, running)
        await self.engine.set_key(key, listen_port=self.listen_port, fwmark=MARK)


def rekeyed_peers(before: NetMap | None, after: NetMap) -> list[Node]:
    """Peers that have rotated their key between two netmaps. Pure."""
    old = before.peers if before is not None else {}
    return [peer for peer in after.peers.values() if peer.id in old and old[peer.id].key != peer.key]


def poke(sockets: Mapping[int, socket.socket], peers: Iterable[Node]) -> None:
    """Send each peer a byte through the tunnel: WireGuard shakes hands now, not when traffic comes.

    Whichever side changed last must speak first: after a rotation only its handshake finds the other ready,
    and after a restart it alone knows that the session is no more. ``sockets``: for datagrams, by IP version.
    """
    for peer in peers:
        usable = [address for address in tailnet_addresses(peer.addresses) if address.version in sockets]
        for address in sorted(usable, key=lambda address: address.version)[:1]:
            with contextlib.suppress(OSError):
                sockets[address.version].sendto(b"\0", (str(address), DISCARD_PORT))


def own_versions(netmap: NetMap) -> dict[int, int]:
    """The socket families of the addresses that this node has, by IP version."""
    versions = {address.version for address in tailnet_addresses(netmap.node.addresses)}
    return {version: family for version, family in FAMILIES.items() if version in versions}


def wants_random_port(netmap: NetMap) -> bool:
    """Whether the policy has this node use a random port: some firewalls confuse hosts with the same one."""
    return RANDOM_PORT in netmap.node.cap_map


def choose_port(ports: Ports, running: int) -> int:
    """The port asked for, or that of a ``running`` WireGuard, or the kept one while it is free, or any.

    Raises ``SetupError``.
    """
    if ports.random:
        return running if running and running not in (ports.asked, ports.kept) else free_port()
    if ports.asked:
        if ports.asked != running:
            require_free_port(ports.asked)
        return ports.asked
    if running:
        return running
    return ports.kept if ports.kept and _is_free(ports.kept) else free_port()


def _is_free(port: int) -> bool:
    try:
        require_free_port(port)
    except SetupError:
        return False
    return True


def free_port() -> int:
    """A random port, so that nodes behind one NAT differ; raises ``SetupError``."""
    for _ in range(PORT_TRIES):
        port = random.randint(*RANDOM_PORTS)  # noqa: S311 - not a secret
        if _is_free(port):
            return port
    raise SetupError("no UDP port is free for WireGuard: give one with trenzad --port")
