"""A proxy and an origin server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from client.prefixes import IPAddress
from client.proxy.dialer import Dialer
from client.proxy.server import Listen, ProxyServer
from client.proxy.splice import Streams
from tests.client.fakes import netmap, node
from wire.netmap import DNSConfig, NetMap

SECONDS = 20.0
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PEER = ipaddress.ip_address("100.64.0.2")


class Elsewhere:
    """A tunnel in which the one peer is this host's loopback."""

    def __init__(self) -> None:
        self.opened = 0

    def leads_to(self, address: IPAddress, /) -> bool:
        return address == PEER

    def is_own(self, address: IPAddress, /) -> bool:
        return False

    async def open_socket(self, family: int, kind: int, /) -> socket.socket:
        self.opened += 1
        return _ToLoopback(family, kind)


class _ToLoopback(socket.socket):
    """Whatever it sends to is 127.0.0.1, and what comes is the peer's."""

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self.setblocking(False)

    def connect(self, address: tuple[str, int]) -> None:  # type: ignore[override]
        super().connect(("127.0.0.1", address[1]))

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:  # type: ignore[override]
        return super().sendto(data, ("127.0.0.1", address[1]))

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int]]:  # type: ignore[override]
        data, (_, port) = super().recvfrom(size)
        return data, (str(PEER), port)


def tailnet() -> NetMap:
    """This node, and a peer named ben."""
    own = node(1, name="ada.tail.example.")
    dns = DNSConfig(proxied=True, domains=("tail.example",))
    return netmap(node(2, name="ben.tail.example."), own=own, dns_config=dns)


@contextlib.asynccontextmanager
async def origin(serve: Serve) -> AsyncIterator[int]:
    """A server on loopback; gives its port."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


@contextlib.asynccontextmanager
async def proxy(
    tunnel: Elsewhere | None = None, *, socks: bool = True, web: bool = True
) -> AsyncIterator[int]:
    """A proxy on loopback; gives its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shown = tailnet()
    dialer = Dialer(lambda: shown, tunnel)
    server = ProxyServer(Listen("127.0.0.1", port), dialer, serves_socks=socks, serves_web=web)
    await server.start()
    try:
        async with asyncio.timeout(SECONDS):
            yield port
    finally:
        await server.close()


@contextlib.asynccontextmanager
async def client(port: int) -> AsyncIterator[Streams]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Send back what comes, then end."""
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()
