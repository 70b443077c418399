"""One control connection: a sans-IO session over a carrier, with requests and streams for the code above.

An HTTP/2 PING every 15 s keeps it known to be alive; 40 s without a byte end it.
Source: tailscale control/ts2021.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from client.control.carriers import Carrier, CarrierKind, HandshakeRefused, open_carrier
from client.control.dial import CONNECT_SECONDS, Dialer, Server
from client.errors import ControlError
from wire.control import CAPABILITY_VERSION
from wire.errors import DecryptError, HandshakeError, WireError
from wire.keys import MachinePrivate, MachinePublic
from wire.noise import RESPONSE_BYTES
from wire.session import (
    ClientSession,
    DataReceived,
    ResponseStarted,
    SessionClosed,
    StreamClosed,
    StreamEnded,
)

PING_SECONDS = 15.0
DEAD_SECONDS = 40.0
REQUEST_SECONDS = 30.0
MAX_ANSWER_BYTES = 1024 * 1024
MAX_UNREAD_BYTES = 64 * 1024 * 1024 + 64 * 1024
PROBE_SECONDS = 5.0  # after a new network or sleep an answer is expected so soon
PING_BYTES = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Exchange:
    """One request's answer as it arrives."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    error: ControlError | None = None
    _unread: bytearray = field(default_factory=bytearray)
    _ended: bool = False
    _changed: asyncio.Event = field(default_factory=asyncio.Event)

    def take_head(self, status: int, headers: dict[str, str]) -> None:
        self.status, self.headers = status, headers
        self._changed.set()

    def take(self, data: bytes) -> None:
        if len(self._unread) + len(data) > MAX_UNREAD_BYTES:
            return self.end(ControlError("the server sends more than a client can hold"))
        self._unread += data
        self._changed.set()
        return None

    def end(self, error: ControlError | None = None) -> None:
        if not self._ended:
            self._ended, self.error = True, error
            self._changed.set()

    async def head(self) -> int:
        """Wait for the answer's head; its status."""
        while not self.status:
            await self._more()
        return self.status

    async def read(self) -> bytes:
        """The bytes that have come since the last call, waiting for some; empty at the end."""
        while not self._unread:
            if self._ended and self.error is None:
                return b""
            await self._more()
        data = bytes(self._unread)
        self._unread.clear()
        return data

    async def _more(self) -> None:
        if self._ended:
            raise self.error or ControlError("the server ended an answer before it began")
        self._changed.clear()
        await self._changed.wait()


