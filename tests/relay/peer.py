"""A DERP client for tests: real sockets, plain, TLS or WebSocket, with wire's own handshake."""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
from dataclasses import dataclass, field

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.uri import parse_uri

from wire.derp import ClientHandshake, ClientInfo, FrameDecoder, FrameType, send_packet_frame
from wire.disco import MAGIC as DISCO_MAGIC
from wire.errors import WireError
from wire.keys import NodePrivate, NodePublic

PATIENCE = 10.0  # how long a test waits for what must come
UPGRADE = b"GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n"
FAST_START = UPGRADE[:-2] + b"Derp-Fast-Start: 1\r\n\r\n"
DISCO_PACKET = DISCO_MAGIC + bytes(80)


def new_key() -> NodePrivate:
    return NodePrivate.generate(secrets.token_bytes(32))


def any_certificate() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Refused(Exception):
    """The relay closed the connection before it sent ServerInfo."""


@dataclass(eq=False)
class Peer:
    """One connected client. ``early``: frames to send together with ClientInfo."""

    port: int
    key: NodePrivate = field(default_factory=new_key)
    tls: ssl.SSLContext | None = None
    fast: bool = False
    info: ClientInfo | None = None
    early: bytes = b""
    read_limit: int = 2**16

    def __post_init__(self) -> None:
        self.decoder = FrameDecoder()
        self.frames: list[tuple[int, bytes]] = []
        self.reader: asyncio.StreamReader
        self.writer: asyncio.StreamWriter

    @property
    def public(self) -> NodePublic:
        return self.key.public()

    async def connect(self) -> Peer:
        await self.dial()
        async with asyncio.timeout(PATIENCE):
            self.writer.write(FAST_START if self.fast else UPGRADE)
            if not self.fast:
                head = await self.reader.readuntil(b"\r\n\r\n")
                assert head.startswith(b"HTTP/1.1 101 "), head
            await self.shake_hands()
        return self

    async def dial(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=self.tls, limit=self.read_limit
        )

    async def shake_hands(self) -> None:
        handshake = ClientHandshake(self.key, secrets.token_bytes(24), self.info)
        while not handshake.done:
            kind, payload = await self.frame(refusable=True)
            if reply := handshake.receive(kind, payload):
                self.send(reply + self.early)
        self.server_info = handshake.server_info

    async def more(self) -> bytes:
        return await self.reader.read(2**16)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_to(self, peer: Peer | NodePublic, packet: bytes) -> None:
        self.send(send_packet_frame(peer if isinstance(peer, NodePublic) else peer.public, packet))

    async def frame(self, *, refusable: bool = False) -> tuple[int, bytes]:
        """The next frame; raises ``ConnectionError`` (or :class:`Refused`) when the relay closed."""
        async with asyncio.timeout(PATIENCE):
            while not self.frames:
                try:
                    data = await self.more()
                except OSError:
                    data = b""
                if not data:
                    raise Refused if refusable else ConnectionError("closed by the relay")
                self.frames = self.decoder.receive(data)
        return self.frames.pop(0)

    async def packet(self) -> tuple[NodePublic, bytes]:
        """The next packet and who sent it; other frames are skipped."""
        while True:
            kind, payload = await self.frame()
            if kind == FrameType.RECV_PACKET:
                return NodePublic(payload[:32]), payload[32:]

    async def closed(self) -> bool:
        """Whether the relay closes the connection, soon."""
        try:
            while True:
                await self.frame()
        except (ConnectionError, WireError):
            return True
        except TimeoutError:
            return False

    async def reaches(self, other: Peer, packet: bytes = b"are you there") -> None:
        """Assert that a packet goes over to ``other``, unchanged and with the right sender."""
        self.send_to(other, packet)
        got = await other.packet()
        assert got == (self.public, packet), (got[0].short(), len(got[1]), got[1][:40])

    async def settle(self) -> None:
        """Wait until the relay has handled all that was sent: it answers a ping behind it."""
        token = secrets.token_bytes(8)
        self.send(bytes([FrameType.PING]) + (8).to_bytes(4, "big") + token)
        while await self.frame() != (FrameType.PONG, token):
            pass

    def leave(self) -> None:
        self.writer.transport.abort()


class WebSocketPeer(Peer):
    """The same inside a WebSocket."""

    async def connect(self) -> Peer:
        await self.dial()
        self.ws = ClientProtocol(parse_uri(f"ws://127.0.0.1:{self.port}/derp"), subprotocols=["derp"])
        self.ws.send_request(self.ws.connect())
        self.flush()
        async with asyncio.timeout(PATIENCE):
            await self.shake_hands()
        assert self.ws.subprotocol == "derp"
        return self

    def flush(self) -> None:
        for data in self.ws.data_to_send():
            if data:
                self.writer.write(data)

    async def more(self) -> bytes:
        while True:
            data = await self.reader.read(2**16)
            if not data:
                return b""
            self.ws.receive_data(data)
            self.flush()
            events = [event for event in self.ws.events_received() if isinstance(event, Frame)]
            self.control = [event for event in events if event.opcode != Opcode.BINARY]
            if payload := b"".join(event.data for event in events if event.opcode == Opcode.BINARY):
                return payload

    def send(self, data: bytes) -> None:
        self.ws.send_binary(data)
        self.flush()


async def http(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> bytes:
    """Send one request as it is and read until the relay closes."""
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        writer.write(request)
        try:
            return await reader.read(-1)
        finally:
            writer.transport.abort()


def websocket_key() -> bytes:
    return base64.b64encode(secrets.token_bytes(16))
