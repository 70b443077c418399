"""The proxies' listeners. One address may serve both kinds: the first byte tells them apart."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from client.errors import SetupError
from client.proxy import socks, web
from client.proxy.associate import Associations
from client.proxy.dialer import Dialer
from client.proxy.splice import BUFFER_BYTES, Streams

logger = logging.getLogger("trenzad.proxy")

MAX_CONNECTIONS = 512
GREETING_SECONDS = 15.0
ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\]|[^:\[\]]+):(?P<port>\d{1,5})")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where to listen, on loopback; a name resolves to IPv4 alone."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, option: str) -> Self:
        """``localhost:1055``, ``127.0.0.1:1055``, ``[::1]:1055``; raises :class:`SetupError`."""
        found = ADDRESS.fullmatch(text)
        host = found["host"].strip("[]").lower() if found else ""
        port = int(found["port"]) if found else 0
        if not 0 < port <= 65535:
            raise SetupError(f"{option} {text!r} is no address to listen on: it looks like localhost:1055")
        if host == "localhost":
            return cls("127.0.0.1", port)
        if not _is_loopback(host):
            raise SetupError(
                f"{option} {text}: a proxy into the tailnet listens on loopback only; say localhost:{port}"
            )
        return cls(host, port)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class ProxyServer:
    """Serves on one address; ``serves_socks`` and ``serves_web`` say what."""

    def __init__(self, listen: Listen, dialer: Dialer, *, serves_socks: bool, serves_web: bool) -> None:
        self.listen = listen
        self._dialer = dialer
        self._associations = Associations(dialer)
        self._socks, self._web = serves_socks, serves_web
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Raises :class:`SetupError`."""
        host, port = self.listen.host, self.listen.port
        try:
            self._server = await asyncio.start_server(self._accept, host, port, limit=BUFFER_BYTES)
        except OSError as error:
            raise SetupError(
                f"cannot listen on {host} port {port} for the proxy: {error.strerror}; give another port"
            ) from error
        kinds = " and ".join(name for name, on in (("SOCKS5", self._socks), ("HTTP", self._web)) if on)
        logger.info("%s proxy on %s port %d", kinds, host, port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.create_task(self._converse(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        task.add_done_callback(lambda _: writer.close())  # also when it was cancelled before it began

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                await self._serve((reader, writer))
        except Exception:  # the edge of a connection: a bug in it must not touch others
            logger.exception("the proxy failed")

    async def _serve(self, client: Streams) -> None:
        async with asyncio.timeout(GREETING_SECONDS):
            first = await client[0].readexactly(1)
        if self._socks and first[0] == socks.VERSION:
            await socks.serve(client, self._dialer, self._associations, GREETING_SECONDS)
        elif self._web and first.isalpha():
            await web.serve(client, first, self._dialer, GREETING_SECONDS)


def make_proxies(socks_on: Listen | None, web_on: Listen | None, dialer: Dialer) -> Sequence[ProxyServer]:
    """One server an address."""
    places = dict.fromkeys(place for place in (socks_on, web_on) if place is not None)
    return [
        ProxyServer(place, dialer, serves_socks=place == socks_on, serves_web=place == web_on)
        for place in places
    ]
