"""DNS over HTTPS (RFC 8484), and over plain HTTP to a peer inside the tunnel: a connection kept per resolver.

HTTP/2 where the server speaks it, else HTTP/1.1. A host name of a resolver is looked up in its bootstrap
addresses, in a small table of public resolvers, or by ``lookup``, never through the resolver itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import ipaddress
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlsplit

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.exceptions import H2Error

from client.control.dial import parse_response
from client.dns.answers import HEADER, MAX_TCP
from client.dns.config import Upstream
from client.dns.sockets import OpenSocket, open_here

CONNECT_SECONDS = 4.0
IDLE_SECONDS = 30.0
MAX_CONNECTIONS = 16
MAX_STREAMS = 64  # servers allow 100 and more
MAX_HEAD_BYTES = 16 * 1024
MAX_ANSWER_BYTES = MAX_TCP + MAX_HEAD_BYTES
READ_BYTES = 64 * 1024
MEDIA_TYPE = "application/dns-message"
# The addresses of public resolvers as they publish them: nobody has to be asked for those.
PUBLIC = {
    "dns.google": ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888"),
    "cloudflare-dns.com": ("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111"),
    "dns.quad9.net": ("9.9.9.9", "149.112.112.112", "2620:fe::fe"),
    "dns.nextdns.io": ("45.90.28.0", "45.90.30.0", "2a07:a8c0::"),
    "dns.adguard-dns.com": ("94.140.14.14", "94.140.15.15", "2a10:50c0::ad1:ff"),
    "dns.mullvad.net": ("194.242.2.2", "2a07:e340::2"),
}
Lookup = Callable[[str], Awaitable[list[str]]]


class DohError(OSError):
    """The server does not answer as a DoH server does."""


async def _no_lookup(host: str) -> list[str]:
    return []


class _Connection(Protocol):
    """An open HTTP connection to one resolver."""

    @property
    def ended(self) -> bool: ...

    @property
    def busy(self) -> bool: ...

    async def post(self, host: str, path: str, body: bytes) -> bytes: ...

    def close(self) -> None: ...


class DohClient:
    """Asks by HTTP. ``lookup`` gives the addresses of a host that nothing else knows."""

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        lookup: Lookup = _no_lookup,
        open_socket: OpenSocket = open_here,
    ) -> None:
        self.lookup = lookup
        self._open_socket = open_socket
        self._tls = tls
        self._kept: dict[Upstream, _Connection] = {}
        self._dialling: dict[Upstream, asyncio.Lock] = {}
        self._timers: dict[Upstream, asyncio.TimerHandle] = {}

    async def ask(self, upstream: Upstream, query: bytes) -> bytes:
        """One answer; raises ``OSError``. A kept connection that has died is replaced once."""
        parts = urlsplit(upstream.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        for _ in range(2):
            connection, fresh = await self._connection(upstream)
            try:
                answer = await connection.post(parts.netloc, path, query)
                break
            except (OSError, H2Error, http.client.HTTPException, EOFError) as error:
                self._drop(upstream, connection)
                if fresh:
                    raise DohError(f"{upstream}: {error or type(error).__name__}") from error
            except BaseException:
                if not isinstance(connection, _Http2):  # its answer would be the next one's
                    self._drop(upstream, connection)
                raise
        else:
            raise DohError(f"{upstream}: the connection breaks")
        if not HEADER <= len(answer) <= MAX_TCP:
            raise DohError(f"{upstream}: answers with {len(answer)} bytes")
        self._rest(upstream, connection)
        return answer

    async def close(self) -> None:
        for upstream, connection in list(self._kept.items()):
            self._drop(upstream, connection)
        await asyncio.sleep(0)

    # --- connections -------------------------------------------------------------------------------------

    async def _connection(self, upstream: Upstream) -> tuple[_Connection, bool]:
        """A connection to ask on, and whether it is new; while one is being opened, others wait for it."""
        async with self._dialling.setdefault(upstream, asyncio.Lock()):
            kept = self._kept.get(upstream)
            if kept is None or kept.ended:
                if kept is not None:
                    self._drop(upstream, kept)
                kept = await self._open(upstream)
                self._keep(upstream, kept)
                return kept, True
        # HTTP/1.1 answers one question at a time: the others get connections of their own.
        return (await self._open(upstream), True) if kept.busy else (kept, False)

    def _keep(self, upstream: Upstream, connection: _Connection) -> None:
        if upstream not in self._kept and len(self._kept) >= MAX_CONNECTIONS:
            oldest = next(iter(self._kept))
            self._drop(oldest, self._kept[oldest])
            self._dialling.pop(oldest, None)
        self._kept[upstream] = connection

    def _rest(self, upstream: Upstream, connection: _Connection) -> None:
        """Close it when nobody asks for a while; one that is not kept is closed now."""
        if self._kept.get(upstream) is not connection:
            connection.close()
            return
        if (timer := self._timers.pop(upstream, None)) is not None:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[upstream] = loop.call_later(IDLE_SECONDS, self._drop, upstream, connection)

    def _drop(self, upstream: Upstream, connection: _Connection) -> None:
        connection.close()
        if self._kept.get(upstream) is connection:
            del self._kept[upstream]
            if (timer := self._timers.pop(upstream, None)) is not None:
                timer.cancel()

    async def _open(self, upstream: Upstream) -> _Connection:
        problem: OSError = DohError(f"{upstream.host}: nobody knows its address")
        for address in await self._addresses(upstream):
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    return await self._dial(upstream, address)
            except OSError as error:  # TimeoutError and ssl.SSLError too
                problem = error
        raise problem

    async def _addresses(self, upstream: Upstream) -> list[str]:
        with contextlib.suppress(ValueError):
            return [str(ipaddress.ip_address(upstream.host))]
        return list(upstream.bootstrap or PUBLIC.get(upstream.host, ())) or await self.lookup(upstream.host)

    async def _dial(self, upstream: Upstream, address: str) -> _Connection:
        sock = await self._open_socket(address, socket.SOCK_STREAM, marked=upstream.marked)
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().sock_connect(sock, (address, upstream.port))
            secure = upstream.url.startswith("https:")
            reader, writer = await asyncio.open_connection(
                sock=sock,
                ssl=self._context() if secure else None,
                server_hostname=upstream.host if secure else None,
            )
        except BaseException:
            sock.close()
            raise
        protocol = writer.get_extra_info("ssl_object")
        if protocol is not None and protocol.selected_alpn_protocol() == "h2":
            return _Http2(reader, writer)
        return _Http1(reader, writer)

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["h2", "http/1.1"])
        return self._tls


class _Http1:
    """One question at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.busy = False

    @property
    def ended(self) -> bool:
        return self._writer.is_closing() or self._reader.at_eof()

    def close(self) -> None:
        self._writer.close()

    async def post(self, host: str, path: str, body: bytes) -> bytes:
        self.busy = True
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {MEDIA_TYPE}\r\nAccept: {MEDIA_TYPE}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode("ascii", "ignore") + body)
        status, headers, answer = await self._response()
        if status != 200:
            raise DohError(f"HTTP {status}")
        if headers.get("connection", "").lower() == "close":
            self.close()
        self.busy = False
        return answer

    async def _response(self) -> tuple[int, dict[str, str], bytes]:
        """Read on until the response is whole; a body without a length would have no end."""
        data = b""
        while len(data) < MAX_ANSWER_BYTES:
            piece = await self._reader.read(READ_BYTES)
            if not piece:
                raise EOFError("the server hung up")
            data += piece
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end:
                continue
            if b"content-length:" not in head.lower() and b"chunked" not in head.lower():
                raise DohError("an answer without a length")
            with contextlib.suppress(http.client.IncompleteRead, ValueError):
                status, headers, body = parse_response(data)
                length = headers.get("content-length")
                if length is None or (length.isdecimal() and len(rest) >= int(length)):
                    return status, headers, body
        raise DohError("an answer without an end")


