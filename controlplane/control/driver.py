"""One control connection: a sans-IO Noise/HTTP2 session between a carrier and the request handlers.

Both carriers (the HTTP Upgrade of :mod:`controlplane.control.upgrade` and the Channels consumer of
:mod:`controlplane.control.consumer`) only move bytes; everything that the peer may ask goes through here.
The peer is known by its machine key alone: each handler checks that the NodeKey it names belongs to it.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import Protocol

from controlplane.control.c2n import handle_other
from controlplane.control.flows import handle_flows
from controlplane.control.map import handle_map
from controlplane.control.paths import handle_paths
from controlplane.control.register import handle_register
from controlplane.control.ssh import handle_ssh_action
from controlplane.control.streams import JSON_HEADERS, TEXT_HEADERS
from controlplane.netmap.policy.ssh import HOLD_PATH
from controlplane.services.serverkeys import noise_key
from wire.errors import WireError
from wire.flows import PATH as FLOWS
from wire.keys import ChallengePrivate, MachinePublic
from wire.paths import PATH as PATHS
from wire.session import RequestReceived, ServerSession, SessionClosed, StreamClosed

logger = logging.getLogger("trenza.control")

MAX_REQUESTS = 32  # handlers running at once for one connection
FIRST_REQUEST_SECONDS = 10.0
# A peer that is silent is asked whether it is there (every HTTP/2 answers a PING), then given up. A network
# that swallows packets would else hold its stream, and call the node online, for a quarter of an hour.
CHECK_SECONDS = 20.0
SILENT_SECONDS = 55.0
PING = b"are you?"
MAX_BODY_BYTES = 1024 * 1024
MAX_UNSENT_BYTES = 8 * 1024 * 1024  # a carrier holding more than this is stuck: close it
Handler = Callable[[RequestReceived, MachinePublic, int, "ResponseStream", str], Awaitable[None]]
ROUTES: dict[tuple[str, str], Handler] = {
    ("POST", "/machine/register"): handle_register,
    ("POST", "/machine/map"): handle_map,
    ("POST", PATHS): handle_paths,
    ("POST", FLOWS): handle_flows,
}


class Carrier(Protocol):
    """What moves a session's bytes: never blocks, tells how much it still holds."""

    name: str

    def write(self, data: bytes) -> None: ...

    def buffered(self) -> int: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def new_session(*, early_payload: bool) -> ServerSession:
    """A session with fresh entropy under this server's Noise key.

    The WebSocket carrier gets no early payload: the reference server sends none there.
    """
    challenge = ChallengePrivate.generate(secrets.token_bytes(32)).public() if early_payload else None
    return ServerSession(
        noise_key(), ephemeral=secrets.token_bytes(32), challenge=challenge, max_body=MAX_BODY_BYTES
    )


class ResponseStream:
    """One request's answer: whole (:meth:`finish`) or streamed (:meth:`start`, then :meth:`send`)."""

    def __init__(self, driver: ControlDriver, stream_id: int) -> None:
        self._driver = driver
        self.stream_id = stream_id
        self.open = True
        self._started = False
        self._on_closed: Callable[[], None] | None = None

    def start(self, status: int = 200, headers: list[tuple[str, str]] | None = None) -> None:
        """Send the head of a streamed answer at once."""
        if self.open and not self._started:
            self._started = True
            self._driver.session.start_stream(self.stream_id, status, headers or JSON_HEADERS)
            self._driver.flush()

    def send(self, frame: bytes) -> bool:
        """Queue one frame of a streamed answer; ``False`` when the stream or connection is gone."""
        if self.open:
            self._driver.send(lambda session: session.send_data(self.stream_id, frame))
        return self.open

    @property
    def pending(self) -> int:
        """Bytes that were sent here and that the peer has not taken yet."""
        if not self.open:
            return 0
        return self._driver.session.pending(self.stream_id) + self._driver.carrier.buffered()

    def finish(
        self, body: bytes = b"", status: int = 200, headers: list[tuple[str, str]] | None = None
    ) -> None:
        """Answer whole, or end a streamed answer after ``body``."""
        if not self.open:
            return
        if self._started:
            self._driver.send(lambda session: session.end_stream(self.stream_id, body))
        else:
            answer_headers = headers or JSON_HEADERS
            self._driver.send(lambda session: session.respond(self.stream_id, status, answer_headers, body))
        self.mark_closed()

    def close(self) -> None:
        """End the stream; the client of a long poll reconnects."""
        self.finish()

    def ping(self) -> int:
        """Ask the peer for a sign of life; returns how many it owes, this one counted."""
        return self._driver.ping() if self.open else 0

    def abort(self) -> None:
        """End the whole connection of a peer that is gone without a word."""
        self._driver.abort()

    def on_closed(self, callback: Callable[[], None]) -> None:
        """Call back once when the stream ends, from whichever side; at once if it already has."""
        if self.open:
            self._on_closed = callback
        else:
            callback()

    def mark_closed(self) -> None:
        if self.open:
            self.open = False
            self._driver.forget(self.stream_id)
            if self._on_closed is not None:
                self._on_closed()


