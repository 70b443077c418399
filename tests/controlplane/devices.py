"""Devices that speak the control protocol on either carrier, by the client's own session and netmap code."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import time
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect

from tests.controlplane.serving import Serve
from wire.codec import MapDecoder, decode_object, encode_json
from wire.control import Hostinfo, MapRequest, RegisterRequest, RegisterResponse
from wire.delta import apply
from wire.keys import DiscoPrivate, MachinePrivate, MachinePublic, NodePrivate, NodePublic
from wire.netmap import MapResponse, NetMap
from wire.session import (
    ClientSession,
    DataReceived,
    EarlyPayload,
    Event,
    PingAcked,
    ResponseStarted,
    SessionClosed,
    StreamClosed,
    StreamEnded,
)

CAPABILITY = 130
PATIENCE_SECONDS = 30.0
CARRIERS = ["upgrade", "websocket"]


class Carrier(Protocol):
    async def send(self, data: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    async def close(self) -> None: ...


class UpgradeCarrier:
    """A TCP connection after its 101."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rest: bytes) -> None:
        self.reader, self.writer, self.rest = reader, writer, rest

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> bytes:
        if self.rest:
            data, self.rest = self.rest, b""
            return data
        return await self.reader.read(65536)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


class WebSocketCarrier:
    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, data: bytes) -> None:
        await self.socket.send(data)

    async def receive(self) -> bytes:
        from websockets.exceptions import ConnectionClosed

        try:
            data = await self.socket.recv()
        except ConnectionClosed:
            return b""
        assert isinstance(data, bytes)
        return data

    async def close(self) -> None:
        await self.socket.close()


