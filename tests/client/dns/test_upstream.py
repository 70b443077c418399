"""Asking others: the next one when one is silent or says no, TCP for what was cut, nobody else's answers."""

from __future__ import annotations

import asyncio
import socket

import dns.rcode
import pytest

from client.dns import upstream
from client.dns.answers import make_query, rcode_of, with_id
from client.dns.config import Upstream
from client.dns.upstream import Forwarder, NoAnswer
from tests.client.dns.fakes import addresses, refusing, saying, serving, silent

QUERY = with_id(make_query("www.example.org", "A"), 4242)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Patience for silent servers, a hundredth."""
    monkeypatch.setattr(upstream, "NEXT_SECONDS", 0.02)
    monkeypatch.setattr(upstream, "RESEND_SECONDS", (0.05, 0.05))


async def ask(*upstreams: Upstream, query: bytes = QUERY) -> bytes:
    forwarder = Forwarder()
    try:
        return await forwarder.ask(query, upstreams)
    finally:
        await forwarder.close()


async def test_the_answer_has_the_questions_number_and_the_wire_another() -> None:
    async with serving(saying("192.0.2.1")) as server:
        answers = [await ask(server.upstream) for _ in range(4)]
    assert {answer[:2] for answer in answers} == {QUERY[:2]}
    assert addresses(answers[0]) == ["192.0.2.1"]
    assert len({query[:2] for query in server.udp}) > 1


async def test_a_silent_server_does_not_hold_up_the_next(quick: None) -> None:
    async with serving(silent) as first, serving(saying("192.0.2.2")) as second:
        assert addresses(await ask(first.upstream, second.upstream)) == ["192.0.2.2"]
    assert first.udp


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED])
async def test_who_says_no_is_passed_over(rcode: dns.rcode.Rcode) -> None:
    async with serving(refusing(rcode)) as first, serving(saying("192.0.2.2")) as second:
        assert addresses(await ask(first.upstream, second.upstream)) == ["192.0.2.2"]
        assert rcode_of(await ask(first.upstream, first.upstream)) == rcode


async def test_that_there_is_no_such_name_is_an_answer() -> None:
    async with serving(refusing(dns.rcode.NXDOMAIN)) as first, serving(saying("192.0.2.2")) as second:
        assert rcode_of(await ask(first.upstream, second.upstream)) == dns.rcode.NXDOMAIN
    assert not second.udp


async def test_nobody_there_is_known_at_once() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    with pytest.raises(NoAnswer):
        await ask(Upstream("127.0.0.1", port))
    with pytest.raises(NoAnswer):
        await ask()


async def test_a_lost_packet_is_sent_again(quick: None) -> None:
    heard: list[bytes] = []

    def deaf_at_first(query: bytes) -> bytes | None:
        heard.append(query)
        return saying("192.0.2.3")(query) if len(heard) > 1 else None

    async with serving(deaf_at_first) as server:
        assert addresses(await ask(server.upstream)) == ["192.0.2.3"]


async def test_a_cut_answer_is_fetched_over_tcp() -> None:
    async with serving(saying("192.0.2.1", count=100)) as server:
        assert len(addresses(await ask(server.upstream))) == 100
    assert (len(server.udp), len(server.tcp)) == (1, 1)


async def test_other_peoples_answers_do_not_count(quick: None) -> None:
    """A wrong number, another name, a question sent back: none is taken, however early it comes."""

    def confused(query: bytes) -> bytes:
        return with_id(saying("192.0.2.66")(query), int.from_bytes(query[:2]) ^ 1)

    def another(query: bytes) -> bytes:
        return saying("192.0.2.66")(with_id(make_query("www.example.com", "A"), int.from_bytes(query[:2])))

    for reply in (confused, another, lambda query: query, lambda query: b"\0" * 3):
        async with serving(reply) as liar, serving(saying("192.0.2.2")) as honest:
            assert addresses(await ask(liar.upstream, honest.upstream)) == ["192.0.2.2"]


async def test_giving_up_leaves_nothing_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "FORWARD_SECONDS", 0.05)
    async with serving(silent) as server:
        with pytest.raises(NoAnswer, match="no answer"):
            await ask(server.upstream, server.upstream)
        assert len(asyncio.all_tasks()) == 1