class _Http2:
    """Many questions at once, each a stream."""

    busy = False

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()
        self._flush()
        self._streams: dict[int, tuple[asyncio.Future[bytes], bytearray]] = {}
        self._room = asyncio.Semaphore(MAX_STREAMS)
        self._over = False
        self._task = asyncio.create_task(self._read())

    @property
    def ended(self) -> bool:
        return self._over or self._writer.is_closing()

    def close(self) -> None:
        self._over = True
        self._task.cancel()
        self._writer.close()

    async def post(self, host: str, path: str, body: bytes) -> bytes:
        async with self._room:
            if self.ended:
                raise EOFError("the server hung up")
            return await self._post(host, path, body)

    async def _post(self, host: str, path: str, body: bytes) -> bytes:
        stream = self._h2.get_next_available_stream_id()
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._streams[stream] = future, bytearray()
        try:
            headers = [
                (":method", "POST"),
                (":scheme", "https"),
                (":authority", host),
                (":path", path),
                ("content-type", MEDIA_TYPE),
                ("accept", MEDIA_TYPE),
                ("content-length", str(len(body))),
            ]
            self._h2.send_headers(stream, headers)
            self._h2.send_data(stream, body, end_stream=True)
            self._flush()
            return await future
        finally:
            self._streams.pop(stream, None)

    def _flush(self) -> None:
        self._writer.write(self._h2.data_to_send())

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(READ_BYTES):
                for event in self._h2.receive_data(data):
                    self._take(event)
                self._flush()
        except (OSError, H2Error):
            pass
        finally:
            self._over = True
            for future, _ in self._streams.values():
                if not future.done():
                    future.set_exception(EOFError("the server hung up"))

    def _take(self, event: Event) -> None:
        if isinstance(event, ConnectionTerminated):
            self._over = True
            return
        stream = getattr(event, "stream_id", None)
        if stream not in self._streams:
            if isinstance(event, DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            return
        future, body = self._streams[stream]
        if isinstance(event, ResponseReceived):
            status = {str(name): str(value) for name, value in event.headers}.get(":status", "")
            if status != "200":
                _fail(future, f"HTTP {status}")
        elif isinstance(event, DataReceived):
            self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            body += event.data
            if len(body) > MAX_TCP:
                _fail(future, "an answer without an end")
        elif isinstance(event, StreamReset):
            _fail(future, "the server refuses")
        elif isinstance(event, StreamEnded) and not future.done():
            future.set_result(bytes(body))


def _fail(future: asyncio.Future[bytes], why: str) -> None:
    if not future.done():
        future.set_exception(DohError(why))
