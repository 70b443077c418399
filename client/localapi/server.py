"""The daemon's end: a small HTTP/1.1 server on a Unix socket, one request per connection.

Who asks is known from the kernel (SO_PEERCRED): root, the daemon's own user, or the operator. A browser
cannot get in by any detour: requests with Origin or Referer, or for another Host, are refused.
Source: tailscale ipn/ipnserver, safesocket.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client.errors import ClientError, NotPermitted, PeerNotFound, SetupError
from client.http1 import (
    BUFFER_BYTES,
    HEAD_SECONDS,
    BadRequest,
    Body,
    BrokenOff,
    answer_head,
    body_length,
    parse_head,
    read_head,
)
from client.proxy.splice import Streams, splice
from wire.codec import decode_object, encode_json
from wire.errors import WireError

logger = logging.getLogger("trenzad.localapi")

HOST = "local-trenzad.sock"
MAX_BODY_BYTES = 64 * 1024
MAX_CONNECTIONS = 64
WRITE_SECONDS = 10.0
PUT_SECONDS = 3600.0  # between two pieces of what may come from a pipe
SOCKET_MODE = 0o660
NOT_YOU = "only root may do this: use sudo, or have root run trenza set --operator=YOUR-USER"
STATUS_OF_CODE = {NotPermitted.code: 403, PeerNotFound.code: 404}


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked. A PUT's body may be of any size: it is read from ``content`` piece by piece."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes = b""
    uid: int = -1
    content: Body | None = None

    def json(self) -> dict[str, Any]:
        """The body's JSON object, ``{}`` when there is none; raises :class:`BadRequest`."""
        try:
            return decode_object(self.body, MAX_BODY_BYTES) if self.body else {}
        except WireError as error:
            raise BadRequest(400, f"the body is no JSON object: {error}") from error


@dataclass(frozen=True, slots=True)
class Raw:
    """An answer that is no JSON: ``size`` bytes, in ``pieces``."""

    kind: str
    size: int
    pieces: AsyncGenerator[bytes, None]


@dataclass(frozen=True, slots=True)
class Joined:
    """An answer that is another connection: from here on its bytes and the asker's are passed on, both ways.

    ``closing`` lets go of it.
    """

    streams: Streams
    closing: AsyncExitStack


Stream = AsyncIterator[Mapping[str, Any]]
Handler = Callable[[Request], Awaitable[Any]]