class Link:
    """An open session. Made by :func:`open_link`, which also runs it."""

    def __init__(self, session: ClientSession, carrier: Carrier) -> None:
        self._session = session
        self._carrier = carrier
        self._exchanges: dict[int, Exchange] = {}
        self._writing = asyncio.Lock()
        self._lost: ControlError | None = None
        self._ping_now = asyncio.Event()
        self._patience: asyncio.Timeout | None = None

    @property
    def kind(self) -> CarrierKind:
        return self._carrier.kind

    async def request(
        self, method: str, path: str, body: bytes = b"", *, patience: float | None = REQUEST_SECONDS
    ) -> Answer:
        """Ask and wait for the whole answer; ``patience`` ``None`` waits as long as the connection lives."""
        try:
            async with asyncio.timeout(patience), self.stream(method, path, body) as exchange:
                status, content = await exchange.head(), b""
                while data := await exchange.read():
                    content += data
                    if len(content) > MAX_ANSWER_BYTES:
                        raise ControlError(f"the server's answer to {path} is too large")
                return Answer(status, exchange.headers, content)
        except TimeoutError:
            raise ControlError(f"the server did not answer {path} in {patience:.0f} s") from None

    @asynccontextmanager
    async def stream(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[Exchange]:
        """Ask and read the answer as it comes; leaving early abandons it."""
        if self._lost is not None:
            raise self._lost
        try:
            stream_id = self._session.request(method, path, body)
        except WireError as error:
            raise ControlError(f"the control connection takes no more requests: {error}") from error
        exchange = self._exchanges[stream_id] = Exchange()
        try:
            await self._flush()
            yield exchange
        finally:
            if self._exchanges.pop(stream_id, None) is not None:
                self._session.reset(stream_id)
                await self._flush()

    async def run(self) -> None:
        """Move bytes until the connection ends; always raises :class:`ControlError` that says how."""
        pinger = asyncio.create_task(self._ping())
        try:
            await self._pump()
        except ControlError as error:
            self._lose(error)
            raise
        finally:
            self._lose(ControlError("the control connection was closed"))
            pinger.cancel()
            await asyncio.gather(pinger, return_exceptions=True)

    def probe(self) -> None:
        """Ask the server for a sign of life now; without one in :data:`PROBE_SECONDS` the connection ends."""
        self._ping_now.set()
        soon = asyncio.get_running_loop().time() + PROBE_SECONDS
        if self._patience is not None and (self._patience.when() or soon) >= soon:
            self._patience.reschedule(soon)

    async def close(self) -> None:
        """Say goodbye and close the carrier."""
        self._session.close()
        await self._flush()
        await self._carrier.close()

    async def handshake(self) -> None:
        """Take the server's half of the Noise handshake; raises :class:`ControlError`."""
        received = b""
        while len(received) < RESPONSE_BYTES:
            data = await self._carrier.read()
            if not data:
                raise HandshakeRefused("the server closed the connection during the handshake")
            received += data
        try:
            self._session.receive_handshake(received[:RESPONSE_BYTES])
            self._receive(received[RESPONSE_BYTES:])
        except (HandshakeError, DecryptError) as error:
            raise HandshakeRefused(f"the server's key does not fit: {error}") from error
        except WireError as error:
            raise ControlError(f"the server broke the control protocol: {error}") from error
        await self._flush()

    async def _pump(self) -> None:
        while True:
            data = await self._read()
            if not data:
                raise ControlError("the server closed the control connection")
            try:
                self._receive(data)
            except WireError as error:
                raise ControlError(f"the server broke the control protocol: {error}") from error
            await self._flush()

    async def _read(self) -> bytes:
        try:
            async with asyncio.timeout(DEAD_SECONDS) as self._patience:
                return await self._carrier.read()
        except TimeoutError:
            raise ControlError("the server went silent") from None
        finally:
            self._patience = None

    async def _ping(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PING_SECONDS):
                    await self._ping_now.wait()
            self._ping_now.clear()
            self._session.ping(os.urandom(PING_BYTES))
            await self._flush()

    async def _flush(self) -> None:
        """Send what the session has; what it makes is numbered, so it must go out in order."""
        async with self._writing:
            if data := self._session.data_to_send():
                with contextlib.suppress(OSError):  # the reader sees the end too, and says so
                    await self._carrier.write(data)

    def _receive(self, data: bytes) -> None:
        if not data:
            return
        for event in self._session.receive_data(data):
            if isinstance(event, SessionClosed):
                raise ControlError(f"the server ended the session: {event.reason}")
            if not isinstance(event, ResponseStarted | DataReceived | StreamEnded | StreamClosed):
                continue
            exchange = self._exchanges.get(event.stream_id)
            if exchange is None:
                continue
            if isinstance(event, ResponseStarted):
                exchange.take_head(event.status, event.headers)
            elif isinstance(event, DataReceived):
                exchange.take(event.data)
            else:
                del self._exchanges[event.stream_id]
                gone = isinstance(event, StreamClosed)
                exchange.end(ControlError("the server abandoned an answer") if gone else None)

    def _lose(self, error: ControlError) -> None:
        if self._lost is None:
            self._lost = error
            for exchange in self._exchanges.values():
                exchange.end(error)
            self._exchanges.clear()


@asynccontextmanager
async def open_link(
    kind: CarrierKind, dialer: Dialer, server: Server, machine: MachinePrivate, key: MachinePublic
) -> AsyncIterator[Link]:
    """A control connection for as long as the context lasts; what it reads fails when the connection does.

    Raises :class:`ControlError`, and :class:`HandshakeRefused` when ``key`` may no longer be the server's.
    """
    session = ClientSession(machine, key, CAPABILITY_VERSION, os.urandom(32))
    carrier = await open_carrier(kind, dialer, server, session.initiation())
    link = Link(session, carrier)
    runner: asyncio.Task[None] | None = None
    try:
        await _shake_hands(link, server)
        runner = asyncio.create_task(link.run())
        yield link
    finally:
        try:
            if runner is not None:
                runner.cancel()
                await asyncio.gather(runner, return_exceptions=True)
            await link.close()
        finally:  # also when nobody waits for the goodbye any more
            carrier.abort()


async def _shake_hands(link: Link, server: Server) -> None:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            await link.handshake()
    except TimeoutError:
        raise ControlError(f"{server.url} did not answer the handshake in time") from None
