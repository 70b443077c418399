"""``GET /relay/v1``: how a relay learns which node keys it may serve, and reports what it does.

The relay dials out and proves itself by its bearer token. It gets the full list of keys once, then every
key added or removed as it happens, and sends its counters every few seconds. JSON text messages:

- to the relay: ``{"type": "keys"|"add"|"remove", "version": n, "keys": ["nodekey:…"]}``, ``{"type": "ping"}``
- from it: ``{"type": "hello", …}``, ``{"type": "stats", …}``, ``{"type": "pong"}``
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from datetime import datetime
from typing import Any

from channels.consumer import AsyncConsumer
from channels.db import database_sync_to_async
from channels.exceptions import StopConsumer

from controlplane.hub import get_hub
from controlplane.relaykeys import KeyChange
from controlplane.services import relays

logger = logging.getLogger("trenza.relay_link")

MAX_MESSAGE_BYTES = 64 * 1024
PING_SECONDS = 20.0
UNAUTHORIZED = 4401
TOO_SLOW = 4408
BAD_MESSAGE = 4400


class RelayConsumer(AsyncConsumer):  # type: ignore[misc]
    """One relay's link to the server."""

    channel_layer_alias = "none"

    relay: relays.RelayIdentity | None = None
    since: datetime | None = None
    writer: asyncio.Task[None] | None = None

    async def websocket_connect(self, message: dict[str, Any]) -> None:
        relay = await self._identity()
        await self.send({"type": "websocket.accept"})
        if relay is None:
            await self._close(UNAUTHORIZED)
            return
        self.relay = relay
        self.writer = asyncio.get_running_loop().create_task(self._feed(relay))

    @database_sync_to_async  # type: ignore[untyped-decorator]
    def _identity(self) -> relays.RelayIdentity | None:
        headers = dict(self.scope.get("headers", []))
        scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
        return relays.relay_of_token(token) if scheme == "Bearer" else None

    async def _feed(self, relay: relays.RelayIdentity) -> None:
        """Send the full list, then every change in order, until the socket ends."""
        keys = get_hub().relay_keys
        link = await keys.subscribe(relay.tailnet_id)
        try:
            await self._send({"type": "keys", "version": link.version, "keys": link.keys})
            while True:
                try:
                    async with asyncio.timeout(PING_SECONDS):
                        change = await link.next()
                except TimeoutError:
                    await self._send({"type": "ping"})
                    continue
                if change is None:  # too many changes were waiting: the relay starts over with a full list
                    await self._close(TOO_SLOW)
                    return
                await self._send_change(change)
        finally:
            keys.unsubscribe(link)

    async def _send_change(self, change: KeyChange) -> None:
        for kind, keys in (("remove", change.removed), ("add", change.added)):
            if keys:
                await self._send({"type": kind, "version": change.version, "keys": keys})

    async def websocket_receive(self, message: dict[str, Any]) -> None:
        text = message.get("text")
        try:
            if text is None or len(text) > MAX_MESSAGE_BYTES or self.relay is None:
                raise ValueError
            report = json.loads(text)
            if not isinstance(report, dict):
                raise ValueError
        except ValueError:
            await self._close(BAD_MESSAGE)
            return
        if await self._identity() != self.relay:  # deleted meanwhile, or its token was changed
            await self._close(UNAUTHORIZED)
            return
        if report.get("type") in ("hello", "stats"):
            since = await database_sync_to_async(relays.record_report)(relay=self.relay, report=report)
            self.since = since or self.since

    async def websocket_disconnect(self, message: dict[str, Any]) -> None:
        if self.writer is not None:
            self.writer.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.writer
        if self.relay is not None:
            await database_sync_to_async(relays.record_disconnect)(relay=self.relay, since=self.since)
        raise StopConsumer

    async def _send(self, content: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, RuntimeError):  # it may have gone while we were looking
            await self.send({"type": "websocket.send", "text": json.dumps(content)})

    async def _close(self, code: int) -> None:
        await self.send({"type": "websocket.close", "code": code})
