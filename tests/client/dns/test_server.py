"""The sockets: datagrams and streams, hostile ones too, and how many at once."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.flags
import dns.message
import dns.rcode
import pytest

from client.dns import resolver as resolving
from client.dns import server as serving_module
from client.dns.answers import make_query
from client.dns.config import Config, Upstream, make_config
from client.dns.resolver import Resolver
from client.dns.server import DnsServer
from client.errors import SetupError
from tests.client.dns.fakes import saying, serving, silent
from tests.client.fakes import netmap, node
from wire.netmap import DNSConfig

HOST = "127.0.0.1"
DNS = DNSConfig(
    proxied=True,
    extra_records=tuple({"Name": "many.tail.example", "Value": f"100.64.1.{n}"} for n in range(200)),
)
CONFIG = make_config(netmap(node(2), dns_config=DNS))


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind((HOST, 0))
        return int(sock.getsockname()[1])


@pytest.fixture
async def server() -> AsyncIterator[DnsServer]:
    resolver = Resolver()
    resolver.config = CONFIG
    made = DnsServer(resolver, port=free_port())
    await made.start([HOST])
    yield made
    await made.close()
    await resolver.close()


def resolver_of(server: DnsServer) -> Resolver:
    return server._resolver


async def udp(server: DnsServer, query: dns.message.Message) -> dns.message.Message:
    return await dns.asyncquery.udp(query, HOST, timeout=20, port=server.port)


async def test_names_over_udp_and_tcp(server: DnsServer) -> None:
    query = dns.message.make_query("node2.tail.example", "A")
    for answer in (await udp(server, query), await dns.asyncquery.tcp(query, HOST, 20, server.port)):
        assert [record.to_text() for record in answer.answer[0]] == ["100.64.0.2"]


async def test_a_long_answer_is_cut_and_whole_over_tcp(server: DnsServer) -> None:
    query = dns.message.make_query("many.tail.example", "A", use_edns=False)
    assert (await udp(server, query)).flags & dns.flags.TC
    answer, over_tcp = await dns.asyncquery.udp_with_fallback(query, HOST, 20, server.port)
    assert over_tcp
    assert len(answer.answer[0]) == 200


async def test_several_questions_on_one_connection(server: DnsServer) -> None:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    wire = make_query("node2.tail.example", "A")
    for _ in range(3):
        writer.write(len(wire).to_bytes(2) + wire)
        length = int.from_bytes(await reader.readexactly(2))
        assert dns.message.from_wire(await reader.readexactly(length)).rcode() == dns.rcode.NOERROR
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("data", [b"\0\0", b"\0\5hello", b"\0\x0c" + b"\0\0\x80" + b"\0" * 9, b"\xff"])
async def test_a_stream_of_rubbish_is_closed(server: DnsServer, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(HOST, server.port)
    writer.write(data)
    writer.write_eof()
    await reader.read()  # whatever it is, it ends
    writer.close()
    await writer.wait_closed()


async def test_rubbish_datagrams_do_not_stop_it(server: DnsServer) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        for data in (b"", b"x", b"\xff" * 5000, b"\0" * 12, make_query("a.example", "A")[:20]):
            sock.sendto(data, (HOST, server.port))
    assert (await udp(server, dns.message.make_query("node2.tail.example", "A"))).answer


async def test_what_others_know_is_asked_of_them(server: DnsServer) -> None:
    async with serving(saying("192.0.2.1")) as other:
        resolver_of(server).config = CONFIG.with_base((other.upstream,))
        answer = await udp(server, dns.message.make_query("www.example.org", "A"))
    assert [record.to_text() for record in answer.answer[0]] == ["192.0.2.1"]


async def test_without_anybody_to_ask_it_fails_at_once(server: DnsServer) -> None:
    answer = await udp(server, dns.message.make_query("www.example.org", "A"))
    assert answer.rcode() == dns.rcode.SERVFAIL


async def test_only_so_many_are_forwarded_at_once(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolving, "MAX_QUERIES", 2)
    resolver = resolver_of(server)
    async with serving(silent) as other:
        resolver.config = CONFIG.with_base((other.upstream,))
        waiting = [
            asyncio.create_task(resolver.answer(make_query(f"n{number}.example", "A"))) for number in range(2)
        ]
        await asyncio.sleep(0)
        refused = await resolver.answer(make_query("n3.example", "A"))
        known = await resolver.answer(make_query("node2.tail.example", "A"))
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert refused is not None
    assert dns.message.from_wire(refused.wire).rcode() == dns.rcode.SERVFAIL
    assert known is not None
    assert dns.message.from_wire(known.wire).answer


async def test_only_so_many_connections(server: DnsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving_module, "MAX_CONNECTIONS", 1)
    first = await asyncio.open_connection(HOST, server.port)
    wire = make_query("node2.tail.example", "A")
    first[1].write(len(wire).to_bytes(2) + wire)
    await first[0].readexactly(2)
    second = await asyncio.open_connection(HOST, server.port)
    assert await second[0].read() == b""
    for _, writer in (first, second):
        writer.close()


async def test_a_port_that_is_taken_is_one_line_and_nothing_is_left(server: DnsServer) -> None:
    other = DnsServer(Resolver(), port=server.port)
    with pytest.raises(SetupError, match="another program has it"):
        await other.start([HOST])
    assert not other.is_serving


async def test_peers_get_the_worlds_names_and_none_of_ours() -> None:
    resolver = Resolver()
    async with serving(saying("192.0.2.1")) as other:
        resolver.config = CONFIG.with_base((other.upstream,))

        async def asked(name: str, kind: str) -> dns.message.Message:
            wire = await resolver.answer_peer(make_query(name, kind))
            assert wire is not None
            return dns.message.from_wire(wire)

        assert (await asked("www.example.org", "A")).answer
        refused = [await asked("node2.tail.example", "A"), await asked("www.example.org", "AXFR")]
        assert {answer.rcode() for answer in refused} == {dns.rcode.REFUSED}
    assert await resolver.answer_peer(b"x") is None
    await resolver.close()


async def test_nobody_is_asked_twice_about_a_zone_answered_here() -> None:
    resolver = Resolver()
    async with serving(saying("192.0.2.1")) as other:
        resolver.config = CONFIG.with_base((other.upstream,))
        answer = await resolver.answer(make_query("nobody.tail.example", "A"))
    assert answer is not None
    assert dns.message.from_wire(answer.wire).rcode() == dns.rcode.NXDOMAIN
    assert not other.udp
    assert Config().with_base((Upstream("127.0.0.1"),)).base[0].marked
