"""Sending a file to a peer, on from where an earlier try broke off.

The peer says the hashes of the blocks it has; what is alike is not sent again.
Source: tailscale feature/taildrop/localapi.go (singleFilePut), resume.go.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol
from urllib.parse import quote

from client.errors import ClientError
from client.http1 import (
    BUFFER_BYTES,
    BadRequest,
    Body,
    BrokenOff,
    body_length,
    chunk,
    notice_death,
    parse_answer,
    read_head,
)
from client.peerapi.inbox import ALGORITHM, BLOCK_BYTES, block_hash
from client.peerapi.names import check_name
from client.prefixes import IPAddress
from wire.codec import decode_object
from wire.errors import WireError
from wire.fields import integer, lower_names, string

logger = logging.getLogger("trenzad.peerapi")

CONNECT_SECONDS = 20.0
ANSWER_SECONDS = 10.0
STORE_SECONDS = 120.0  # the peer writes the end of a file to disk
SEND_SECONDS = 120.0  # for the peer to take a piece
MAX_LINE_BYTES = 1024
MAX_WORDS = 200
Place = tuple[IPAddress, int]
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class SendError(ClientError):
    """The file could not be sent."""

    code = "send"


class Source(Protocol):
    """What is sent; ``size`` ``None`` = not known beforehand. Like :class:`client.http1.Body`."""

    size: int | None

    async def read(self) -> bytes: ...


class Connect(Protocol):
    """Opens a connection inside the tunnel."""

    def __call__(self, address: str, port: int, /) -> contextlib.AbstractAsyncContextManager[Streams]: ...


def connect_by(dial: Callable[[str, int], Awaitable[Streams]]) -> Connect:
    """Connections that ``dial`` opens."""

    @contextlib.asynccontextmanager
    async def connect(address: str, port: int, /) -> AsyncIterator[Streams]:
        reader, writer = await dial(address, port)
        notice_death(writer.get_extra_info("socket"))
        try:
            yield reader, writer
        finally:
            writer.close()

    return connect


async def _dial_here(address: str, port: int) -> Streams:
    return await asyncio.open_connection(address, port, limit=BUFFER_BYTES)


connect_here = connect_by(_dial_here)


class _Blocks:
    """A source in blocks of the sizes asked for."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._held = b""

    async def take(self, size: int) -> bytes:
        """The next ``size`` bytes, fewer at the end; should the source fail, nothing of it is lost."""
        while len(self._held) < size and (piece := await self._source.read()):
            self._held += piece
        block, self._held = self._held[:size], self._held[size:]
        return block

    def put_back(self, block: bytes) -> None:
        self._held = block + self._held


async def send_file(
    places: Sequence[Place], name: str, source: Source, connect: Connect = connect_here
) -> None:
    """Send ``source`` as ``name`` to the first of a peer's PeerAPI places that can be reached.

    Raises ``ClientError``, and what ``source`` raises.
    """
    check_name(name)
    path, blocks = f"/v0/put/{quote(name, safe='')}", _Blocks(source)
    place = await _reachable(places, connect)
    offset = await _skip_what_is_there(place, path, blocks, connect)
    try:
        async with _open(place, connect) as (reader, writer):
            await _put(
                reader, writer, _put_head(place, path, source.size, offset), blocks, source.size is None
            )
    except (OSError, BrokenOff) as error:
        raise SendError(f"the peer broke off the connection: {error}") from error


async def _reachable(places: Sequence[Place], connect: Connect) -> Place:
    why = "it has no PeerAPI"
    for place in places:
        try:
            async with _open(place, connect):
                return place
        except (OSError, TimeoutError) as error:
            why = getattr(error, "strerror", None) or "it does not answer"
    raise SendError(f"cannot reach the peer: {why}")


@contextlib.asynccontextmanager
async def _open(place: Place, connect: Connect) -> AsyncIterator[Streams]:
    async with contextlib.AsyncExitStack() as stack:
        async with asyncio.timeout(CONNECT_SECONDS):
            streams = await stack.enter_async_context(connect(str(place[0]), place[1]))
        yield streams


def _host(place: Place) -> str:
    address, port = place
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


# --- resuming --------------------------------------------------------------------------------------------


