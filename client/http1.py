"""HTTP/1.1 on asyncio streams: as much as the daemon's two small servers and one small client need. Bounded.

Bodies are read piece by piece, whole ones and chunked ones (RFC 9112 §6.3, §7.1); trailers are dropped.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from client.errors import ClientError

MAX_HEAD_BYTES = 16 * 1024
MAX_HEADERS = 64
MAX_LENGTH_DIGITS = 15
MAX_TRAILERS = 16
PIECE_BYTES = 64 * 1024
BUFFER_BYTES = 128 * 1024  # what a stream may hold unread
HEAD_SECONDS = 10.0
BODY_SECONDS = 600.0  # between two pieces: what is sent may be made slowly
KEEPALIVE = {
    socket.TCP_KEEPIDLE: 15,
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 3,
}  # seconds, seconds, probes
REASONS = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    409: "Conflict",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    507: "Insufficient Storage",
}
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,12})[ \t]*(;[^\r\n]*)?")
STATUS_LINE = re.compile(r"HTTP/1\.[01] ([1-5][0-9][0-9])( .*)?")


class BadRequest(ClientError):
    """What is asked cannot be answered; ``status`` is the HTTP status."""

    code = "bad-request"

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class BrokenOff(ClientError):
    """The other side stopped in the middle of a message."""

    code = "broken-off"


@dataclass(frozen=True, slots=True)
class Head:
    """A request's head. ``path`` is as it came, percent signs and all; header names are in lower case."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    keeps_alive: bool = False


async def read_head(reader: asyncio.StreamReader) -> bytes:
    """The bytes up to the empty line, ``b""`` when nobody asks any more; raises :class:`BadRequest`."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.LimitOverrunError:
        raise BadRequest(413, "the request's head is too large") from None
    except asyncio.IncompleteReadError as error:
        if not error.partial:
            return b""
        if len(error.partial) <= MAX_HEAD_BYTES:
            raise BadRequest(400, "the request's head has no end") from None
        head = error.partial
    if len(head) > MAX_HEAD_BYTES:
        raise BadRequest(413, "the request's head is too large")
    return head


def parse_head(head: bytes) -> Head:
    """An HTTP/1.1 request's head; raises :class:`BadRequest`."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0") or not words[1].startswith("/"):
        raise BadRequest(400, "this is no HTTP request")
    headers = _parse_fields(lines[1:])
    try:
        parts = urlsplit(words[1])
    except ValueError:
        raise BadRequest(400, "the request's path is malformed") from None
    keeps_alive = words[2] == "HTTP/1.1" and headers.get("connection", "").lower() != "close"
    return Head(words[0], parts.path, dict(parse_qsl(parts.query)), headers, keeps_alive)


def parse_answer(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers of an answer; raises :class:`BadRequest` for what is none."""
    lines = head.decode("latin-1").split("\r\n")
    found = STATUS_LINE.fullmatch(lines[0])
    if found is None:
        raise BadRequest(502, "what answers does not speak HTTP")
    return int(found[1]), _parse_fields(lines[1:])


def _parse_fields(lines: list[str]) -> dict[str, str]:
    fields = [line for line in lines if line]
    if len(fields) > MAX_HEADERS:
        raise BadRequest(413, "too many headers")
    headers: dict[str, str] = {}
    for line in fields:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip() or name.lower() in headers:
            raise BadRequest(400, "a malformed or repeated header")
        headers[name.lower()] = value.strip()
    return headers


def body_length(headers: Mapping[str, str]) -> int | None:
    """A request's size as its headers say it, ``None`` = chunked; raises :class:`BadRequest`."""
    coding, text = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or text is not None:
            raise BadRequest(400, "the body's length is ambiguous")
        return None
    if text is None:
        return 0
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(400, "Content-Length is no number")
    if len(text) > MAX_LENGTH_DIGITS:
        raise BadRequest(413, "the body is too large")
    return int(text)


def notice_death(sock: Any) -> None:
    """Have the kernel end a TCP connection whose other side is gone without a word."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        sock.setsockopt(socket.IPPROTO_TCP, option, value)


class Body:
    """A message's body. ``size`` ``None`` = not known before its end.

    ``before`` is called once, when reading begins. ``left`` is what has yet to come of it, or of its chunk.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        size: int | None,
        *,
        before: Callable[[], None] | None = None,
        seconds: float = BODY_SECONDS,
    ) -> None:
        self.size = size
        self.left = size or 0
        self.is_read = size == 0
        self._reader = reader
        self._before = before
        self._seconds = seconds
        self._begun = False  # of a chunked body: a chunk was read

    async def read(self) -> bytes:
        """The next piece, ``b""`` at the end.

        Raises :class:`BrokenOff`, :class:`BadRequest`, ``TimeoutError``.
        """
        if self._before is not None:
            self._before()
            self._before = None
        async with asyncio.timeout(self._seconds):
            if self.size is None and not self.left and not self.is_read:
                await self._next_chunk()
            if self.is_read:
                return b""
            piece = await self._reader.read(min(self.left, PIECE_BYTES))
        if not piece:
            raise BrokenOff("the body has no end")
        self.left -= len(piece)
        self.is_read = self.size is not None and not self.left
        return piece

    async def whole(self, limit: int) -> bytes:
        """All of it, if that is at most ``limit`` bytes; raises :class:`BadRequest`, too."""
        if self.size is not None and self.size > limit:
            raise BadRequest(413, f"a body may have {limit} bytes")
        data = b""
        while piece := await self.read():
            data += piece
            if len(data) > limit:
                raise BadRequest(413, f"a body may have {limit} bytes")
        return data

    async def _next_chunk(self) -> None:
        if self._begun and await self._line():
            raise BadRequest(400, "a chunk is longer than it says")
        found = CHUNK_SIZE.fullmatch(await self._line())
        if found is None:
            raise BadRequest(400, "a malformed chunk")
        self._begun, self.left = True, int(found[1], 16)
        if not self.left:
            for _ in range(MAX_TRAILERS):
                if not await self._line():
                    self.is_read = True
                    return
            raise BadRequest(413, "too many trailers")

    async def _line(self) -> bytes:
        try:
            line = await self._reader.readuntil(b"\r\n")
        except asyncio.IncompleteReadError:
            raise BrokenOff("the body has no end") from None
        except asyncio.LimitOverrunError:
            raise BadRequest(413, "a line of the body is too long") from None
        return line[:-2]


def answer_head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {REASONS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(piece: bytes) -> bytes:
    """A piece of a chunked body; ``b""`` is its end."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
