"""A relay that does what it should not: declared ends, bounded memory, another try."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from client.magicsock.derp import DerpPool, Timing
from client.magicsock.link import QUEUE_BYTES
from tests.client.magicsock.relays import REGION, map_of
from tests.lab.certificates import Authority
from wire import derp
from wire.derp import FrameType
from wire.derpmap import DERPNode
from wire.keys import NodePrivate, NodePublic

WAIT_SECONDS = 20.0
QUICK = Timing(tick=0.05, first_retry=0.05, last_retry=0.1)
RELAY_KEY = NodePrivate.generate(bytes(range(32)))
PEER = NodePrivate.generate(bytes(range(1, 33))).public()

Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter
Script = Callable[["Session"], Awaitable[None]]


class Session:
    """The relay's end of one connection, after TLS."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.reader, self.writer = reader, writer
        self.client = NodePublic.zero()
        self._decoder = derp.FrameDecoder()
        self._frames: list[tuple[int, bytes]] = []

    async def admit(self, info: derp.ServerInfo | None = None) -> None:
        """The whole handshake, fast start included."""
        await self.reader.readuntil(b"\r\n\r\n")
        self.writer.write(derp.server_key_frame(RELAY_KEY.public()))
        kind, payload = await self.frame()
        assert kind == FrameType.CLIENT_INFO
        self.client, _ = derp.parse_client_info(payload, RELAY_KEY)
        nonce = os.urandom(24)
        self.writer.write(derp.server_info_frame(RELAY_KEY, self.client, nonce, info or derp.ServerInfo()))

    async def frame(self) -> tuple[int, bytes]:
        while not self._frames:
            data = await self.reader.read(65_536)
            if not data:
                raise EOFError
            self._frames = self._decoder.receive(data)
        return self._frames.pop(0)

    async def frame_of(self, wanted: FrameType) -> bytes:
        while True:
            kind, payload = await self.frame()
            if kind == wanted:
                return payload

    async def packets(self, last: bytes) -> list[bytes]:
        """Everything the client sends to anyone, up to ``last``."""
        got: list[bytes] = []
        while not got or got[-1] != last:
            got.append(derp.parse_keyed(await self.frame_of(FrameType.SEND_PACKET))[1])
        return got


class ScriptedRelay:
    """Runs a script for each connection; the last script stays in force."""

    def __init__(self, folder: Path) -> None:
        certificate, key = Authority(folder).issue("127.0.0.1")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate, key)
        der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        self.pin = "sha256-raw:" + hashlib.sha256(der).hexdigest()
        self.scripts: list[Script] = []
        self.connections = 0
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def node(self) -> DERPNode:
        return DERPNode(
            name="1a",
            region_id=REGION,
            host_name="127.0.0.1",
            ipv4="127.0.0.1",
            ipv6="none",
            derp_port=self.port,
            cert_name=self.pin,
        )

    async def serve(self, reader: Reader, writer: Writer) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        script = self.scripts[min(self.connections, len(self.scripts) - 1)]
        self.connections += 1
        with contextlib.suppress(EOFError, OSError, asyncio.CancelledError):
            await script(Session(reader, writer))
        writer.transport.abort()
        self._tasks.discard(task)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


class Client:
    """A pool whose home is the scripted relay."""

    def __init__(self) -> None:
        self.packets: asyncio.Queue[tuple[NodePublic, bytes]] = asyncio.Queue()
        self.gone: asyncio.Queue[tuple[NodePublic, int]] = asyncio.Queue()
        self.changes: asyncio.Queue[bool] = asyncio.Queue()
        self.pool = DerpPool(
            node_key=NodePrivate.generate(os.urandom(32)),
            mark=0,
            on_packets=lambda _, sender, packets: [self.packets.put_nowait((sender, p)) for p in packets][:0],
            on_gone=lambda _, peer, reason: self.gone.put_nowait((peer, reason)),
            on_change=lambda _, up: self.changes.put_nowait(up),
            timing=QUICK,
        )

    async def sees(self, *changes: bool) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            assert [await self.changes.get() for _ in changes] == list(changes)


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[ScriptedRelay]:
    relay = ScriptedRelay(tmp_path)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, ssl=relay.context)
    relay.port = server.sockets[0].getsockname()[1]
    yield relay
    server.close()
    await relay.stop()
    await server.wait_closed()


