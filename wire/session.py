"""The ts2021 session as state machines: Noise records around HTTP/2, on either side, without IO.

Feed bytes from the carrier to ``receive_data``, act on the events, and move ``data_to_send`` to the carrier.
Time never enters: drivers own the timeouts. Source: tailscale control/ts2021, control/controlbase; RFC 9113.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from wire.errors import MessageError, SessionError, WireError
from wire.keys import ChallengePublic, MachinePrivate, MachinePublic
from wire.noise import Accepted, Initiator, Responder, Transport

MAX_BODY_BYTES = 1024 * 1024
MAX_BODIES_BYTES = 4 * MAX_BODY_BYTES  # of all requests of a connection that are still arriving
MAX_CONCURRENT_STREAMS = 250
MAX_HEADER_LIST_BYTES = 64 * 1024
# Streams that a client may reset without having been answered (rapid reset, CVE-2023-44487).
MAX_RESETS = 200
WINDOW_BYTES = 4 * 1024 * 1024
EARLY_MAGIC = b"\xff\xff\xffTS"
MAX_EARLY_BYTES = 1024
MAX_PENDING_BYTES = 64 * 1024 * 1024  # of all streams of a connection, waiting for the peer's windows
PING_BYTES = 8

Headers = Sequence[tuple[str, str]]


# --- events ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RequestReceived:
    """Server: one whole request (its body is bounded)."""

    stream_id: int
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class ResponseStarted:
    """Client: the head of an answer."""

    stream_id: int
    status: int
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class DataReceived:
    """Client: a piece of an answer's body."""

    stream_id: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StreamEnded:
    """Client: the answer is complete."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The peer abandoned the stream (RST_STREAM)."""

    stream_id: int


@dataclass(frozen=True, slots=True)
class PingAcked:
    payload: bytes


@dataclass(frozen=True, slots=True)
class EarlyPayload:
    """Client: the server's challenge key, sent before HTTP/2 begins."""

    challenge: ChallengePublic


@dataclass(frozen=True, slots=True)
class SessionClosed:
    """The peer ended the session (GOAWAY)."""

    reason: str


Event = (
    RequestReceived
    | ResponseStarted
    | DataReceived
    | StreamEnded
    | StreamClosed
    | PingAcked
    | EarlyPayload
    | SessionClosed
)