@dataclass
class Server:
    """``handle`` answers a request with JSON, a stream of JSON lines, :class:`Raw`, or :class:`Joined`.

    ``operator`` names the user ID, besides root, that the socket file is opened to.
    """

    path: Path
    handle: Handler
    operator: Callable[[], int | None]
    _open: set[asyncio.Task[Any]] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; raises :class:`SetupError`, also when another daemon listens there."""
        sock = self._bind()
        self._server = await asyncio.start_unix_server(self._serve, sock=sock, limit=BUFFER_BYTES)
        self.set_owner()

    async def close(self) -> None:
        if self._server is None:
            return
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        with contextlib.suppress(OSError):
            self.path.unlink()

    def set_owner(self) -> None:
        """Give the socket file to the operator; root may use it all the same."""
        uid = self.operator()
        wanted = os.getuid() if uid is None else uid
        with contextlib.suppress(OSError):  # without CAP_CHOWN it stays root's
            if self.path.stat().st_uid != wanted:
                os.chown(self.path, wanted, -1)

    def may_use(self, uid: int) -> bool:
        return uid in (0, os.getuid(), self.operator())

    def _bind(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        before = os.umask(0o777 & ~SOCKET_MODE)
        try:
            self._make_room()
            sock.bind(str(self.path))
            sock.listen(MAX_CONNECTIONS)
        except OSError as error:
            sock.close()
            why = "its name is too long" if "too long" in str(error) else error.strerror or str(error)
            raise SetupError(f"cannot make the socket {self.path}: {why}; give another --socket") from error
        except BaseException:
            sock.close()
            raise
        finally:
            os.umask(before)
        return sock

    def _make_room(self) -> None:
        """The folder, and no socket file of a daemon that is gone."""
        with contextlib.suppress(FileExistsError):
            self.path.parent.mkdir(mode=0o755, parents=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self.path))
            except FileNotFoundError:
                return
            except OSError as error:
                # Any file that is no socket refuses connections too: only a daemon's own remains are removed.
                if error.errno != errno.ECONNREFUSED or not self.path.is_socket():
                    raise
                self.path.unlink(missing_ok=True)
                return
        raise SetupError(
            f"another trenzad listens on {self.path}: stop it, or give this one its own --socket"
        )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._open.add(task)
        try:
            if len(self._open) > MAX_CONNECTIONS:
                await _write(writer, 503, {"code": "busy", "message": "too many connections"})
            else:
                await self._answer(reader, writer)
        except (OSError, TimeoutError, ClientError):  # the other side went away, or a file did
            pass
        finally:
            if task is not None:
                self._open.discard(task)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await self._admit(reader, writer)
            answer = await self.handle(request)
        except ClientError as error:
            status = error.status if isinstance(error, BadRequest) else STATUS_OF_CODE.get(error.code, 409)
            return await _write(writer, status, {"code": error.code, "message": str(error)})
        except TimeoutError:
            return await _write(writer, 503, {"code": "timeout", "message": "this took too long"})
        except Exception:
            logger.exception("the local API failed")
            return await _write(writer, 500, {"code": "internal", "message": "trenzad failed; see its log"})
        if request.method != "GET":
            self.set_owner()
        return await _give(reader, writer, answer)

    async def _admit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request:
        """Read a request, check who sends it and how; raises :class:`BadRequest`, :class:`NotPermitted`."""
        uid = _peer_uid(writer)
        async with asyncio.timeout(HEAD_SECONDS):
            head = parse_head(await read_head(reader))
            check_headers(head.headers)
            if not self.may_use(uid):
                raise NotPermitted(NOT_YOU)
            body, content = b"", Body(reader, body_length(head.headers), seconds=PUT_SECONDS)
            if head.method != "PUT":
                body = await _whole(content)
        return Request(head.method, head.path, head.query, head.headers, body, uid, content)


async def _give(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Any) -> None:
    match answer:
        case Raw():
            await _write_raw(writer, answer)
        case Joined():
            await _join(reader, writer, answer)
        case AsyncIterator():
            await _stream(reader, writer, answer)
        case _:
            await _write(writer, 200, answer)


async def _whole(content: Body) -> bytes:
    if content.size is None:
        raise BadRequest(400, "bodies need a Content-Length here")
    try:
        return await content.whole(MAX_BODY_BYTES)
    except BrokenOff:
        raise BadRequest(400, "the request's body has no end") from None


def _peer_uid(writer: asyncio.StreamWriter) -> int:
    sock = writer.get_extra_info("socket")
    credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _, uid, _ = struct.unpack("3i", credentials)
    return int(uid)


def check_headers(headers: Mapping[str, str]) -> None:
    """Refuse what a browser, or a page that rebinds a name, would send; raises :class:`NotPermitted`."""
    if "origin" in headers or "referer" in headers or any(name.startswith("sec-fetch") for name in headers):
        raise NotPermitted("web pages may not use this socket")
    if headers.get("host") != HOST:
        raise NotPermitted(f"the Host header must be {HOST}")


async def _write(writer: asyncio.StreamWriter, status: int, answer: Any) -> None:
    body = encode_json(answer)
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    writer.write(answer_head(status, headers) + body)
    async with asyncio.timeout(WRITE_SECONDS):
        await writer.drain()


async def _write_raw(writer: asyncio.StreamWriter, answer: Raw) -> None:
    headers = {"Content-Type": answer.kind, "Content-Length": str(answer.size), "Connection": "close"}
    writer.write(answer_head(200, headers))
    async with contextlib.aclosing(answer.pieces):
        async for piece in answer.pieces:
            writer.write(piece)
            async with asyncio.timeout(WRITE_SECONDS):
                await writer.drain()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Joined) -> None:
    async with answer.closing:
        writer.write(answer_head(200, {"Content-Type": "application/octet-stream", "Connection": "close"}))
        await splice((reader, writer), answer.streams)


async def _stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: Stream) -> None:
    """JSON lines until the other side hangs up."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n")
    hung_up = asyncio.ensure_future(reader.read(1))
    pump = asyncio.ensure_future(_pump(writer, answer))
    try:
        await asyncio.wait({hung_up, pump}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hung_up.cancel()
        pump.cancel()
        await asyncio.gather(hung_up, pump, return_exceptions=True)


async def _pump(writer: asyncio.StreamWriter, answer: Stream) -> None:
    async for item in answer:
        writer.write(encode_json(item) + b"\n")
        async with asyncio.timeout(WRITE_SECONDS):
            await writer.drain()
