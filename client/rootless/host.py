"""Everything of a daemon without root, put together: one namespace and what is in it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import json
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from client.dns.sockets import open_here
from client.engine.host import require_free_port
from client.engine.rootless import RootlessEngine, require_userspace
from client.errors import ClientError, SetupError
from client.flows.table import FlowTable
from client.magicsock.endpoints import Endpoint
from client.magicsock.sock import Magicsock
from client.net.firewall import Firewall
from client.net.hold import Hold
from client.net.nft import find_nft, refused
from client.net.router import Router
from client.prefixes import EXIT_ROUTES, IPAddress
from client.prefs import Prefs
from client.proxy.splice import BUFFER_BYTES
from client.rootless.inbound import Inbound
from client.rootless.namespace import Namespace
from client.rootless.ways import Ways
from client.tunnel import Keys, Ports, Tunnel, own_versions, poke
from wire.control import NetInfo
from wire.netmap import NetMap, Node

logger = logging.getLogger("trenzad.rootless")

RTPROT_BOOT = 3  # not what the router reconciles (static)
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RootlessHost:
    """``interface`` is the tunnel's name inside. ``closed`` are ports of loopback that no peer may reach."""

    def __init__(self, interface: str, closed: Iterable[int] = ()) -> None:
        self.namespace = Namespace()
        self.engine = RootlessEngine(interface, self.namespace)
        self.ways = Ways(interface)
        self._closed = frozenset(closed)

    async def prepare(self, port: int) -> None:
        """Raises ``SetupError`` for what the host lacks or forbids, before anything is changed."""
        require_userspace()
        find_nft()
        require_free_port(port)
        await self.namespace.open()

    def make_tunnel(
        self,
        on_endpoints: Callable[[tuple[Endpoint, ...]], None],
        on_net_info: Callable[[NetInfo], None],
    ) -> RootlessTunnel:
        return RootlessTunnel(self, self._closed, on_endpoints, on_net_info)

    # --- for the proxies ---------------------------------------------------------------------------------

    def leads_to(self, address: IPAddress) -> bool:
        return self.ways.leads_to(address)

    def is_own(self, address: IPAddress) -> bool:
        return self.ways.is_own(address)

    async def open_socket(self, family: int, kind: int) -> socket.socket:
        """A socket of the tunnel's network; raises ``OSError`` while there is none, and ``ClientError``.

        One for datagrams is bound to this node's address: what comes to one without is led to 127.0.0.1.
        """
        if not self.namespace.is_open:
            raise OSError(errno.ENETUNREACH, "the tunnel is down")
        sock = await self.namespace.open_socket(family, kind)
        if kind == socket.SOCK_DGRAM:
            try:
                sock.bind((self.ways.own(4 if family == socket.AF_INET else 6), 0))
            except OSError:
                sock.close()
                raise
        return sock

    async def open_for_dns(self, address: str, kind: int, /, *, marked: bool) -> socket.socket:
        """The way by which a resolver is asked: as for everything else, but for those ``marked``."""
        if marked or not self.leads_to(ipaddress.ip_address(address)):
            return await open_here(address, kind, marked=marked)
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            return await self.open_socket(family, kind)
        except ClientError as error:
            raise OSError(str(error)) from error

    # --- for what serves peers ---------------------------------------------------------------------------

    async def listen(self, accept: Accept, address: str, port: int) -> asyncio.Server:
        """As ``asyncio.start_server``, on an address of the tunnel. Raises ``OSError``."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = await self.open_socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))
            return await asyncio.start_server(accept, sock=sock, limit=BUFFER_BYTES)
        except BaseException:
            sock.close()
            raise


class RootlessTunnel(Tunnel):
    """A tunnel whose filter, addresses and routes are in the namespace; peers are let in to loopback."""

    def __init__(
        self,
        host: RootlessHost,
        closed: frozenset[int],
        on_endpoints: Callable[[tuple[Endpoint, ...]], None],
        on_net_info: Callable[[NetInfo], None],
    ) -> None:
        engine, namespace = host.engine, host.namespace
        super().__init__(
            engine=engine,
            on_endpoints=on_endpoints,
            on_net_info=on_net_info,
            make_sock=partial(Magicsock, make_ports=engine.make_ports),
            firewall=_Firewall(engine.interface, namespace),
            hold=Hold(engine.interface, load=partial(_load, namespace)),
            flows=FlowTable(engine.interface, call=partial(_call, namespace)),
            router=Router(engine.interface, netlink=namespace.netlink),
            traffic=host.ways,
        )
        self._engine = engine
        self._namespace = namespace
        self._inbound = Inbound(
            namespace, engine.interface, lambda port: port in closed or port == self.listen_port
        )
        self._pokers: dict[int, socket.socket] = {}

    async def up(self, netmap: NetMap, keys: Keys, *, ports: Ports, prefs: Prefs) -> None:
        talking = self._engine.talking
        await super().up(netmap, keys, ports=ports, prefs=prefs)
        try:
            await self._lead_out()
            for version, family in own_versions(netmap).items():
                self._pokers[version] = await self._namespace.open_socket(family, socket.SOCK_DGRAM)
            await self._inbound.start()
            # A WireGuard that died knew sessions which its successor does not: others learn of it now.
            self._poke([peer for peer in netmap.peers.values() if peer.key in talking])
        except BaseException as error:
            await self.down(keep=False, guarding=prefs)
            if isinstance(error, OSError | NetlinkError):
                raise SetupError(f"cannot set up the user namespace: {error}") from error
            raise

    async def down(self, *, keep: bool, guarding: Prefs | None = None) -> None:
        await self._inbound.close()
        for poker in self._pokers.values():
            poker.close()
        self._pokers.clear()
        await super().down(keep=keep, guarding=guarding)

    async def release(self) -> None:
        if self._namespace.is_open:
            await super().release()

    def _poke(self, peers: Iterable[Node]) -> None:
        poke(self._pokers, peers)

    async def _lead_out(self) -> None:
        """Everything goes into the tunnel: there is no other way out of the namespace."""
        async with self._namespace.netlink() as netlink:
            index = (await netlink.link_lookup(ifname=self.engine.interface))[0]
            for default in EXIT_ROUTES:
                await netlink.route("replace", dst=str(default), oif=index, proto=RTPROT_BOOT)


class _Firewall(Firewall):
    """The filter in the namespace; it goes with that."""

    def __init__(self, interface: str, namespace: Namespace) -> None:
        super().__init__(interface, load=partial(_load, namespace))
        self._namespace = namespace

    async def remove(self) -> None:
        self._applied = None
        if self._namespace.is_open:
            with contextlib.suppress(ClientError):
                await super().remove()


async def _load(namespace: Namespace, content: Mapping[str, Any]) -> None:
    """Put nftables in force in the namespace; raises ``ClientError``."""
    status, said = await namespace.run(find_nft(), "-j", "-f", "-", stdin=json.dumps(content).encode())
    if status:
        raise refused(said)


async def _call(namespace: Namespace, words: Sequence[str], stdin: bytes) -> bytes:
    """What nft prints in the namespace; nothing while there is none. Raises ``ClientError``."""
    if not namespace.is_open:
        return b""
    status, said, output = await namespace.read(find_nft(), *words, stdin=stdin)
    if status:
        raise refused(said)
    return output