@pytest.fixture
async def client(relay: ScriptedRelay) -> AsyncIterator[Client]:
    client = Client()
    yield client
    await client.pool.close()


def go(relay: ScriptedRelay, client: Client, *scripts: Script) -> None:
    relay.scripts = list(scripts)
    client.pool.set_map(map_of(relay.node))
    client.pool.set_home(REGION)


async def well(session: Session) -> None:
    """A relay that admits and then only listens."""
    await session.admit()
    while True:
        await session.frame()


def says(*after_admission: bytes) -> Script:
    async def script(session: Session) -> None:
        await session.admit()
        for data in after_admission:
            session.writer.write(data)
        await session.writer.drain()
        while True:
            await session.frame()

    return script


async def test_frames_that_come_with_the_handshake_are_not_lost(relay: ScriptedRelay, client: Client) -> None:
    go(relay, client, says(derp.recv_packet_frame(PEER, b"early")))
    async with asyncio.timeout(WAIT_SECONDS):
        assert await client.packets.get() == (PEER, b"early")


async def test_frames_cut_at_every_byte_arrive_whole(relay: ScriptedRelay, client: Client) -> None:
    async def drip(session: Session) -> None:
        await session.admit()
        for byte in derp.recv_packet_frame(PEER, b"abc") + derp.recv_packet_frame(PEER, b""):
            session.writer.write(bytes([byte]))
            await session.writer.drain()
        await session.frame_of(FrameType.CLOSE_PEER)

    go(relay, client, drip)
    async with asyncio.timeout(WAIT_SECONDS):
        assert [await client.packets.get() for _ in range(2)] == [(PEER, b"abc"), (PEER, b"")]


async def test_a_ping_is_answered_and_home_is_announced(relay: ScriptedRelay, client: Client) -> None:
    answers: asyncio.Queue[bytes] = asyncio.Queue()

    async def ping(session: Session) -> None:
        await session.admit()
        answers.put_nowait(await session.frame_of(FrameType.NOTE_PREFERRED))
        session.writer.write(derp.ping_frame(b"short") + derp.ping_frame(b"12345678"))
        answers.put_nowait(await session.frame_of(FrameType.PONG))

    go(relay, client, ping)
    async with asyncio.timeout(WAIT_SECONDS):
        assert [await answers.get() for _ in range(2)] == [b"\x01", b"12345678"]


async def test_unknown_short_and_stray_frames_are_skipped(relay: ScriptedRelay, client: Client) -> None:
    stray = [
        derp.encode_frame(0xEE, b"x" * 1000),
        derp.encode_frame(FrameType.RECV_PACKET, b"short"),
        derp.encode_frame(FrameType.PEER_GONE, b"short"),
        derp.encode_frame(FrameType.SERVER_KEY, b""),
        derp.encode_frame(FrameType.KEEP_ALIVE),
        derp.peer_gone_frame(PEER, derp.PeerGoneReason.NOT_HERE),
    ]
    go(relay, client, says(*stray))
    async with asyncio.timeout(WAIT_SECONDS):
        assert await client.gone.get() == (PEER, 1)
    assert client.packets.empty()
    assert relay.connections == 1


