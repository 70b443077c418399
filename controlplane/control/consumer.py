"""Carrier 2: the control protocol over a WebSocket, ``GET /ts2021``, as a Channels consumer.

It passes every proxy that passes WebSockets. The consumer joins no group and uses no channel layer: it only
moves bytes between the socket and the same driver that serves carrier 1.
Protocol: tailscale control/controlhttp/controlhttpserver, its WebSocket case.
"""

from __future__ import annotations

import asyncio
import base64
import logging
from collections import deque
from typing import Any
from urllib.parse import parse_qs

from channels.consumer import AsyncConsumer
from channels.exceptions import StopConsumer

from controlplane.control.driver import ControlDriver, new_session
from controlplane.env import environment
from controlplane.middleware import client_address
from wire.errors import WireError

SUBPROTOCOL = "tailscale-control-protocol"
HANDSHAKE_FIELD = "X-Tailscale-Handshake"
POLICY_VIOLATION = 1008
GOING_AWAY = 1001
access_logger = logging.getLogger("uvicorn.access")


class WebSocketCarrier:
    """The driver's view of an ASGI WebSocket: an unbounded-looking queue whose size the driver bounds."""

    name = "websocket"

    def __init__(self, send: Any) -> None:
        self._send = send
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._wake = asyncio.Event()
        self._closing = False

    def write(self, data: bytes) -> None:
        self._queue.append(data)
        self._size += len(data)
        self._wake.set()

    def buffered(self) -> int:
        return self._size

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    def abort(self) -> None:
        """Close without what is still queued."""
        self._queue.clear()
        self._size = 0
        self.close()

    async def run(self) -> None:
        """Write what is queued, one message per batch, until closed; then close the socket."""
        try:
            while not self._closing or self._queue:
                await self._wake.wait()
                self._wake.clear()
                await self._write_queue()
            await self._send({"type": "websocket.close", "code": GOING_AWAY})
        except (OSError, RuntimeError):  # uvicorn's words for a socket that is gone; the consumer hears of it
            self.abort()

    async def _write_queue(self) -> None:
        while self._queue:
            data = self._queue.popleft() if len(self._queue) == 1 else b"".join(self._queue)
            self._queue.clear()
            await self._send({"type": "websocket.send", "bytes": data})
            self._size = max(0, self._size - len(data))


class ControlConsumer(AsyncConsumer):  # type: ignore[misc]
    """One control connection over a WebSocket."""

    channel_layer_alias = "none"  # no layer of this name exists: no channel is made for this consumer

    driver: ControlDriver | None = None
    writer: asyncio.Task[None] | None = None

    async def websocket_connect(self, message: dict[str, Any]) -> None:
        query = parse_qs(self.scope["query_string"].decode("latin-1"))
        try:
            initiation = base64.b64decode(query.get(HANDSHAKE_FIELD, [""])[0], validate=True)
            session = new_session(early_payload=False)
            session.receive_handshake(initiation)
        except (ValueError, WireError):  # not base64 (or not even ASCII), or no Noise initiation
            await self.send({"type": "websocket.close", "code": POLICY_VIOLATION})
            raise StopConsumer from None
        offered = self.scope.get("subprotocols", [])
        await self.send(
            {"type": "websocket.accept", "subprotocol": SUBPROTOCOL if SUBPROTOCOL in offered else None}
        )
        carrier = WebSocketCarrier(self.send)
        self.driver = ControlDriver(session, carrier, self._client_address())
        self.writer = asyncio.get_running_loop().create_task(carrier.run())
        self.driver.start()

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        data = message.get("bytes")
        if self.driver is None:
            return
        if data is None:
            self.driver.close("a control connection carries binary messages only")
        else:
            self.driver.feed(data)

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        if self.driver is not None:
            self.driver.lost()
        if self.writer is not None:
            self.writer.cancel()
        raise StopConsumer

    def _client_address(self) -> str:
        peer = (self.scope.get("client") or ("", 0))[0]
        headers = dict(self.scope.get("headers", []))
        forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1")
        return client_address(peer, forwarded, environment().trusted_proxies)
