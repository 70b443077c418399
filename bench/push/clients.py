"""Clients for the load generator: real sessions on both carriers, cheap enough for a thousand in one process.

While a client *notes*, it only stamps what arrives with the time and keeps it; nothing is decrypted until the
measurement is over, so that the generator's own work does not delay what it measures.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import struct
import time
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from wire.codec import LENGTH_BYTES, MapDecoder, encode_json
from wire.control import MapRequest, RegisterRequest
from wire.keys import DiscoPublic, MachinePrivate, MachinePublic, NodePrivate
from wire.noise import RESPONSE_BYTES
from wire.session import ClientSession, DataReceived, StreamEnded

CAPABILITY = 130
RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Identity:
    """A device's keys."""

    machine: MachinePrivate
    node: NodePrivate
    disco: DiscoPublic

    @classmethod
    def of(cls, parts: list[str]) -> Identity:
        machine, node, disco = map(bytes.fromhex, parts)
        return cls(MachinePrivate(machine), NodePrivate(node), DiscoPublic(disco))


class Client(asyncio.Protocol):
    """One control connection over HTTP Upgrade. ``ready`` is set once the session stands."""

    def __init__(self, identity: Identity, server: MachinePublic, host: str) -> None:
        self.identity = identity
        self.host = host
        self.session = ClientSession(identity.machine, server, CAPABILITY, secrets.token_bytes(32))
        self.ready = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()
        self.noting = False
        self.notes: list[tuple[float, bytes]] = []
        self.answered: dict[int, asyncio.Future[bytes]] = {}
        self.frames: list[bytes] = []
        self._stream = bytearray()
        self.on_message: Callable[[], None] | None = None
        self._poll = 0
        self._head = b""
        self._handshake = b""
        self._in_session = False

    # -- what carriers differ in

    def opening(self) -> bytes:
        handshake = base64.b64encode(self.session.initiation()).decode()
        return (
            f"POST /ts2021 HTTP/1.1\r\nHost: {self.host}\r\nUpgrade: tailscale-control-protocol\r\n"
            f"Connection: upgrade\r\nX-Tailscale-Handshake: {handshake}\r\n\r\n"
        ).encode()

    def framed(self, data: bytes) -> bytes:
        return data

    def unframed(self, data: bytes) -> bytes:
        return data

    # -- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment] - uvloop's is no subclass
        self.transport.write(self.opening())

    def data_received(self, data: bytes) -> None:
        if self.noting:
            self.notes.append((time.perf_counter(), data))
        else:
            self.take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.ready, self.lost, *self.answered.values()):
            if not future.done():
                future.set_exception(ConnectionError("the server closed the connection"))
                future.exception()  # those who wait are told, and nobody has to

    # -- the session

    def take(self, data: bytes) -> None:
        if not self._in_session:
            data = self._open(data)
        if data:
            for event in self.session.receive_data(self.unframed(data)):
                if isinstance(event, DataReceived):
                    self._take_data(event)
                elif isinstance(event, StreamEnded) and event.stream_id in self.answered:
                    self._finish(self.answered.pop(event.stream_id), b"")
            self.flush()

    def _open(self, data: bytes) -> bytes:
        """The answer to the upgrade; returns what belongs to the session already."""
        self._head += data
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        if b" 101 " not in head.split(b"\r\n", 1)[0]:
            self.transport.abort()
            return b""
        plain = self.unframed(rest)
        self._handshake += plain
        self._head = head + end  # WebSocket frames are unframed once
        if len(self._handshake) < RESPONSE_BYTES:
            return b""
        self._in_session = True
        self.session.receive_handshake(self._handshake[:RESPONSE_BYTES])
        self.session.receive_data(self._handshake[RESPONSE_BYTES:])
        self._finish(self.ready, b"")
        return b""

    @staticmethod
    def _finish(future: asyncio.Future[bytes], value: bytes) -> None:
        if not future.done():
            future.set_result(value)

    def _take_data(self, event: DataReceived) -> None:
        if event.stream_id != self._poll:
            return
        stream = self._stream
        stream += event.data
        while len(stream) >= LENGTH_BYTES:
            end = LENGTH_BYTES + int.from_bytes(stream[:LENGTH_BYTES], "little")
            if len(stream) < end:
                return
            self.frames.append(bytes(stream[:end]))
            del stream[:end]
            if self.on_message is not None:
                self.on_message()

    def read(self) -> list[dict[str, Any]]:
        """The messages that came since the last call; reading a whole map costs more than receiving it."""
        frames, self.frames = self.frames, []
        return MapDecoder(compress=True).receive(b"".join(frames))

    def flush(self) -> None:
        if data := self.session.data_to_send():
            self.transport.write(self.framed(data))

    def request(self, path: str, body: dict[str, Any]) -> asyncio.Future[bytes]:
        """Send a request; the future is done when its answer has ended."""
        stream_id = self.session.request("POST", path, encode_json(body))
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.answered[stream_id] = future
        self.flush()
        return future

    def listen(self) -> None:
        """Open the long poll."""
        body = MapRequest(
            version=CAPABILITY,
            node_key=self.identity.node.public(),
            disco_key=self.identity.disco,
            compress="zstd",
            keep_alive=True,
            stream=True,
        )
        self._poll = self.session.request("POST", "/machine/map", encode_json(body.to_json()))
        self.flush()

    def report(self, endpoints: tuple[str, ...]) -> asyncio.Future[bytes]:
        """A lite update."""
        body = MapRequest(
            version=CAPABILITY,
            node_key=self.identity.node.public(),
            disco_key=self.identity.disco,
            endpoints=endpoints,
            omit_peers=True,
        )
        return self.request("/machine/map", body.to_json())

    def rotate(self, node: NodePrivate) -> asyncio.Future[bytes]:
        """A new node key in place of the old one: a durable change."""
        body = RegisterRequest(
            version=CAPABILITY,
            node_key=node.public(),
            old_node_key=self.identity.node.public(),
            trenza_rotate=True,
        )
        self.identity = Identity(self.identity.machine, node, self.identity.disco)
        return self.request("/machine/register", body.to_json())

    def read_notes(self) -> list[dict[str, Any]]:
        """Decrypt what was noted; the messages in it."""
        notes, self.notes, self.noting = self.notes, [], False
        for _, data in notes:
            self.take(data)
        return self.read()