@pytest.mark.parametrize("end", ["oversized", "cut off", "goodbye", "no TLS"])
async def test_a_broken_stream_ends_the_link_and_the_next_one_works(
    relay: ScriptedRelay, client: Client, end: str
) -> None:
    async def broken(session: Session) -> None:
        await session.admit()
        await session.frame_of(FrameType.NOTE_PREFERRED)
        if end == "oversized":
            session.writer.write(b"\x05\xff\xff\xff\xff")
            await session.frame_of(FrameType.CLOSE_PEER)
        elif end == "cut off":
            session.writer.write(derp.recv_packet_frame(PEER, bytes(100))[:50])
            await session.writer.drain()
        elif end == "goodbye":
            session.writer.close()
            await session.writer.wait_closed()
        else:
            os.write(session.writer.get_extra_info("socket").fileno(), b"not a TLS record at all")
            await session.frame_of(FrameType.CLOSE_PEER)

    go(relay, client, broken, well)
    await client.sees(True, False, True)
    assert client.packets.empty()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "HTTP 404"),
        (b"HTTP/1.1 101 Switching\r\n" + b"x: y\r\n" * 5000, "does not end"),
        (derp.encode_frame(FrameType.SERVER_KEY, b"not a key"), "not its key"),
        (derp.encode_frame(FrameType.KEEP_ALIVE), "did not begin with its key"),
        (b"\x01\xff\xff\xff\xff", "DERP frame of"),
        (b"", "closed the connection"),
    ],
)
async def test_a_bad_greeting_is_told_and_tried_again(
    relay: ScriptedRelay, client: Client, reply: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def greet(session: Session) -> None:
        await session.reader.readuntil(b"\r\n\r\n")
        session.writer.write(reply)
        await session.writer.drain()
        session.writer.close()
        await session.writer.wait_closed()

    caplog.set_level("INFO")
    go(relay, client, greet, greet, well)
    await client.sees(True)
    assert relay.connections == 3
    assert reason in caplog.text


async def test_a_box_for_another_key_is_no_admission(
    relay: ScriptedRelay, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    async def forge(session: Session) -> None:
        await session.reader.readuntil(b"\r\n\r\n")
        session.writer.write(derp.server_key_frame(RELAY_KEY.public()))
        await session.frame()
        session.writer.write(derp.server_info_frame(RELAY_KEY, PEER, os.urandom(24), derp.ServerInfo()))
        await session.frame()

    caplog.set_level("INFO")
    go(relay, client, forge, well)
    await client.sees(True)
    assert relay.connections == 2
    assert "does not open" in caplog.text


async def test_a_relay_that_asks_for_a_rate_gets_no_more(relay: ScriptedRelay, client: Client) -> None:
    got: asyncio.Queue[list[bytes]] = asyncio.Queue()

    async def slow(session: Session) -> None:
        await session.admit(derp.ServerInfo(bytes_per_second=1, bytes_burst=3000))
        got.put_nowait(await session.packets(b"c" * 1000))

    go(relay, client, slow)
    await client.sees(True)
    assert client.pool.send(REGION, PEER, [b"a" * 1000, b"b" * 1000])
    assert not client.pool.send(REGION, PEER, [b"c" * 1000, b"d" * 1000])
    async with asyncio.timeout(WAIT_SECONDS):
        assert await got.get() == [b"a" * 1000, b"b" * 1000, b"c" * 1000]


async def test_a_relay_that_does_not_read_costs_old_packets_never_memory_or_order(
    relay: ScriptedRelay, client: Client
) -> None:
    reading, got = asyncio.Event(), asyncio.Queue[list[bytes]]()
    numbered = [n.to_bytes(4, "big") + bytes(1296) for n in range(20_000)]

    async def stall(session: Session) -> None:
        await session.admit()
        session.writer.transport.pause_reading()
        await reading.wait()
        session.writer.transport.resume_reading()
        got.put_nowait(await session.packets(numbered[-1]))

    go(relay, client, stall)
    await client.sees(True)
    for at in range(0, len(numbered), 50):
        client.pool.send(REGION, PEER, numbered[at : at + 50])
        await asyncio.sleep(0)
    reading.set()
    async with asyncio.timeout(WAIT_SECONDS):
        packets = await got.get()
    assert packets == sorted(packets)
    assert len(packets) < len(numbered)
    newest = QUEUE_BYTES // (1300 + 37)
    assert packets[-newest:] == numbered[-newest:]
