"""An HTTP proxy (RFC 9110 §7.6, §9.3.6): CONNECT, and plain requests one a connection, for this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

from client.errors import ClientError
from client.http1 import MAX_HEADERS, BadRequest, Body, BrokenOff, answer_head, body_length, chunk, read_head
from client.proxy.dialer import Dialer, Unresolved
from client.proxy.splice import PIECE_BYTES, Streams, keep_alive, reset, splice

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
HTTP_PORT = 80
# Headers about one connection (RFC 9110 §7.6.1), and those meant for the proxy.
OF_ONE_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "trailer",
        "upgrade",
        "expect",
    }
)
FRAMING = ("content-length", "transfer-encoding")

Field = tuple[str, str]


async def serve(client: Streams, first: bytes, dialer: Dialer, head_seconds: float) -> None:
    """One client to its end; its ``first`` byte has been read. Raises ``OSError``."""
    try:
        async with asyncio.timeout(head_seconds):
            head = first + await read_head(client[0])
        method, target, fields = parse(head)
        if method == "CONNECT":
            host, port = authority(target, None)
            upstream = await _dial(dialer, host, port)
            client[1].write(ESTABLISHED)
            return await splice(client, upstream)
        return await _forward(client, dialer, method, target, fields)
    except BadRequest as error:
        return await _refuse(client[1], error)


def parse(head: bytes) -> tuple[str, str, list[Field]]:
    """Method, target and header fields; raises :class:`BadRequest`."""
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or words[2] not in ("HTTP/1.1", "HTTP/1.0") or not words[0].isalpha():
        raise BadRequest(400, "this is no HTTP request")
    fields = [_field(line) for line in lines[1:] if line]
    if len(fields) > MAX_HEADERS:
        raise BadRequest(413, "too many headers")
    return words[0], words[1], fields


def _field(line: str) -> Field:
    name, colon, value = line.partition(":")
    if not colon or not name or name != name.strip():
        raise BadRequest(400, "a malformed header")
    return name, value.strip()


def authority(text: str, default: int | None) -> tuple[str, int]:
    """Host and port of ``host:port``; raises :class:`BadRequest`."""
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or default
    except ValueError:
        host = port = None
    if not host or not port or parts.path or parts.query or parts.username is not None:
        raise BadRequest(400, "the address asked for is no host and port")
    return host, port


async def _forward(client: Streams, dialer: Dialer, method: str, target: str, fields: list[Field]) -> None:
    """A plain request: its body to its end, then the answer to the connection's end."""
    scheme, _, rest = target.partition("://")
    if scheme.lower() != "http" or not rest:
        raise BadRequest(400, "this is a proxy: ask it for whole addresses (http://host/path), or CONNECT")
    place, slash, path = rest.partition("/")
    size = body_length(_framing(fields))
    host, port = authority(place, HTTP_PORT)
    reader, writer = await _dial(dialer, host, port)
    try:
        keep_alive(writer)
        writer.write(rewritten(method, f"{slash or '/'}{path}", place, fields))
        await _send_body(Body(client[0], size, before=_continue(client[1], fields)), writer)
        while piece := await reader.read(PIECE_BYTES):
            client[1].write(piece)
            await client[1].drain()
        client[1].close()
    except (OSError, TimeoutError, BrokenOff):
        reset(client[1])
    finally:
        writer.close()


def _continue(writer: asyncio.StreamWriter, fields: list[Field]) -> Callable[[], None] | None:
    """RFC 9110 §10.1.1: a client that waits for leave to send its body has it from us."""
    expects = any(name.lower() == "expect" for name, _ in fields)
    return (lambda: writer.write(CONTINUE)) if expects else None


def _framing(fields: list[Field]) -> dict[str, str]:
    """The headers that say how long a body is; one of them twice is refused."""
    found = [(name.lower(), value) for name, value in fields if name.lower() in FRAMING]
    if len(found) != len(dict(found)):
        raise BadRequest(400, "the body's length is ambiguous")
    return dict(found)


def rewritten(method: str, path: str, place: str, fields: list[Field]) -> bytes:
    """The head as the origin server gets it: the path alone, no header of this hop, one request only."""
    kept = [field for field in fields if field[0].lower() not in OF_ONE_HOP | {"host"}]
    lines = [f"{name}: {value}" for name, value in [("Host", place), *kept, ("Connection", "close")]]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode("latin-1")


async def _send_body(body: Body, writer: asyncio.StreamWriter) -> None:
    is_chunked = body.size is None
    while piece := await body.read():
        writer.write(chunk(piece) if is_chunked else piece)
        await writer.drain()
    if is_chunked:
        writer.write(chunk(b""))
    await writer.drain()


async def _dial(dialer: Dialer, host: str, port: int) -> Streams:
    try:
        return await dialer.dial(host, port)
    except TimeoutError:
        raise BadRequest(504, f"{host[:80]} port {port} does not answer") from None
    except Unresolved as error:
        raise BadRequest(502, str(error)) from None
    except OSError as error:
        why = error.strerror or "no way there"
        raise BadRequest(502, f"{host[:80]} port {port} cannot be reached: {why}") from None
    except ClientError as error:
        raise BadRequest(502, str(error)) from None


async def _refuse(writer: asyncio.StreamWriter, error: BadRequest) -> None:
    body = f"{error}\n".encode()
    headers = {
        "Content-Type": "text/plain; charset=utf-8",
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    writer.write(answer_head(error.status, headers) + body)
    await writer.drain()