def upgrade_head(initiation: bytes, host: str = "unused", **headers: str) -> bytes:
    fields = {
        "Host": host,
        "Upgrade": "tailscale-control-protocol",
        "Connection": "upgrade",
        "X-Tailscale-Handshake": base64.b64encode(initiation).decode(),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /ts2021 HTTP/1.1\r\n{lines}\r\n".encode()


async def read_head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@dataclass
class Answer:
    """A response; a streamed one grows."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def until(self, condition: Callable[[], bool], seconds: float = PATIENCE_SECONDS) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                self.news.clear()
                await self.news.wait()

    async def whole(self) -> Answer:
        await self.until(lambda: self.ended)
        return self


class Connection:
    """One control connection: requests on it, and a task that reads."""

    def __init__(self, session: ClientSession, carrier: Carrier) -> None:
        self.session, self.carrier = session, carrier
        self.answers: dict[int, Answer] = {}
        self.pongs: list[bytes] = []
        self.early: EarlyPayload | None = None
        self.goodbye = ""
        self.closed = asyncio.Event()
        self.reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, server: Serve, machine: MachinePrivate, carrier: str) -> Connection:
        key = await asyncio.to_thread(server_key, server)
        session = ClientSession(machine, key, CAPABILITY, secrets.token_bytes(32))
        make = _upgrade if carrier == "upgrade" else _websocket
        return cls(session, await make(server, session))

    async def _read(self) -> None:
        try:
            while data := await self.carrier.receive():
                for event in self.session.receive_data(data):
                    self._take(event)
                await self.flush()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
            for answer in self.answers.values():
                answer.ended = True
                answer.news.set()

    def _take(self, event: Event) -> None:
        if isinstance(event, EarlyPayload):
            self.early = event
        elif isinstance(event, PingAcked):
            self.pongs.append(event.payload)
        elif isinstance(event, SessionClosed):
            self.goodbye = event.reason
        elif isinstance(event, ResponseStarted | DataReceived | StreamEnded | StreamClosed):
            answer = self.answers.setdefault(event.stream_id, Answer())
            if isinstance(event, ResponseStarted):
                answer.status, answer.headers = event.status, event.headers
            elif isinstance(event, DataReceived):
                answer.body += event.data
            else:
                answer.ended = True
            answer.news.set()

    async def flush(self) -> None:
        if data := self.session.data_to_send():
            await self.carrier.send(data)

    async def request(self, method: str, path: str, content: Any) -> Answer:
        """Send a request; its answer comes by itself."""
        body = content if isinstance(content, bytes) else encode_json(content)
        stream_id = self.session.request(method, path, body)
        answer = self.answers.setdefault(stream_id, Answer())
        await self.flush()
        return answer

    async def ask(self, path: str, content: Any, method: str = "POST") -> Answer:
        return await (await self.request(method, path, content)).whole()

    async def close(self) -> None:
        await self.carrier.close()
        self.reader.cancel()
        await asyncio.gather(self.reader, return_exceptions=True)


def server_key(server: Serve) -> MachinePublic:
    with urllib.request.urlopen(f"{server.url}/key?v={CAPABILITY}", timeout=10) as answer:
        return MachinePublic.parse(json.load(answer)["publicKey"])


async def _upgrade(server: Serve, session: ClientSession) -> UpgradeCarrier:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(upgrade_head(session.initiation()))
    head = await read_head(reader)
    assert head.startswith(b"HTTP/1.1 101 "), head
    session.receive_handshake(await reader.readexactly(51))
    return UpgradeCarrier(reader, writer, b"")


async def _websocket(server: Serve, session: ClientSession) -> WebSocketCarrier:
    handshake = urllib.parse.quote(base64.b64encode(session.initiation()).decode(), safe="")
    socket = await connect(
        f"ws://127.0.0.1:{server.port}/ts2021?X-Tailscale-Handshake={handshake}",
        subprotocols=["tailscale-control-protocol"],  # type: ignore[list-item]
        compression=None,
        max_size=None,
        ping_interval=None,
    )
    assert socket.subprotocol == "tailscale-control-protocol"
    first = await socket.recv()
    assert isinstance(first, bytes)
    session.receive_handshake(first[:51])
    session.receive_data(first[51:])
    return WebSocketCarrier(socket)


class Device:
    """A machine with its keys, and the netmap that its long poll keeps."""

    def __init__(self, server: Serve, hostname: str, carrier: str = "upgrade", **hostinfo: Any) -> None:
        self.server, self.carrier, self.hostname = server, carrier, hostname
        self.machine = MachinePrivate.generate(secrets.token_bytes(32))
        self.node = NodePrivate.generate(secrets.token_bytes(32))
        self.disco = DiscoPrivate.generate(secrets.token_bytes(32))
        self.hostinfo = {"Hostname": hostname, "OS": "linux", "IPNVersion": "1.90.2", **hostinfo}
        self.connection: Connection | None = None
        self.netmap: NetMap | None = None
        self.messages: list[MapResponse] = []
        self.raw_messages: list[dict[str, Any]] = []
        self.poll: Answer | None = None
        self._follower: asyncio.Task[None] | None = None

    async def connected(self) -> Connection:
        if self.connection is None or self.connection.closed.is_set():
            await self.close()
            self.connection = await Connection.open(self.server, self.machine, self.carrier)
        return self.connection

    async def ask(self, path: str, content: Any, method: str = "POST") -> Answer:
        return await (await self.connected()).ask(path, content, method)

    def register_request(self, **values: Any) -> RegisterRequest:
        given: dict[str, Any] = {
            "version": CAPABILITY,
            "node_key": self.node.public(),
            "hostinfo": Hostinfo(raw=self.hostinfo),
        }
        return RegisterRequest(**(given | values))

    async def register(self, **values: Any) -> RegisterResponse:
        answer = await self.ask("/machine/register", self.register_request(**values).to_json())
        assert answer.status == 200, bytes(answer.body)
        return RegisterResponse.from_json(decode_object(bytes(answer.body)))

    def map_request(self, **values: Any) -> dict[str, Any]:
        given: dict[str, Any] = {
            "version": CAPABILITY,
            "node_key": self.node.public(),
            "disco_key": self.disco.public(),
            "hostinfo": Hostinfo(raw=self.hostinfo),
            "endpoints": ("192.0.2.7:41641",),
            "endpoint_types": (1,),
        }
        return MapRequest(**(given | values)).to_json()

    async def report(self, **values: Any) -> Answer:
        """A lite update."""
        return await self.ask("/machine/map", self.map_request(omit_peers=True, **values))

    async def listen(self, *, zstd: bool = True, **values: Any) -> None:
        """Open the long poll and follow it."""
        compress = "zstd" if zstd else ""
        content = self.map_request(stream=True, keep_alive=True, compress=compress, **values)
        connection = await self.connected()
        self.poll = await connection.request("POST", "/machine/map", content)
        self.netmap = None
        self._follower = asyncio.create_task(self._follow(self.poll, MapDecoder(compress=zstd)))
        await self.until(lambda netmap: True)

    async def _follow(self, poll: Answer, decoder: MapDecoder) -> None:
        seen = 0
        while True:
            data, seen = bytes(poll.body[seen:]), len(poll.body)
            for content in decoder.receive(data):
                self._take(content)
            if len(poll.body) > seen:
                continue
            if poll.ended:
                return
            poll.news.clear()
            await poll.news.wait()

    def _take(self, content: dict[str, Any]) -> None:
        message = MapResponse.from_json(content)
        self.raw_messages.append(content)
        self.messages.append(message)
        if not message.keep_alive:
            self.netmap = apply(self.netmap, message)

    async def until(self, condition: Callable[[NetMap], bool], seconds: float = PATIENCE_SECONDS) -> NetMap:
        """Wait until the netmap is as wanted; fails with the map that it was."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.netmap is not None and condition(self.netmap):
                return self.netmap
            assert self.poll is not None
            assert not self.poll.ended or self.poll.status == 200, (self.poll.status, bytes(self.poll.body))
            await asyncio.sleep(0.005)
        peers = (
            []
            if self.netmap is None
            else [(peer.hostname, peer.online, peer.endpoints) for peer in self.netmap.peers.values()]
        )
        raise AssertionError(f"{self.hostname} never got the map it waits for; it has {peers}")

    def peer(self, other: Device) -> Any:
        """Another device as this one sees it; ``None`` when it does not."""
        if self.netmap is None:
            return None
        name = other.hostname
        return next((peer for peer in self.netmap.peers.values() if peer.hostname == name), None)

    async def sees(self, other: Device, seconds: float = PATIENCE_SECONDS, **facts: Any) -> Any:
        """Wait until another device is among the peers, with these facts."""

        def found(_: NetMap) -> bool:
            peer = self.peer(other)
            return peer is not None and all(getattr(peer, name) == value for name, value in facts.items())

        await self.until(found, seconds)
        return self.peer(other)

    async def misses(self, other: Device, seconds: float = PATIENCE_SECONDS) -> None:
        await self.until(lambda _: self.peer(other) is None, seconds)

    async def join(self, auth_key: str, **values: Any) -> Device:
        """Register by a key, report, open the long poll."""
        response = await self.register(auth_key=auth_key, **values)
        assert not response.error, response.error
        await self.report()
        await self.listen()
        return self

    def new_node_key(self) -> NodePublic:
        """Change the node key; returns the old one."""
        old = self.node.public()
        self.node = NodePrivate.generate(secrets.token_bytes(32))
        return old

    async def close(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
            self._follower = None
        if self.connection is not None:
            await self.connection.close()
            self.connection = None


@contextlib.asynccontextmanager
async def devices(server: Serve, *names: str, carrier: str = "upgrade") -> AsyncIterator[list[Device]]:
    """Devices that are closed at the end."""
    made = [Device(server, name, carrier) for name in names]
    try:
        yield made
    finally:
        for device in made:
            await device.close()