class ControlDriver:
    """Feeds a session with the carrier's bytes and runs a handler for every request in it."""

    def __init__(self, session: ServerSession, carrier: Carrier, client_address: str) -> None:
        self.session = session
        self.carrier = carrier
        self.client_address = client_address
        self._streams: dict[int, ResponseStream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._closed = False
        self._owed_pings = 0
        self._loop = asyncio.get_running_loop()
        self._first_request = self._loop.call_later(FIRST_REQUEST_SECONDS, self._nothing_asked)
        self._heard = self._loop.time()
        self._check = self._loop.call_later(CHECK_SECONDS, self._check_peer)

    def start(self) -> None:
        """Send the handshake's answer (and the early payload) at once."""
        self.flush()

    def feed(self, data: bytes) -> None:
        """Take bytes from the carrier; a peer that breaks the protocol loses its connection."""
        if self._closed:
            return
        self._heard = self._loop.time()
        self._owed_pings = 0
        try:
            events = self.session.receive_data(data)
        except WireError as error:
            logger.info("control connection from %s broke the protocol: %s", self.client_address, error)
            self.flush()
            self._end()
            return
        for event in events:
            if isinstance(event, RequestReceived):
                self._begin(event)
            elif isinstance(event, StreamClosed):
                self._abandon(event.stream_id)
            elif isinstance(event, SessionClosed):
                self.flush()
                self._end()
                return
        self.flush()

    def send(self, action: Callable[[ServerSession], None]) -> None:
        """Have the session send something; a peer that lets too much wait loses its connection."""
        try:
            action(self.session)
        except WireError as error:
            logger.info("control connection from %s: %s; closing it", self.client_address, error)
            self.abort()
            return
        self.flush()

    def flush(self) -> None:
        """Move what the session has to send to the carrier."""
        if self._closed:
            return
        if data := self.session.data_to_send():
            self.carrier.write(data)
        if self.carrier.buffered() > MAX_UNSENT_BYTES:
            logger.info("control connection from %s takes nothing; closing it", self.client_address)
            self.abort()

    def ping(self) -> int:
        """Send an HTTP/2 PING; whatever comes after it is an answer. Returns how many have none."""
        self._owed_pings += 1
        self.send(lambda session: session.ping(PING))
        return self._owed_pings

    def abort(self) -> None:
        """Drop the carrier without a word."""
        self.carrier.abort()
        self.lost()

    def lost(self) -> None:
        """The carrier is gone: end every stream and handler."""
        if self._closed:
            return
        self._closed = True
        self._first_request.cancel()
        self._check.cancel()
        for stream in list(self._streams.values()):
            stream.mark_closed()
        for task in list(self._tasks.values()):
            task.cancel()

    def close(self, reason: str) -> None:
        """End the connection from our side, telling the peer first."""
        logger.debug("closing control connection from %s: %s", self.client_address, reason)
        self.session.close()
        self.flush()
        self._end()

    def forget(self, stream_id: int) -> None:
        self._streams.pop(stream_id, None)

    def _end(self) -> None:
        self.carrier.close()
        self.lost()

    def _check_peer(self) -> None:
        """Ask a silent peer whether it is there; one that stays silent has gone without a word."""
        silent = self._loop.time() - self._heard
        if silent >= SILENT_SECONDS:
            logger.info("control connection from %s is dead; closing it", self.client_address)
            self.abort()
            return
        self._check = self._loop.call_later(CHECK_SECONDS, self._check_peer)
        if silent >= CHECK_SECONDS:
            self.send(lambda session: session.ping(PING))

    def _nothing_asked(self) -> None:
        logger.info("control connection from %s asked nothing; closing it", self.client_address)
        self._end()

    def _begin(self, request: RequestReceived) -> None:
        self._first_request.cancel()
        if len(self._tasks) >= MAX_REQUESTS:
            busy = [*TEXT_HEADERS, ("retry-after", "5")]
            self.send(lambda session: session.respond(request.stream_id, 429, busy, b"too many at once"))
            return
        stream = ResponseStream(self, request.stream_id)
        self._streams[request.stream_id] = stream
        task = self._loop.create_task(self._handle(request, stream))
        self._tasks[request.stream_id] = task
        task.add_done_callback(lambda _: self._tasks.pop(request.stream_id, None))

    def _abandon(self, stream_id: int) -> None:
        """The peer reset a stream: a waiting follow-up ends, a long poll is over."""
        if (stream := self._streams.get(stream_id)) is not None:
            stream.mark_closed()
        if (task := self._tasks.get(stream_id)) is not None:
            task.cancel()

    async def _handle(self, request: RequestReceived, stream: ResponseStream) -> None:
        try:
            await self._route(request, stream)
        except WireError as error:
            stream.finish(str(error).encode(), 400, TEXT_HEADERS)
        except Exception:
            logger.exception("control request %s %s failed", request.method, request.path)
            stream.finish(b"internal error", 500, TEXT_HEADERS)

    async def _route(self, request: RequestReceived, stream: ResponseStream) -> None:
        path = request.path.split("?", 1)[0]
        handler = ROUTES.get((request.method, path), handle_other)
        if request.method == "GET" and path.startswith(HOLD_PATH):
            handler = handle_ssh_action
        await handler(request, self.session.peer, self.session.version, stream, self.client_address)
