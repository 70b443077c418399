"""The sockets of the resolver: UDP and TCP on port 53 of the service addresses, for this host alone.

What comes to those addresses from elsewhere is dropped by :mod:`client.net.firewall`. RFC 7766 for TCP.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterable
from typing import cast

from client.dns.answers import HEADER, MAX_TCP, MAX_UDP, fit_udp
from client.dns.names import PORT
from client.dns.resolver import Resolver
from client.errors import SetupError

logger = logging.getLogger("trenzad.dns")

MAX_TASKS = 256  # datagrams being answered; more are dropped, and asked again
MAX_CONNECTIONS = 64
IDLE_SECONDS = 10.0


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, resolver: Resolver, tasks: set[asyncio.Task[None]]) -> None:
        self._resolver, self._tasks = resolver, tasks
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(data) <= MAX_UDP and len(self._tasks) < MAX_TASKS:
            task = asyncio.create_task(self._answer(data, addr))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = await self._resolver.answer(data)
        if answer is not None and self._transport is not None and not self._transport.is_closing():
            wire = answer.wire if answer.question is None else fit_udp(answer.question, answer.wire)
            self._transport.sendto(wire, addr)


class DnsServer:
    """Serves ``resolver`` on each address once :meth:`start` has returned."""

    def __init__(self, resolver: Resolver, *, port: int = PORT) -> None:
        self._resolver, self.port = resolver, port
        self._transports: list[asyncio.DatagramTransport] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def is_serving(self) -> bool:
        return bool(self._servers)

    async def start(self, addresses: Iterable[str]) -> None:
        """Raises :class:`SetupError`, with nothing left open."""
        try:
            for address in addresses:
                await self._listen(address)
        except OSError as error:
            await self.close()
            why = (
                "another program has it" if error.errno == errno.EADDRINUSE else error.strerror or str(error)
            )
            raise SetupError(
                f"names of the tailnet are not answered: port {self.port} of {address} cannot be used "
                f"({why}): let your own DNS server listen on its own addresses only"
            ) from error

    async def _listen(self, address: str) -> None:
        loop = asyncio.get_running_loop()
        datagrams = self._socket(address, socket.SOCK_DGRAM)
        transport, _ = await loop.create_datagram_endpoint(
            lambda: _Datagrams(self._resolver, self._tasks), sock=datagrams
        )
        self._transports.append(transport)
        stream = self._socket(address, socket.SOCK_STREAM)
        self._servers.append(await asyncio.start_server(self._serve, sock=stream, limit=MAX_TCP + 2))

    def _socket(self, address: str, kind: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            if kind == socket.SOCK_STREAM:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, self.port))
        except BaseException:
            sock.close()
            raise
        return sock

    async def close(self) -> None:
        for transport in self._transports:
            transport.close()
        for server in self._servers:
            server.close()
        tasks = [*self._tasks, *self._connections]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._transports.clear()
        self._servers.clear()
        await asyncio.sleep(0)  # transports close their sockets in the next round

    # --- TCP ---------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or len(self._connections) >= MAX_CONNECTIONS:
            writer.close()
            return
        self._connections.add(task)
        try:
            while await self._answer_next(reader, writer):
                pass
        except (OSError, EOFError):  # an incomplete read is an EOFError, a timeout an OSError
            pass
        finally:
            self._connections.discard(task)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer_next(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(IDLE_SECONDS):
            length = int.from_bytes(await reader.readexactly(2))
            if length < HEADER:
                return False
            data = await reader.readexactly(length)
        answer = await self._resolver.answer(data)
        if answer is None:
            return False
        async with asyncio.timeout(IDLE_SECONDS):
            writer.write(len(answer.wire).to_bytes(2) + answer.wire)
            await writer.drain()
        return True