async def _skip_what_is_there(place: Place, path: str, blocks: _Blocks, connect: Connect) -> int:
    """Take from ``blocks`` what the peer has; returns how much. Whatever goes wrong, all is sent."""
    offset = 0
    try:
        async with _open(place, connect) as (reader, writer):
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {_host(place)}\r\nConnection: close\r\n\r\n".encode())
            status, body = await _answer(reader, ANSWER_SECONDS)
            while status == 200 and (size := await _same_block(body, blocks)):
                offset += size
    except (OSError, TimeoutError, BadRequest, BrokenOff, WireError) as error:
        logger.info("the peer does not say what it has: %s", error or "no answer")
    if offset:
        logger.info("going on with a file at byte %d", offset)
    return offset


async def _same_block(body: _Lines, blocks: _Blocks) -> int:
    """The size of the next block that is there and alike; 0 when there is none."""
    async with asyncio.timeout(ANSWER_SECONDS):
        line = await body.next()
    if not line:
        return 0
    members = lower_names(decode_object(line, MAX_LINE_BYTES))
    size = integer(members, "size")
    if string(members, "algo") != ALGORITHM or not 0 < size <= BLOCK_BYTES:
        return 0
    block = await blocks.take(size)
    if len(block) == size and block_hash(block) == string(members, "checksum"):
        return size
    blocks.put_back(block)
    return 0


class _Lines:
    """A body's lines."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self._held = b""

    async def next(self) -> bytes:
        """``b""`` at the end; raises :class:`BadRequest` for an endless one."""
        while b"\n" not in self._held:
            piece = await self.body.read()
            if not piece:
                line, self._held = self._held, b""
                return line
            self._held += piece
            if b"\n" not in self._held and len(self._held) > MAX_LINE_BYTES:
                raise BadRequest(502, "the peer's answer makes no sense")
        line, _, self._held = self._held.partition(b"\n")
        return line


# --- sending ---------------------------------------------------------------------------------------------


def _put_head(place: Place, path: str, size: int | None, offset: int) -> bytes:
    lines = [f"PUT {path} HTTP/1.1", f"Host: {_host(place)}", "Connection: close"]
    lines.append("Transfer-Encoding: chunked" if size is None else f"Content-Length: {size - offset}")
    if offset:
        lines.append(f"Range: bytes={offset}-")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


async def _put(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, blocks: _Blocks, in_chunks: bool
) -> None:
    """Send, and hear the answer; one that comes early ends the sending."""
    writer.write(head)
    pump = asyncio.ensure_future(_pump(writer, blocks, in_chunks))
    answer = asyncio.ensure_future(_answer(reader, None))
    try:
        await asyncio.wait({pump, answer}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done() and not isinstance(failure := pump.exception(), ConnectionError) and failure:
            raise failure
        async with asyncio.timeout(STORE_SECONDS):
            status, body = await answer
            words = await body.next()
    except TimeoutError:
        raise SendError("the peer takes no more of the file") from None
    except BadRequest as error:
        raise SendError(f"the peer's answer makes no sense: {error}") from error
    finally:
        pump.cancel()
        answer.cancel()
        await asyncio.gather(pump, answer, return_exceptions=True)
    if status != 200:
        raise SendError(f"the peer refuses the file: {_readable(words) or f'HTTP {status}'}")


async def _pump(writer: asyncio.StreamWriter, blocks: _Blocks, in_chunks: bool) -> None:
    while block := await blocks.take(BLOCK_BYTES):
        writer.write(chunk(block) if in_chunks else block)
        async with asyncio.timeout(SEND_SECONDS):
            await writer.drain()
    if in_chunks:
        writer.write(chunk(b""))


async def _answer(reader: asyncio.StreamReader, seconds: float | None) -> tuple[int, _Lines]:
    async with asyncio.timeout(seconds):
        head = await read_head(reader)
    if not head:
        raise BrokenOff("no answer came")
    status, headers = parse_answer(head)
    if "content-length" not in headers and "transfer-encoding" not in headers:
        return status, _Lines(Body(reader, 0))
    return status, _Lines(Body(reader, body_length(headers)))


def _readable(words: bytes) -> str:
    text = words[:MAX_WORDS].decode("utf-8", "replace")
    return "".join(character for character in text if character.isprintable()).strip()