@dataclass(slots=True)
class _Incoming:
    """A request that is still arriving."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytearray = field(default_factory=bytearray)


def _fields(headers: Iterable[tuple[bytes | str, bytes | str]]) -> dict[str, str]:
    def text(value: bytes | str) -> str:
        return value if isinstance(value, str) else value.decode("latin-1")

    return {text(name): text(value) for name, value in headers}


# --- what both sides share -------------------------------------------------------------------------------


class _Session:
    """HTTP/2 over Noise records: flow control, queues of what the peer's windows do not take yet."""

    def __init__(self, *, client_side: bool) -> None:
        config = h2.config.H2Configuration(
            client_side=client_side,
            header_encoding=None,
            validate_inbound_headers=True,
            validate_outbound_headers=False,
            normalize_outbound_headers=False,
        )
        self._h2 = h2.connection.H2Connection(config)
        self._transport: Transport | None = None
        self._outgoing: list[bytes] = []
        self._pending: dict[int, bytearray] = {}
        self._pending_bytes = 0
        self._ending: set[int] = set()
        self.closed = False

    def _begin(self) -> None:
        settings = h2.settings.SettingCodes
        self._h2.local_settings = h2.settings.Settings(
            client=self._h2.config.client_side,
            initial_values={
                settings.ENABLE_PUSH: 0,
                settings.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
                settings.MAX_CONCURRENT_STREAMS: MAX_CONCURRENT_STREAMS,
                settings.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST_BYTES,
            },
        )
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(WINDOW_BYTES)

    def data_to_send(self) -> bytes:
        """Everything that waits for the carrier; empty when nothing does."""
        if self._transport is not None and (data := self._h2.data_to_send()):
            self._outgoing.append(self._transport.encrypt(data))
        if not self._outgoing:
            return b""
        data = self._outgoing[0] if len(self._outgoing) == 1 else b"".join(self._outgoing)
        self._outgoing.clear()
        return data

    def _receive_h2(self, data: bytes) -> list[Event]:
        try:
            events = self._h2.receive_data(data)
        except h2.exceptions.ProtocolError as error:
            self.closed = True
            raise SessionError(f"HTTP/2 violated: {type(error).__name__}") from error
        self._check_arriving_frame()
        out: list[Event] = []
        for event in events:
            self._handle(event, out)
        return out

    def _check_arriving_frame(self) -> None:
        """h2 checks a frame's length when the whole of it is there, which could be 16 MiB: look earlier."""
        arriving = self._h2.incoming_buffer._data
        if len(arriving) >= 3 and int.from_bytes(arriving[:3], "big") > self._h2.max_inbound_frame_size:
            self.closed = True
            raise SessionError("HTTP/2 violated: a frame is too large")

    def _handle(self, event: h2.events.Event, out: list[Event]) -> None:
        if isinstance(event, h2.events.WindowUpdated):
            self._window_opened(event.stream_id or 0)
        elif isinstance(event, h2.events.RemoteSettingsChanged):
            self._window_opened(0)
        elif isinstance(event, h2.events.StreamReset):
            self._forget(event.stream_id)
            out.append(StreamClosed(event.stream_id))
        elif isinstance(event, h2.events.PingAckReceived):
            out.append(PingAcked(event.ping_data))
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.closed = True
            out.append(SessionClosed(f"the peer said goodbye (code {int(event.error_code or 0)})"))

    def _forget(self, stream_id: int) -> None:
        self._pending_bytes -= len(self._pending.pop(stream_id, b""))
        self._ending.discard(stream_id)

    def _window_opened(self, stream_id: int) -> None:
        for waiting in [stream_id] if stream_id else list(self._pending):
            self._push(waiting)

    def _write(self, stream_id: int, data: bytes, *, end: bool) -> None:
        """Queue bytes on a stream and send what its windows take."""
        if end:
            self._ending.add(stream_id)
        queue = self._pending.get(stream_id)
        if queue is None:
            queue = self._pending[stream_id] = bytearray()
        if self._pending_bytes + len(data) > MAX_PENDING_BYTES:
            raise SessionError("the peer takes nothing while too much waits for it")
        queue += data
        self._pending_bytes += len(data)
        self._push(stream_id)

    def _push(self, stream_id: int) -> None:
        queue = self._pending.get(stream_id)
        if queue is None:
            return
        try:
            while queue:
                size = min(self._h2.local_flow_control_window(stream_id), self._h2.max_outbound_frame_size)
                if size <= 0:
                    return
                piece = bytes(queue[:size])
                self._h2.send_data(stream_id, piece)
                del queue[:size]
                self._pending_bytes -= len(piece)
            if stream_id in self._ending:
                self._h2.end_stream(stream_id)
                self._forget(stream_id)
        except h2.exceptions.ProtocolError:  # the stream ended under us: nobody waits for these bytes
            self._forget(stream_id)

    def pending(self, stream_id: int) -> int:
        """Bytes of a stream that wait for the peer's windows."""
        return len(self._pending.get(stream_id, b""))

    def reset(self, stream_id: int) -> None:
        """Abandon a stream; the peer sees RST_STREAM."""
        self._forget(stream_id)
        try:
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.CANCEL)
        except h2.exceptions.ProtocolError:
            return

    def ping(self, payload: bytes) -> None:
        """Send an HTTP/2 PING of 8 bytes; the answer is a :class:`PingAcked`."""
        if len(payload) != PING_BYTES:
            raise SessionError(f"a PING carries {PING_BYTES} bytes")
        self._h2.ping(payload)

    def close(self) -> None:
        """Say goodbye (GOAWAY); send what ``data_to_send`` gives, then close the carrier."""
        if not self.closed and self._transport is not None:
            self.closed = True
            self._h2.close_connection()

    def _acknowledge(self, event: h2.events.DataReceived) -> None:
        """Give the peer its window back, for the stream and for the connection."""
        if event.flow_controlled_length:
            try:
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            except h2.exceptions.ProtocolError:
                return


# --- server ----------------------------------------------------------------------------------------------


