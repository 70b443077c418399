"""The PeerAPI's listeners, on this node's tailnet addresses only.

Who comes is known by the address it comes from: WireGuard lets no peer send from another's. Web pages are
kept out as at the local API: a request must name this node as its Host, and bear neither Origin nor Referer.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import zlib
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from typing import Any, Protocol
from urllib.parse import urlsplit

from client.errors import ClientError
from client.http1 import (
    BUFFER_BYTES,
    HEAD_SECONDS,
    PIECE_BYTES,
    BadRequest,
    Body,
    BrokenOff,
    Head,
    answer_head,
    body_length,
    chunk,
    notice_death,
    parse_head,
    read_head,
)
from client.peerapi.handler import Answer, Visitor, words
from client.peerapi.rights import peer_at
from client.prefixes import IPAddress
from wire.netmap import NetMap

logger = logging.getLogger("trenzad.peerapi")

MAX_CONNECTIONS = 256
MAX_PER_PEER = 32
IDLE_SECONDS = 60.0
WRITE_SECONDS = 30.0
LINGER_SECONDS = 2.0
PORT_TRIES = 5
ANONYMOUS_HOST = "peer"  # what official clients name when they send files
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listen(Protocol):
    """``asyncio.start_server`` for one address and port, or what stands for it."""

    def __call__(self, accept: Accept, address: str, port: int, /) -> Awaitable[asyncio.Server]: ...


async def listen_here(accept: Accept, address: str, port: int, /) -> asyncio.Server:
    server = await asyncio.start_server(accept, address, port, limit=BUFFER_BYTES)
    for sock in server.sockets:
        notice_death(sock)  # what is accepted inherits it
    return server


class AnswerPeer(Protocol):
    async def __call__(self, visitor: Visitor, head: Head, body: Body, /) -> Answer: ...


class PeerServer:
    """``netmap`` gives the newest one; ``answer`` does what a peer asks."""

    def __init__(
        self, netmap: Callable[[], NetMap | None], answer: AnswerPeer, listen: Listen = listen_here
    ) -> None:
        self._netmap = netmap
        self._answer = answer
        self._listen = listen
        self._servers: dict[IPAddress, asyncio.Server] = {}
        self._ports: dict[IPAddress, int] = {}
        self._open: Counter[IPAddress] = Counter()
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def doors(self) -> frozenset[tuple[IPAddress, int]]:
        """The addresses and ports that it listens on."""
        return frozenset(self._ports.items())

    async def serve_on(self, addresses: Iterable[IPAddress]) -> None:
        """Listen on these addresses and no others; one that cannot be listened on is logged and left out."""
        wanted = set(addresses)
        for address in self._servers.keys() - wanted:
            self._ports.pop(address)
            self._servers.pop(address).close()
        for address in sorted(wanted - self._servers.keys(), key=str):
            server = await self._listen_on(address)
            if server is not None:
                self._servers[address] = server
                self._ports[address] = server.sockets[0].getsockname()[1]
        if not wanted:
            await self._end_connections()

    async def _listen_on(self, address: IPAddress) -> asyncio.Server | None:
        """On the port that this address always has, so that restarts are no news; else on any."""
        error: OSError | None = None
        for port in (*usual_ports(address), 0):
            try:
                return await self._listen(self._accept, str(address), port)
            except OSError as failure:
                error = failure
        logger.warning("peers cannot ask anything of this node at %s: %s", address, error)
        return None

    async def _end_connections(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # --- connections -------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task, remote = asyncio.current_task(), _address(writer, "peername")
        if task is None or remote is None:
            writer.close()
            return
        self._tasks.add(task)
        self._open[remote] += 1
        try:
            if len(self._tasks) <= MAX_CONNECTIONS and self._open[remote] <= MAX_PER_PEER:
                await self._serve(remote, reader, writer)
        except (OSError, TimeoutError, BrokenOff):  # the other side went away
            pass
        except ClientError as error:  # in the middle of an answer: it has no end then
            logger.info("an answer to a peer broke off: %s", error)
        except Exception:
            logger.exception("the PeerAPI failed")
        finally:
            self._tasks.discard(task)
            self._open[remote] -= 1
            self._open += Counter()  # forgets who has none open
            writer.close()

    async def _serve(
        self, remote: IPAddress, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        seconds = HEAD_SECONDS
        while visitor := self._visitor(remote):
            async with asyncio.timeout(seconds):
                try:
                    raw = await read_head(reader)
                except BadRequest as error:
                    return await _refuse(error, reader, writer)
            if not raw or not await self._one(visitor, raw, reader, writer):
                return None
            seconds = IDLE_SECONDS
        return None

    def _visitor(self, remote: IPAddress) -> Visitor | None:
        """Who comes, looked up anew for each request: the netmap may have changed."""
        netmap = self._netmap()
        peer = peer_at(netmap, remote) if netmap is not None else None
        if netmap is None or peer is None or peer.expired:
            return None
        return Visitor(peer, remote, netmap)

    async def _one(
        self, visitor: Visitor, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Answer one request; returns whether another may follow on this connection."""
        head, body = None, None
        try:
            head = parse_head(raw)
            check_headers(head, _address(writer, "sockname"))
            body = Body(reader, body_length(head.headers), before=_continue(head, writer))
            answer = await self._answer(visitor, head, body)
        except BadRequest as error:
            answer = words(error.status, str(error))
        keeps = head is not None and head.keeps_alive and body is not None and body.is_read
        await _write(writer, answer, head, keeps=keeps)
        if not keeps:
            await _linger(reader, writer)
        return keeps


