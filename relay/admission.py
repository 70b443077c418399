"""Whom the relay serves: the keys that the server names over an outbound WebSocket, ``GET /relay/v1``.

The relay dials, proves itself by its bearer token, says ``hello``, and gets the full list and then each key
added or removed. A removed key is cut off at once. The last list is kept on disk and serves without age limit
while the server is away; a key that is on no list is refused, after a short wait for one that is on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidURI

from relay.files import load_served, save_served
from relay.limits import (
    ADMISSION_SECONDS,
    LINK_BACKOFF_FIRST,
    LINK_BACKOFF_MAX,
    LINK_OPEN_SECONDS,
    MAX_ADMISSION_WAITERS,
    MAX_LINK_MESSAGE,
    SAVE_SECONDS,
    STATS_SECONDS,
)
from wire.errors import WireError
from wire.keys import NodePublic

logger = logging.getLogger("trenza.relay.admission")

UNAUTHORIZED = 4401  # the server does not know this token
LINK_ERRORS = (OSError, TimeoutError, InvalidHandshake, InvalidURI, ConnectionClosed, ValueError)
STEADY_SECONDS = 30.0  # a link that lived this long starts over without backoff


class Admission:
    """The list of served keys. ``cut`` ends a key's connections; ``everybody``: no list, all are admitted."""

    def __init__(
        self,
        data: Path,
        cut: Callable[[bytes], object],
        *,
        everybody: bool = False,
        wait: float = ADMISSION_SECONDS,
    ) -> None:
        self._data = data
        self._cut = cut
        self._everybody = everybody
        self._wait = wait
        self._keys = load_served(data) or frozenset()
        self._waiters: dict[bytes, list[asyncio.Future[None]]] = {}
        self._waiting = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._keys)

    def allows(self, key: bytes) -> bool:
        """Whether this raw key is served now."""
        return self._everybody or key in self._keys

    async def admit(self, key: bytes) -> bool:
        """Whether this key is served, or becomes so within a short wait."""
        if self.allows(key) or self._waiting >= MAX_ADMISSION_WAITERS:
            return self.allows(key)
        known = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(key, []).append(known)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait):
                await known
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1
            self._forget_waiter(key, known)
        return self.allows(key)

    def _forget_waiter(self, key: bytes, known: asyncio.Future[None]) -> None:
        waiters = self._waiters.get(key, [])
        if known in waiters:
            waiters.remove(known)
        if not waiters:
            self._waiters.pop(key, None)

    # -- what the server says

    def replace(self, keys: Iterable[bytes]) -> None:
        """The full list: what is not on it is cut off."""
        fresh = frozenset(keys)
        self._set(fresh, added=fresh - self._keys, removed=self._keys - fresh)

    def add(self, keys: Iterable[bytes]) -> None:
        added = frozenset(keys)
        self._set(self._keys | added, added=added, removed=frozenset())

    def remove(self, keys: Iterable[bytes]) -> None:
        removed = frozenset(keys)
        self._set(self._keys - removed, added=frozenset(), removed=removed)

    def _set(self, keys: frozenset[bytes], *, added: frozenset[bytes], removed: frozenset[bytes]) -> None:
        self._keys = keys
        for key in removed:
            self._cut(key)
        for key in added:
            for known in self._waiters.pop(key, ()):
                if not known.done():
                    known.set_result(None)
        if added or removed:
            self._changed.set()

    async def keep_saved(self) -> None:
        """Write the list to disk after every change, changes of one second together."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await asyncio.to_thread(save_served, self._data, self._keys)
            except OSError as error:
                logger.error("cannot keep the list of keys in %s: %s", self._data, error.strerror or error)
                self._changed.set()
            await asyncio.sleep(SAVE_SECONDS)

    def save_now(self) -> None:
        """Write what is not written yet (at the relay's end)."""
        if self._changed.is_set():
            with contextlib.suppress(OSError):
                save_served(self._data, self._keys)


def parse_keys(message: Mapping[str, Any]) -> list[bytes]:
    """The raw keys of a message; a malformed one is left out: it could not connect anyway."""
    keys = message.get("keys")
    parsed = []
    for text in keys if isinstance(keys, list) else ():
        with contextlib.suppress(WireError):
            parsed.append(NodePublic.parse(str(text)).raw)
    return parsed


class ControlLink:
    """The WebSocket to the server, dialled again for ever, on which the relay says hello and stats."""

    def __init__(
        self,
        url: str,
        token: str,
        admission: Admission,
        *,
        hello: Mapping[str, Any],
        stats: Callable[[], Mapping[str, Any]],
    ) -> None:
        self._url = f"ws{url.removeprefix('http')}/relay/v1"
        self._server = url
        self._token = token
        self._admission = admission
        self._hello = hello
        self._stats = stats
        self.connected = False
        self._complaint = ""

    async def run(self) -> None:
        """Keep the link until cancelled."""
        loop = asyncio.get_running_loop()
        wait = LINK_BACKOFF_FIRST
        while True:
            started = loop.time()
            try:
                await self._serve_once()
            except (
                OSError,
                TimeoutError,
                InvalidHandshake,
                InvalidURI,
                ConnectionClosed,
                ValueError,
            ) as error:
                self._complain(error)
            finally:
                self.connected = False
            if loop.time() - started > STEADY_SECONDS:
                wait = LINK_BACKOFF_FIRST
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - a jitter, no secret
            wait = min(wait * 2, LINK_BACKOFF_MAX)

    def _complain(self, error: Exception) -> None:
        """Say once why there is no link, and again only when the reason changes."""
        text = f"no link to {self._server}: {error or type(error).__name__}; serving the keys known so far"
        if isinstance(error, ConnectionClosed) and error.rcvd and error.rcvd.code == UNAUTHORIZED:
            text = (
                f"{self._server} does not know this relay's token; set TRENZA_RELAY_TOKEN to the one it shows"
            )
        if text != self._complaint:
            logger.warning("%s", text)
            self._complaint = text

    async def _serve_once(self) -> None:
        async with connect(
            self._url,
            additional_headers={"Authorization": f"Bearer {self._token}"},
            compression=None,
            max_size=MAX_LINK_MESSAGE,
            open_timeout=LINK_OPEN_SECONDS,
            proxy=None,
        ) as socket:
            await _send(socket, {"type": "hello", **self._hello})
            reporter = asyncio.get_running_loop().create_task(self._report(socket))
            try:
                async for text in socket:
                    await self._handle(json.loads(text), lambda content: _send(socket, content))
                raise ConnectionError("the server closed the link")
            finally:
                reporter.cancel()

    async def _handle(self, message: Any, reply: Callable[[Mapping[str, Any]], Awaitable[None]]) -> None:
        kind = message.get("type") if isinstance(message, dict) else None
        if kind == "keys":
            self._admission.replace(parse_keys(message))
            self.connected, self._complaint = True, ""
            logger.info("linked to %s: %d keys", self._server, len(self._admission))
        elif kind == "add":
            self._admission.add(parse_keys(message))
        elif kind == "remove":
            self._admission.remove(parse_keys(message))
        elif kind == "ping":
            await reply({"type": "pong"})

    async def _report(self, socket: ClientConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await _send(socket, {"type": "stats", **self._stats()})
                await asyncio.sleep(STATS_SECONDS)


async def _send(socket: ClientConnection, content: Mapping[str, Any]) -> None:
    await socket.send(json.dumps(content))