class ServerSession(_Session):
    """The server's end of one control connection."""

    def __init__(
        self,
        static: MachinePrivate,
        *,
        ephemeral: bytes,
        challenge: ChallengePublic | None = None,
        max_body: int = MAX_BODY_BYTES,
    ) -> None:
        super().__init__(client_side=False)
        self._responder = Responder(static, ephemeral)
        self._challenge = challenge
        self._max_body = max_body
        self._incoming: dict[int, _Incoming] = {}
        self._incoming_bytes = 0
        self._accepted: Accepted | None = None
        self._resets = 0

    @property
    def peer(self) -> MachinePublic:
        """The client's machine key: who it is, proven by the handshake."""
        return self._handshake.peer

    @property
    def version(self) -> int:
        """The capability version in the client's initiation."""
        return self._handshake.version

    @property
    def _handshake(self) -> Accepted:
        if self._accepted is None:
            raise SessionError("the Noise handshake has not happened yet")
        return self._accepted

    def receive_handshake(self, initiation: bytes) -> None:
        """Take the client's initiation, which carriers deliver apart; raises ``HandshakeError``."""
        if self._accepted is not None:
            raise SessionError("a second handshake")
        self._accepted = self._responder.receive(initiation)
        self._transport = self._accepted.transport
        self._outgoing.append(self._accepted.response)
        if self._challenge is not None:
            body = json.dumps({"nodeKeyChallenge": str(self._challenge)}).encode()
            early = EARLY_MAGIC + struct.pack(">I", len(body)) + body
            self._outgoing.append(self._transport.encrypt(early))
        self._begin()

    def receive_data(self, data: bytes) -> list[Event]:
        """Bytes from the carrier; raises :class:`WireError`, after which the connection must be closed."""
        plaintext = self._handshake.transport.receive(data)
        return self._receive_h2(plaintext) if plaintext else []

    def _handle(self, event: h2.events.Event, out: list[Event]) -> None:
        if isinstance(event, h2.events.RequestReceived):
            self._begin_request(event)
        elif isinstance(event, h2.events.DataReceived):
            self._take_body(event)
        elif isinstance(event, h2.events.StreamEnded):
            self._end_request(event.stream_id, out)
        elif isinstance(event, h2.events.StreamReset):
            self._count_reset(event.stream_id)
            super()._handle(event, out)
        else:
            super()._handle(event, out)

    def _begin_request(self, event: h2.events.RequestReceived) -> None:
        headers = _fields(event.headers)
        self._incoming[event.stream_id] = _Incoming(headers[":method"], headers.get(":path", "/"), headers)

    def _take_body(self, event: h2.events.DataReceived) -> None:
        self._acknowledge(event)
        request = self._incoming.get(event.stream_id)
        if request is None:
            return
        if len(request.body) + len(event.data) > self._max_body:
            self._refuse(event.stream_id, 413, b"the body is too large")
        elif self._incoming_bytes + len(event.data) > MAX_BODIES_BYTES:
            self._refuse(event.stream_id, 503, b"too many bodies at once")
        else:
            request.body += event.data
            self._incoming_bytes += len(event.data)

    def _take_incoming(self, stream_id: int) -> _Incoming | None:
        request = self._incoming.pop(stream_id, None)
        if request is not None:
            self._incoming_bytes -= len(request.body)
        return request

    def _refuse(self, stream_id: int, status: int, text: bytes) -> None:
        self._take_incoming(stream_id)
        self.respond(stream_id, status, [], text)
        self.reset_quietly(stream_id)

    def reset_quietly(self, stream_id: int) -> None:
        """Refuse the rest of a request whose answer is already sent (RFC 9113 §8.1)."""
        if self.pending(stream_id):
            return
        try:
            self._h2.reset_stream(stream_id, h2.errors.ErrorCodes.NO_ERROR)
        except h2.exceptions.ProtocolError:
            return

    def _end_request(self, stream_id: int, out: list[Event]) -> None:
        request = self._take_incoming(stream_id)
        if request is not None:
            body = bytes(request.body)
            out.append(RequestReceived(stream_id, request.method, request.path, request.headers, body))

    def _count_reset(self, stream_id: int) -> None:
        self._take_incoming(stream_id)
        self._resets += 1
        if self._resets > MAX_RESETS:
            self.closed = True
            raise SessionError("too many abandoned streams")

    def respond(self, stream_id: int, status: int, headers: Headers, body: bytes) -> None:
        """Answer a request whole."""
        self.start_stream(stream_id, status, [*headers, ("content-length", str(len(body)))])
        self._write(stream_id, body, end=True)

    def start_stream(self, stream_id: int, status: int, headers: Headers) -> None:
        """Send the head of a streamed answer (a long poll)."""
        self._resets = max(0, self._resets - 1)
        try:
            self._h2.send_headers(stream_id, [(":status", str(status)), *headers])
        except h2.exceptions.ProtocolError:  # the peer abandoned it meanwhile
            self._forget(stream_id)

    def send_data(self, stream_id: int, data: bytes) -> None:
        """Send bytes of a streamed answer; what the windows do not take waits (see :meth:`pending`)."""
        self._write(stream_id, data, end=False)

    def end_stream(self, stream_id: int, data: bytes = b"") -> None:
        """End a streamed answer, after some last bytes."""
        self._write(stream_id, data, end=True)