def check_headers(head: Head, own: IPAddress | None) -> None:
    """Refuse what a browser, or a page that rebinds a name, would send; raises :class:`BadRequest`."""
    headers = head.headers
    if "origin" in headers or "referer" in headers or any(name.startswith("sec-fetch") for name in headers):
        raise BadRequest(403, "invalid peerapi request")
    host = headers.get("host", "")
    if host != ANONYMOUS_HOST and (own is None or _host_address(host) != own):
        raise BadRequest(403, "invalid peerapi request")


def _host_address(text: str) -> IPAddress | None:
    try:
        parts = urlsplit(f"//{text}")
        return ipaddress.ip_address(parts.hostname or "") if parts.port is not None else None
    except ValueError:
        return None


def usual_ports(address: IPAddress) -> list[int]:
    """The ports to try for an address, the same at each start. Source: tailscale ipn/ipnlocal/peerapi.go."""
    first, *rest = address.packed[-3:]
    return [
        0x8000 | (zlib.crc32(bytes([(first + turn) % 256, *rest])) & 0x7FFF) for turn in range(PORT_TRIES)
    ]


def _address(writer: asyncio.StreamWriter, end: str) -> IPAddress | None:
    name = writer.get_extra_info(end)
    return ipaddress.ip_address(name[0]) if name else None


def _continue(head: Head, writer: asyncio.StreamWriter) -> Callable[[], None] | None:
    if head.headers.get("expect", "").lower() != "100-continue":
        return None
    return lambda: writer.write(CONTINUE)


# --- writing ---------------------------------------------------------------------------------------------


async def _write(writer: asyncio.StreamWriter, answer: Answer, head: Head | None, *, keeps: bool) -> None:
    headers = {"Content-Type": answer.kind, "X-Content-Type-Options": "nosniff", **answer.headers}
    if not keeps:
        headers["Connection"] = "close"
    if isinstance(answer.content, bytes):
        headers["Content-Length"] = str(len(answer.content))
        shown = b"" if head is not None and head.method == "HEAD" else answer.content
        writer.write(answer_head(answer.status, headers) + shown)
    else:
        headers["Transfer-Encoding"] = "chunked"
        writer.write(answer_head(answer.status, headers))
        await _write_pieces(writer, answer.content)
    async with asyncio.timeout(WRITE_SECONDS):
        await writer.drain()


async def _refuse(error: BadRequest, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await _write(writer, words(error.status, str(error)), None, keeps=False)
    await _linger(reader, writer)


async def _write_pieces(writer: asyncio.StreamWriter, pieces: AsyncGenerator[bytes, None]) -> None:
    async with contextlib.aclosing(pieces):
        async for piece in pieces:
            writer.write(chunk(piece))
            async with asyncio.timeout(WRITE_SECONDS):
                await writer.drain()
    writer.write(chunk(b""))


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read on for a moment: a connection that is closed with bytes unread may lose its answer on the way."""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write_eof()
        async with asyncio.timeout(LINGER_SECONDS):
            while await reader.read(PIECE_BYTES):
                pass
