"""From an accepted socket to an admitted client: TLS, HTTP, DERP's handshake. Each step has a deadline.

Plain requests (probes, metrics) are answered here and keep their connection; ``/derp`` with an Upgrade
changes to DERP, straight or inside a WebSocket. Source: tailscale derp/derpserver, cmd/derper.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import ssl
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from http import HTTPStatus

from websockets.http11 import Request as WebSocketRequest
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from relay.admission import Admission
from relay.connection import Connection
from relay.http import Request, parse_request, response, switching
from relay.limits import (
    HANDSHAKE_SECONDS,
    MAX_LARGE_HELLOS,
    MAX_REQUESTS_PER_CONNECTION,
    MAX_WEBSOCKET_MESSAGE,
    SMALL_HELLO_BYTES,
)
from relay.metrics import may_read
from wire.derp import HEADER_BYTES as FRAME_HEAD
from wire.derp import (
    MAX_CLIENT_INFO_BYTES,
    PROTOCOL_VERSION,
    ClientInfo,
    FrameType,
    ServerInfo,
    parse_client_info,
    server_info_frame,
    server_key_frame,
)
from wire.errors import HandshakeError, WireError
from wire.keys import NONCE_BYTES, NodePrivate, NodePublic

logger = logging.getLogger("trenza.relay")

QUIET = logging.getLogger("trenza.relay.websocket")
QUIET.setLevel(logging.WARNING)  # it tells of every connection otherwise
PROBES = ("/derp/probe", "/derp/latency-check")
CHALLENGE = re.compile(r"[A-Za-z0-9._:-]{1,64}")
READING = ("GET", "HEAD")
NO_CACHE = "no-cache, no-store, must-revalidate, no-transform, max-age=0"
TEXT = {"Content-Type": "text/plain; charset=utf-8"}
ABOUT = b"This is a Trenza relay. It speaks DERP at /derp.\n"

Page = Callable[[], tuple[str, bytes]]  # content type and body


@dataclass(frozen=True, kw_only=True)
class Greeter:
    """Takes new connections through their handshake.

    ``pages``: what else GET answers, by path; ``metrics``: ``/metrics``, for those who may read it.
    """

    key: NodePrivate
    context: ssl.SSLContext | None
    pool: Executor
    admission: Admission
    server_info: ServerInfo
    mesh_key: str
    pages: Mapping[str, Page]
    metrics: Page
    metrics_token: str
    large: asyncio.Semaphore

    @staticmethod
    def large_hellos() -> asyncio.Semaphore:
        return asyncio.Semaphore(MAX_LARGE_HELLOS)

    async def greet(self, conn: Connection) -> bytes | None:
        """The bytes after the handshake of an admitted client; ``None``: served or refused, close it.

        Raises ``OSError``, ``TimeoutError`` or ``WireError``: the client left, was too slow, or broke a rule.
        """
        if self.context is not None:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await conn.start_tls(self.context, self.pool)
        leftover = await self._serve_http(conn)
        return None if leftover is None else await self._serve_derp(conn, leftover)

    # -- HTTP

    async def _serve_http(self, conn: Connection) -> bytes | None:
        """Answer requests until one changes to DERP; returns the bytes behind it, ``None`` when none did."""
        data = b""
        for left in reversed(range(MAX_REQUESTS_PER_CONNECTION)):
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                while (parsed := parse_request(data)) is None:
                    data += await conn.receive()
                request, data = parsed
                if request.path == "/derp":
                    return await self._upgrade(conn, request, data)
                keep = request.keeps_alive and left > 0
                await conn.send(self._answer(conn, request, keep))
            if not keep:
                return None
        return None

    def _answer(self, conn: Connection, request: Request, keep: bool) -> bytes:
        def answer(status: HTTPStatus, headers: Mapping[str, str], body: bytes = b"") -> bytes:
            head_only = request.method == "HEAD"
            return response(status, headers=headers, body=body, keep_alive=keep, head_only=head_only)

        if request.path == "/generate_204":
            return answer(HTTPStatus.NO_CONTENT, _challenge_headers(request))
        if request.path in PROBES:
            if request.method not in READING:
                return answer(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
            return answer(HTTPStatus.OK, {"Access-Control-Allow-Origin": "*"})
        page = self.pages.get(request.path)
        if request.path == "/metrics" and may_read(conn.address[0], request.headers, self.metrics_token):
            page = self.metrics
        if page is None:
            return answer(HTTPStatus.NOT_FOUND, TEXT, b"not found\n")
        if request.method not in READING:
            return answer(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        kind, body = page()
        return answer(HTTPStatus.OK, {"Content-Type": kind}, body)

    async def _upgrade(self, conn: Connection, request: Request, leftover: bytes) -> bytes | None:
        conn.ideal = not request.headers.get("ideal-node")
        upgrade = request.headers.get("upgrade", "").lower()
        if upgrade == "websocket" and request.lists("sec-websocket-protocol", "derp"):
            return await self._upgrade_websocket(conn, request, leftover)
        if upgrade not in ("derp", "websocket"):
            text = b"DERP needs an Upgrade: DERP header\n"
            await conn.send(
                response(HTTPStatus.UPGRADE_REQUIRED, headers={"Upgrade": "DERP", **TEXT}, body=text)
            )
            return None
        if request.headers.get("derp-fast-start") != "1":
            headers = {
                "Upgrade": "DERP",
                "Connection": "Upgrade",
                "Derp-Version": str(PROTOCOL_VERSION),
                "Derp-Public-Key": self.key.public().hex,
            }
            await conn.send(switching(headers))
        return leftover

    async def _upgrade_websocket(self, conn: Connection, request: Request, leftover: bytes) -> bytes | None:
        protocol = ServerProtocol(
            subprotocols=[Subprotocol("derp")], max_size=MAX_WEBSOCKET_MESSAGE, logger=QUIET
        )
        protocol.receive_data(request.head)
        parsed = next(iter(protocol.events_received()), None)
        if not isinstance(parsed, WebSocketRequest):
            return None
        answer = protocol.accept(parsed)
        protocol.send_response(answer)
        await conn.send_raw(b"".join(protocol.data_to_send()))
        if answer.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        conn.use_websocket(protocol)
        return conn.unwrap(leftover) if leftover else b""

    # -- DERP

    async def _serve_derp(self, conn: Connection, leftover: bytes) -> bytes | None:
        """ServerKey, ClientInfo, admission, ServerInfo, with nothing in between."""
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await conn.send(server_key_frame(self.key.public()))
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            payload, leftover = await self._receive_hello(conn, leftover)
        client, info = parse_client_info(payload, self.key)
        if client.is_zero:
            raise HandshakeError("the client has no key")
        conn.key = client.raw
        conn.prober = info.is_prober
        conn.trusted = self._has_mesh_key(info)
        if not conn.trusted and not await self.admission.admit(client.raw):
            logger.info("refused %s from %s: its key is not served here", client.short(), conn.address[0])
            return None
        async with asyncio.timeout(HANDSHAKE_SECONDS):
            await conn.send(self._server_info_for(client))
        return leftover

    def _has_mesh_key(self, info: ClientInfo) -> bool:
        return bool(self.mesh_key) and secrets.compare_digest(info.mesh_key.encode(), self.mesh_key.encode())

    def _server_info_for(self, client: NodePublic) -> bytes:
        return server_info_frame(self.key, client, secrets.token_bytes(NONCE_BYTES), self.server_info)

    async def _receive_hello(self, conn: Connection, data: bytes) -> tuple[bytes, bytes]:
        """ClientInfo's payload and what came behind it. Few clients at once may send a large one."""
        while len(data) < FRAME_HEAD:
            data += await conn.receive()
        kind, length = data[0], int.from_bytes(data[1:FRAME_HEAD], "big")
        if kind != FrameType.CLIENT_INFO or length > MAX_CLIENT_INFO_BYTES:
            raise HandshakeError("the client did not begin with ClientInfo")
        end = FRAME_HEAD + length
        if length <= SMALL_HELLO_BYTES:
            data = await _receive_until(conn, data, end)
        elif self.large.locked():
            raise HandshakeError("too many clients with a large ClientInfo")
        else:
            async with self.large:
                data = await _receive_until(conn, data, end)
        return data[FRAME_HEAD:end], data[end:]


async def _receive_until(conn: Connection, data: bytes, end: int) -> bytes:
    while len(data) < end:
        data += await conn.receive()
    return data


def _challenge_headers(request: Request) -> dict[str, str]:
    challenge = request.headers.get("x-tailscale-challenge", "")
    headers = {"Cache-Control": NO_CACHE}
    if CHALLENGE.fullmatch(challenge):
        headers["X-Tailscale-Response"] = f"response {challenge}"
    return headers


def describe(error: BaseException) -> str:
    """Why a handshake failed, for the log."""
    if isinstance(error, TimeoutError):
        return f"nothing within {HANDSHAKE_SECONDS:.0f} s"
    return str(error) if isinstance(error, WireError) else f"{type(error).__name__}: {error}"