# --- client ----------------------------------------------------------------------------------------------


class ClientSession(_Session):
    """The client's end of one control connection."""

    def __init__(
        self, machine: MachinePrivate, server: MachinePublic, version: int, ephemeral: bytes
    ) -> None:
        super().__init__(client_side=True)
        self._initiator = Initiator(machine, server, version, ephemeral)
        self._early = bytearray()
        self._early_done = False

    def initiation(self) -> bytes:
        """The 101 bytes that a carrier delivers (header or query, base64)."""
        return self._initiator.initiation()

    def receive_handshake(self, response: bytes) -> None:
        """Take the server's 51 bytes; raises ``HandshakeError``."""
        self._transport = self._initiator.finish(response)
        self._begin()

    def receive_data(self, data: bytes) -> list[Event]:
        """Bytes from the carrier after the handshake; raises :class:`WireError`: then close it."""
        if self._transport is None:
            raise SessionError("the Noise handshake has not happened yet")
        plaintext = self._transport.receive(data)
        out: list[Event] = []
        if not self._early_done:
            plaintext = self._take_early(plaintext, out)
        if plaintext:
            out += self._receive_h2(plaintext)
        return out

    def _take_early(self, data: bytes, out: list[Event]) -> bytes:
        """The optional early payload stands before HTTP/2; other first bytes are HTTP/2 already."""
        self._early += data
        magic = len(EARLY_MAGIC)
        if not EARLY_MAGIC.startswith(bytes(self._early[:magic])):
            return self._end_early()
        if len(self._early) < magic + 4:
            return b""
        (length,) = struct.unpack_from(">I", self._early, magic)
        if length > MAX_EARLY_BYTES:
            raise SessionError(f"early payload of {length} bytes (at most {MAX_EARLY_BYTES})")
        end = magic + 4 + length
        if len(self._early) < end:
            return b""
        out.append(EarlyPayload(_challenge(bytes(self._early[magic + 4 : end]))))
        del self._early[:end]
        return self._end_early()

    def _end_early(self) -> bytes:
        self._early_done = True
        rest = bytes(self._early)
        self._early.clear()
        return rest

    def request(self, method: str, path: str, body: bytes = b"", headers: Headers = ()) -> int:
        """Send a request; returns its stream id. Raises :class:`SessionError` on a closed session."""
        try:
            stream_id = self._h2.get_next_available_stream_id()
            pseudo = [(":method", method), (":scheme", "https"), (":authority", "unused"), (":path", path)]
            length = [("content-length", str(len(body)))] if body else []
            self._h2.send_headers(stream_id, [*pseudo, *length, *headers], end_stream=not body)
        except h2.exceptions.ProtocolError as error:
            raise SessionError(f"cannot send a request: {type(error).__name__}") from error
        if body:
            self._write(stream_id, body, end=True)
        return stream_id

    def _handle(self, event: h2.events.Event, out: list[Event]) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            headers = _fields(event.headers)
            out.append(ResponseStarted(event.stream_id, _status(headers), headers))
        elif isinstance(event, h2.events.DataReceived):
            self._acknowledge(event)
            out.append(DataReceived(event.stream_id, event.data))
        elif isinstance(event, h2.events.StreamEnded):
            out.append(StreamEnded(event.stream_id))
        else:
            super()._handle(event, out)


def _status(headers: dict[str, str]) -> int:
    try:
        return int(headers[":status"])
    except (KeyError, ValueError) as error:
        raise MessageError("an answer without a status") from error


def _challenge(body: bytes) -> ChallengePublic:
    try:
        return ChallengePublic.parse(str(json.loads(body)["nodeKeyChallenge"]))
    except (ValueError, KeyError, TypeError, WireError) as error:
        raise MessageError("the early payload holds no challenge key") from error
