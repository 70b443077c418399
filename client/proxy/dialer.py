"""Connections that proxies open: by the tailnet's names where it has them, through the tunnel if it leads."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from client.dns.config import Config, make_config
from client.dns.names import normal
from client.errors import ClientError
from client.prefixes import IPAddress
from client.proxy.splice import BUFFER_BYTES, Streams
from wire.netmap import NetMap

DIAL_SECONDS = 15.0
ADDRESS_SECONDS = 7.0  # for one of several addresses
MAX_ADDRESSES = 8
LOOPBACK = ipaddress.ip_address("127.0.0.1")
LOCALHOST = "localhost"  # with all below it, this host everywhere (RFC 6761 §6.3): nobody is asked

LookUp = Callable[[str], Awaitable[list[IPAddress]]]


class Unresolved(ClientError):
    """No address is known under a name."""

    code = "unresolved"


@dataclass(frozen=True, slots=True)
class Way:
    """Where to send to reach an address: by the tunnel's network, or by this host's."""

    target: IPAddress
    by_tunnel: bool = False


class Elsewhere(Protocol):
    """A network beside the host's own, in which some addresses are."""

    def leads_to(self, address: IPAddress, /) -> bool: ...
    def is_own(self, address: IPAddress, /) -> bool: ...
    async def open_socket(self, family: int, kind: int, /) -> socket.socket: ...


async def ask_host(host: str) -> list[IPAddress]:
    """What this host's own resolver says; raises :class:`Unresolved`."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise Unresolved(f"no address is known for {host[:80]!r}") from error
    texts = dict.fromkeys(str(entry[4][0]) for entry in found)
    return [ipaddress.ip_address(text.partition("%")[0]) for text in texts]


class Dialer:
    """``netmap`` gives the newest one. ``tunnel`` ``None`` = the host's own routes lead into it.

    ``look_up`` finds the names that are not the tailnet's.
    """

    def __init__(
        self,
        netmap: Callable[[], NetMap | None],
        tunnel: Elsewhere | None = None,
        look_up: LookUp = ask_host,
    ) -> None:
        self._netmap = netmap
        self._tunnel = tunnel
        self._look_up = look_up
        self._names: tuple[NetMap, Config] | None = None

    async def dial(self, host: str, port: int) -> Streams:
        """The first address that answers. Raises ``OSError``, ``TimeoutError``, ``ClientError``."""
        async with asyncio.timeout(DIAL_SECONDS):
            addresses = await self.resolve(host)
            for address in addresses[:-1]:
                try:
                    async with asyncio.timeout(ADDRESS_SECONDS):
                        return await self._connect(address, port)
                except (OSError, TimeoutError):
                    continue
            return await self._connect(addresses[-1], port)

    async def resolve(self, host: str) -> list[IPAddress]:
        """At least one address; raises :class:`Unresolved`. The tailnet's names come before all others."""
        try:
            return [ipaddress.ip_address(host)]
        except ValueError:
            known = self._known(host)
        return (known or await self._look_up(host))[:MAX_ADDRESSES]

    def _known(self, host: str) -> list[IPAddress]:
        netmap, name = self._netmap(), normal(host)
        if name and (name == LOCALHOST or name.endswith(f".{LOCALHOST}")):
            return [LOOPBACK]
        if netmap is None or not name:
            return []
        if self._names is None or self._names[0] is not netmap:
            self._names = netmap, make_config(netmap)
        config = self._names[1]
        candidates = [name, *(f"{name}.{domain}" for domain in config.search if "." not in name)]
        found = next((config.hosts[one] for one in candidates if one in config.hosts), ())
        return list(found)

    def way(self, address: IPAddress) -> Way:
        """How an address is reached now."""
        if self._tunnel is None:
            return Way(address)
        if self._tunnel.is_own(address):
            return Way(LOOPBACK)  # where peers are led, too
        return Way(address, by_tunnel=self._tunnel.leads_to(address))

    async def open_socket(self, way: Way, kind: int) -> socket.socket:
        """A non-blocking one for that way. Raises ``OSError``, ``ClientError``."""
        family = socket.AF_INET if way.target.version == 4 else socket.AF_INET6
        if self._tunnel is not None and way.by_tunnel:
            return await self._tunnel.open_socket(family, kind)
        sock = socket.socket(family, kind)
        sock.setblocking(False)
        return sock

    async def _connect(self, address: IPAddress, port: int) -> Streams:
        way = self.way(address)
        sock = await self.open_socket(way, socket.SOCK_STREAM)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (str(way.target), port))
            return await asyncio.open_connection(sock=sock, limit=BUFFER_BYTES)
        except BaseException:
            sock.close()
            raise
