"""DNS over HTTPS on both versions of HTTP, and over plain HTTP to a peer."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived, StreamEnded

from client.dns import doh
from client.dns.answers import make_query, with_id
from client.dns.config import Upstream
from client.dns.doh import DohClient
from client.dns.upstream import Forwarder, NoAnswer
from tests.client.dns.fakes import addresses, saying
from tests.lab.certificates import Authority

QUERY = with_id(make_query("www.example.org", "A"), 99)
NAME = "dns.example"


@dataclass
class FakeDoh:
    """One DoH server on loopback: HTTP/2 where ALPN chose it, else HTTP/1.1. ``status`` is its answer's."""

    status: int = 200
    chunked: bool = False
    hang_up_after: int = 1000  # questions on one connection
    connections: int = 0
    questions: list[bytes] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)
    port: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        secure = writer.get_extra_info("ssl_object")
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            if secure is not None and secure.selected_alpn_protocol() == "h2":
                await self.serve2(reader, writer)
            else:
                await self.serve1(reader, writer)
        writer.close()

    async def serve1(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(self.hang_up_after):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            length = next(int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:"))
            answer = self.answer(await reader.readexactly(length))
            if self.chunked:
                half = len(answer) // 2
                writer.write(f"HTTP/1.1 {self.status} X\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
                for piece in (answer[:half], answer[half:], b""):
                    writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.01)
            else:
                writer.write(f"HTTP/1.1 {self.status} X\r\nContent-Length: {len(answer)}\r\n\r\n".encode())
                writer.write(answer)

    async def serve2(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        h2.initiate_connection()
        bodies: dict[int, bytes] = {}
        while data := await reader.read(65536):
            for event in h2.receive_data(data):
                if isinstance(event, RequestReceived):
                    bodies[event.stream_id] = b""
                    self.heads.append(str(dict(event.headers)))
                elif isinstance(event, DataReceived):
                    bodies[event.stream_id] += event.data
                elif isinstance(event, StreamEnded):
                    answer = self.answer(bodies.pop(event.stream_id))
                    h2.send_headers(event.stream_id, [(":status", str(self.status))])
                    h2.send_data(event.stream_id, answer, end_stream=True)
                    if len(self.questions) >= self.hang_up_after:
                        h2.close_connection()
            writer.write(h2.data_to_send())
            await writer.drain()

    def answer(self, question: bytes) -> bytes:
        self.questions.append(question)
        return saying("192.0.2.8")(question)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@contextlib.asynccontextmanager
async def running(server: FakeDoh, authority: Authority | None, *protocols: str) -> AsyncIterator[FakeDoh]:
    context = None
    if authority is not None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.issue(NAME))
        context.set_alpn_protocols(list(protocols))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await asyncio.sleep(0.05)


def secure(server: FakeDoh, path: Path | None = None) -> Upstream:
    return Upstream(
        NAME, server.port, url=f"https://{NAME}:{server.port}/dns-query?x=1", bootstrap=("127.0.0.1",)
    )


@contextlib.asynccontextmanager
async def asking(authority: Authority | None = None) -> AsyncIterator[Forwarder]:
    forwarder = Forwarder(DohClient(tls=authority.context() if authority else None))
    yield forwarder
    await forwarder.close()
    await asyncio.sleep(0.05)


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_questions_share_a_connection(authority: Authority, protocol: str) -> None:
    async with running(FakeDoh(), authority, protocol) as server, asking(authority) as forwarder:
        for _ in range(3):
            answer = await forwarder.ask(QUERY, [secure(server)])
            assert addresses(answer) == ["192.0.2.8"]
            assert answer[:2] == QUERY[:2]
        assert server.connections == 1
        assert {question[:2] for question in server.questions} == {b"\0\0"}  # alike for every client
        assert "/dns-query?x=1" in server.heads[0]


async def test_many_questions_at_once_are_streams_of_one_connection(authority: Authority) -> None:
    async with running(FakeDoh(), authority, "h2") as server, asking(authority) as forwarder:
        answers = await asyncio.gather(*(forwarder.ask(QUERY, [secure(server)]) for _ in range(100)))
        assert {tuple(addresses(answer)) for answer in answers} == {("192.0.2.8",)}
        assert server.connections == 1


async def test_many_questions_at_once_over_http1(authority: Authority) -> None:
    async with running(FakeDoh(), authority, "http/1.1") as server, asking(authority) as forwarder:
        answers = await asyncio.gather(*(forwarder.ask(QUERY, [secure(server)]) for _ in range(10)))
        assert len(answers) == 10


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_a_connection_that_ended_is_made_anew(authority: Authority, protocol: str) -> None:
    server = FakeDoh(hang_up_after=1)
    async with running(server, authority, protocol), asking(authority) as forwarder:
        for _ in range(3):
            assert addresses(await forwarder.ask(QUERY, [secure(server)])) == ["192.0.2.8"]
        assert server.connections == 3


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_peer_is_asked_over_plain_http(chunked: bool) -> None:
    async with running(FakeDoh(chunked=chunked), None) as server, asking() as forwarder:
        upstream = Upstream("127.0.0.1", server.port, url=f"http://127.0.0.1:{server.port}/dns-query")
        for _ in range(2):
            assert addresses(await forwarder.ask(QUERY, [upstream])) == ["192.0.2.8"]
        assert server.connections == 1
        assert f"Host: 127.0.0.1:{server.port}" in server.heads[0]


@pytest.mark.parametrize("protocol", ["h2", "http/1.1"])
async def test_a_refusal_is_no_answer(authority: Authority, protocol: str) -> None:
    async with running(FakeDoh(status=403), authority, protocol) as server, asking(authority) as forwarder:
        with pytest.raises(NoAnswer, match="403"):
            await forwarder.ask(QUERY, [secure(server)])


async def test_a_certificate_that_nobody_trusts_is_no_answer(authority: Authority) -> None:
    async with running(FakeDoh(), authority, "h2") as server, asking() as forwarder:
        with pytest.raises(NoAnswer, match="certificate"):
            await forwarder.ask(QUERY, [secure(server)])
        assert not server.questions


async def test_a_host_without_known_addresses_is_looked_up(authority: Authority) -> None:
    asked: list[str] = []

    async def lookup(host: str) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"]

    async with running(FakeDoh(), authority, "h2") as server:
        client = DohClient(tls=authority.context(), lookup=lookup)
        upstream = Upstream(NAME, server.port, url=f"https://{NAME}:{server.port}/")
        assert addresses(await client.ask(upstream, QUERY)) == ["192.0.2.8"]
        await client.close()
        await asyncio.sleep(0.05)
    assert asked == [NAME]
    with pytest.raises(OSError, match="nobody knows"):
        await DohClient().ask(upstream, QUERY)


async def test_only_so_many_connections_are_kept(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doh, "MAX_CONNECTIONS", 2)
    async with running(FakeDoh(), authority, "h2") as server, asking(authority) as forwarder:
        for number in range(4):
            upstream = Upstream(
                NAME, server.port, url=f"https://{NAME}:{server.port}/{number}", bootstrap=("127.0.0.1",)
            )
            await forwarder.ask(QUERY, [upstream])
        assert len(forwarder._doh._kept) == 2


async def test_an_idle_connection_is_closed(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doh, "IDLE_SECONDS", 0.05)
    async with running(FakeDoh(), authority, "h2") as server, asking(authority) as forwarder:
        await forwarder.ask(QUERY, [secure(server)])
        await asyncio.sleep(0.2)
        assert not forwarder._doh._kept
