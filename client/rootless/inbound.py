"""What peers send to this node's tailnet addresses, brought to the same port of this host's 127.0.0.1.

A rule of the namespace's nftables hands every connection to one listener that keeps its destination (TPROXY),
so the filter before it still judges by the real port. What listens in the namespace itself comes first.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

from client.errors import ClientError, SetupError
from client.net.nft import find_nft
from client.proxy.splice import BUFFER_BYTES, Streams, reset, splice
from client.rootless.datagrams import Datagrams
from client.rootless.namespace import Namespace
from client.rootless.sockets import LOOPBACK, transparent

logger = logging.getLogger("trenzad.inbound")

MAX_CONNECTIONS = 1024
BACKLOG = 128
DIAL_SECONDS = 10.0
FAMILIES = {"ipv4": socket.AF_INET, "ipv6": socket.AF_INET6}
RULES = """
table inet trenza_inbound {{
  chain catch {{
    type filter hook prerouting priority mangle; policy accept;
    iifname != "{interface}" return
    meta l4proto {{ tcp, udp }} socket wildcard 0 return
    {catches}
  }}
}}
"""
CATCH = "meta nfproto {family} meta l4proto {protocol} tproxy {ip} to :{port}"


class Inbound:
    """``is_closed`` names ports of 127.0.0.1 that no peer may reach: this daemon's own."""

    def __init__(self, namespace: Namespace, interface: str, is_closed: Callable[[int], bool]) -> None:
        self._namespace = namespace
        self._interface = interface
        self._is_closed = is_closed
        self._servers: list[asyncio.Server] = []
        self._datagrams: list[Datagrams] = []
        self._open: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Listen in the namespace; raises ``ClientError``, ``OSError``."""
        catches = []
        for name, family in FAMILIES.items():
            tcp, udp = await self._listen(family), await self._receive(family)
            for protocol, port in (("tcp", tcp), ("udp", udp)):
                ip = "ip" if family == socket.AF_INET else "ip6"
                catches.append(CATCH.format(family=name, protocol=protocol, ip=ip, port=port))
        rules = RULES.format(interface=self._interface, catches="\n    ".join(catches))
        status, said = await self._namespace.run(find_nft(), "-f", "-", stdin=rules.encode())
        if status:
            first = said.partition("\n")[0]
            raise SetupError(f"nft refuses to forward what comes in ({first}): the kernel needs nft_tproxy")

    async def close(self) -> None:
        for server in self._servers:
            server.close()
        for datagrams in self._datagrams:
            datagrams.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        self._servers.clear()
        self._datagrams.clear()

    async def _listen(self, family: socket.AddressFamily) -> int:
        sock = transparent(await self._namespace.open_socket(family, socket.SOCK_STREAM))
        sock.bind(("", 0))
        server = await asyncio.start_server(self._accept, sock=sock, limit=BUFFER_BYTES, backlog=BACKLOG)
        self._servers.append(server)
        return int(sock.getsockname()[1])

    async def _receive(self, family: socket.AddressFamily) -> int:
        sock = transparent(await self._namespace.open_socket(family, socket.SOCK_DGRAM))
        sock.bind(("", 0))
        self._datagrams.append(Datagrams(sock, self._namespace, self._is_closed))
        return int(sock.getsockname()[1])

    # --- connections -------------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = int(writer.get_extra_info("sockname")[1])
        if len(self._open) >= MAX_CONNECTIONS or self._is_closed(port):
            reset(writer)
            return
        task = asyncio.create_task(self._lead_in(reader, writer, port))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: writer.close())  # also when it was cancelled before it began

    async def _lead_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        try:
            await self._forward((reader, writer), port)
        except (OSError, TimeoutError, ClientError):
            reset(writer)
        except Exception:  # the edge of a connection: a bug in it must not touch others
            logger.exception("a connection could not be forwarded")
            reset(writer)

    async def _forward(self, peer: Streams, port: int) -> None:
        async with asyncio.timeout(DIAL_SECONDS):
            local = await asyncio.open_connection(LOOPBACK, port, limit=BUFFER_BYTES)
        await splice(peer, local)