class WebSocketClient(Client):
    """The same over a WebSocket; frames are written with an empty mask, which costs nothing."""

    BINARY, PING, PONG = 2, 9, 10

    def __init__(self, identity: Identity, server: MachinePublic, host: str) -> None:
        super().__init__(identity, server, host)
        self._buffer = bytearray()

    def opening(self) -> bytes:
        handshake = urllib.parse.quote(base64.b64encode(self.session.initiation()).decode(), safe="")
        return (
            f"GET /ts2021?X-Tailscale-Handshake={handshake} HTTP/1.1\r\nHost: {self.host}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(secrets.token_bytes(16)).decode()}\r\n\r\n"
        ).encode()

    def framed(self, data: bytes, kind: int = BINARY) -> bytes:
        size = len(data)
        if size < 126:
            head = struct.pack(">BB", 0x80 | kind, 0x80 | size)
        elif size < 65536:
            head = struct.pack(">BBH", 0x80 | kind, 0x80 | 126, size)
        else:
            head = struct.pack(">BBQ", 0x80 | kind, 0x80 | 127, size)
        return head + bytes(4) + data

    def unframed(self, data: bytes) -> bytes:
        self._buffer += data
        pieces = []
        while (frame := self._next_frame()) is not None:
            kind, payload = frame
            if kind == self.PING:
                self.transport.write(self.framed(payload, self.PONG))
            elif kind <= self.BINARY:
                pieces.append(payload)
        return b"".join(pieces)

    def _next_frame(self) -> tuple[int, bytes] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        kind, size, at = buffer[0] & 0x0F, buffer[1] & 0x7F, 2
        if size >= 126:
            width = 2 if size == 126 else 8
            if len(buffer) < at + width:
                return None
            size, at = int.from_bytes(buffer[at : at + width], "big"), at + width
        if len(buffer) < at + size:
            return None
        payload = bytes(buffer[at : at + size])
        del buffer[: at + size]
        return kind, payload


CARRIERS: dict[str, type[Client]] = {"upgrade": Client, "websocket": WebSocketClient}


async def connect(kind: type[Client], identity: Identity, server: MachinePublic, port: int) -> Client:
    """A client whose session stands; redials while the server is away."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            _, client = await loop.create_connection(
                lambda: kind(identity, server, f"127.0.0.1:{port}"), "127.0.0.1", port
            )
            await client.ready
        except OSError:
            await asyncio.sleep(RETRY_SECONDS)
        else:
            return client
