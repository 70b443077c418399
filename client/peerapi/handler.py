"""What a peer may ask of this node, by method and path.

``/`` says who asks. ``/v0/put/NAME`` is Taildrop: PUT sends a file (``Range: bytes=N-`` goes on at N), GET
gives the hashes of the blocks that are here of it. ``/dns-query`` is DNS over HTTP (RFC 8484) at exit nodes.
Source: tailscale ipn/ipnlocal/peerapi.go, feature/taildrop/peerapi.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO
from urllib.parse import unquote

from client.errors import ClientError
from client.http1 import HEAD_SECONDS, BadRequest, Body, Head
from client.peerapi.inbox import FileBusy, NoRoom, next_block
from client.peerapi.names import InvalidName
from client.peerapi.rights import may_resolve, may_send_files
from client.peerapi.taildrop import Taildrop
from client.prefixes import IPAddress
from wire.codec import encode_json
from wire.netmap import NetMap, Node

logger = logging.getLogger("trenzad.peerapi")

PUT = "/v0/put/"
DNS = "/dns-query"
DNS_MESSAGE = "application/dns-message"
MAX_QUERY_BYTES = 64 * 1024
RESOLVE_SECONDS = 5.0
MEGABYTE = 1_000_000
RANGE = re.compile(r"bytes=([0-9]{1,15})-")
STATUS_OF_CODE = {InvalidName.code: 400, FileBusy.code: 409, NoRoom.code: 507}
Resolve = Callable[[bytes], Awaitable[bytes]]


@dataclass(frozen=True, slots=True)
class Visitor:
    """A peer, the tailnet address it comes from, and the netmap that says so."""

    node: Node
    address: IPAddress
    netmap: NetMap

    @property
    def name(self) -> str:
        return self.node.name.partition(".")[0] or str(self.address)


@dataclass(frozen=True, slots=True)
class Answer:
    """``content`` whole, or in pieces that are sent as they come."""

    status: int
    content: bytes | AsyncGenerator[bytes, None] = b""
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] = field(default_factory=dict)


def words(status: int, text: str) -> Answer:
    return Answer(status, text.encode() + b"\n")


class Handler:
    """``resolve`` answers a DNS message with one; it may raise ``ClientError``, ``OSError``."""

    def __init__(self, taildrop: Taildrop, resolve: Resolve) -> None:
        self._taildrop = taildrop
        self._resolve = resolve

    async def answer(self, visitor: Visitor, head: Head, body: Body) -> Answer:
        """Raises :class:`BadRequest`, ``TimeoutError``, and what a broken connection raises."""
        if head.path.startswith(PUT):
            return await self._file(visitor, head, body)
        if head.path == DNS:
            return await self._dns(visitor, head, body)
        if head.path != "/":
            return words(404, "unsupported peerapi path")
        if head.method not in ("GET", "HEAD"):
            return words(405, "expected method GET")
        return words(200, f"Hello, {visitor.name} ({visitor.address}). This is my Trenza device.")

    # --- Taildrop ----------------------------------------------------------------------------------------

    async def _file(self, visitor: Visitor, head: Head, body: Body) -> Answer:
        if not may_send_files(visitor.netmap, visitor.node):
            return words(403, "this device takes no files of yours")
        name, sender = unquote(head.path.removeprefix(PUT), errors="surrogateescape"), visitor.node.stable_id
        try:
            if head.method == "PUT":
                size = await self._taildrop.receive(sender, name, _offset(head), body)
                logger.info("a file of %.1f MB came from %s", size / MEGABYTE, visitor.name)
                return Answer(200, b"{}\n", "application/json")
            if head.method != "GET":
                return words(405, "expected method GET or PUT")
            if not name:
                return Answer(200, encode_json(await self._taildrop.partials(sender)), "application/json")
            file = await self._taildrop.partial(sender, name)
            return Answer(200, _hashes(file) if file is not None else b"", "application/json")
        except BadRequest:
            raise
        except ClientError as error:
            return words(STATUS_OF_CODE.get(error.code, 500), str(error))

    # --- DNS for those who use this exit node ------------------------------------------------------------

    async def _dns(self, visitor: Visitor, head: Head, body: Body) -> Answer:
        if not may_resolve(visitor.netmap, visitor.node, visitor.address):
            return words(403, "DNS access denied")
        question = await dns_question(head, body)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                return Answer(200, await self._resolve(question), DNS_MESSAGE)
        except (ClientError, OSError, TimeoutError) as error:
            logger.info("no answer for a peer's DNS question: %s", error or "it took too long")
            return words(500, "DNS forwarding error")


async def _hashes(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    """The hash of each block, a JSON line each."""
    with file:
        while (block := await asyncio.to_thread(next_block, file)) is not None:
            yield encode_json(block) + b"\n"


async def dns_question(head: Head, body: Body) -> bytes:
    """The DNS message of a request; raises :class:`BadRequest`."""
    if head.method == "POST":
        if head.headers.get("content-type") != DNS_MESSAGE:
            raise BadRequest(415, "unexpected Content-Type")
        async with asyncio.timeout(HEAD_SECONDS):
            return await body.whole(MAX_QUERY_BYTES)
    if head.method != "GET":
        raise BadRequest(405, "bad HTTP method")
    text = head.query.get("dns", "")
    if not text:
        raise BadRequest(400, "missing 'dns' parameter")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(400, "invalid 'dns' base64 encoding") from None


def _offset(head: Head) -> int:
    text = head.headers.get("range")
    if text is None:
        return 0
    found = RANGE.fullmatch(text)
    if found is None:
        raise BadRequest(400, "invalid Range header")
    return int(found[1])
