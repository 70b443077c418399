"""The pure answers: what a resolver of this host gets, byte by byte where it matters."""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.dns.answers import (
    Unreadable,
    addresses_in,
    answers,
    describe,
    fit_udp,
    format_error,
    local_answer,
    make_query,
    parse_question,
    servfail,
    with_id,
)
from client.dns.config import Config, Upstream, make_config
from tests.client.fakes import netmap, node
from wire.netmap import DNSConfig, Resolver

DNS = DNSConfig(
    routes={"tail.example": (), "corp.example": (Resolver(address="10.0.0.1"),)},
    proxied=True,
    extra_records=({"Name": "a.b.tail.example", "Value": "100.64.0.9"},),
)
CONFIG = make_config(netmap(node(2), dns_config=DNS))
NO, YES = dns.rcode.NXDOMAIN, dns.rcode.NOERROR


def ask(name: str, kind: str = "A", config: Config = CONFIG) -> dns.message.Message | None:
    query = make_query(name, kind)
    wire = local_answer(parse_question(query), config)
    if wire is None:
        return None
    assert answers(wire, query)
    return dns.message.from_wire(wire)


def known(name: str, kind: str = "A") -> dns.message.Message:
    answer = ask(name, kind)
    assert answer is not None
    return answer


def records(answer: dns.message.Message) -> list[str]:
    return [text.to_text() for rrset in answer.answer for text in rrset]


def test_a_peer_by_its_name_in_any_case() -> None:
    answer = known("NODE2.tail.Example.")
    assert records(answer) == ["100.64.0.2"]
    assert answer.answer[0].ttl == 5
    assert answer.answer[0].name.to_text() == "NODE2.tail.Example."
    assert answer.flags & dns.flags.AA
    assert answer.flags & dns.flags.RA


def test_both_families_where_wanted() -> None:
    own = node(1, cap_map={"magicdns-aaaa": None})
    config = make_config(netmap(node(2), own=own, dns_config=DNS))
    six, any_ = ask("node2.tail.example", "AAAA", config), ask("node2.tail.example", "ANY", config)
    assert six is not None
    assert any_ is not None
    assert records(six) == ["fd7a:115c:a1e0::2"]
    assert records(any_) == ["100.64.0.2", "fd7a:115c:a1e0::2"]


@pytest.mark.parametrize("kind", ["AAAA", "MX", "TXT", "HTTPS", "TYPE999"])
def test_a_name_without_such_a_record_exists_all_the_same(kind: str) -> None:
    answer = known("node2.tail.example", kind)
    assert (answer.rcode(), answer.answer) == (YES, [])
    assert answer.authority[0].ttl == 10


@pytest.mark.parametrize(
    ("name", "rcode"),
    [
        ("nobody.tail.example", NO),
        ("x.node2.tail.example", NO),
        ("tail.example", YES),
        ("b.tail.example", YES),
        ("3.0.64.100.in-addr.arpa", NO),
        ("something.onion", NO),
    ],
)
def test_names_that_are_not_there(name: str, rcode: dns.rcode.Rcode) -> None:
    answer = known(name)
    assert (answer.rcode(), answer.answer) == (rcode, [])
    assert answer.authority[0].ttl == 10


def test_addresses_have_names() -> None:
    assert records(known("2.0.64.100.in-addr.arpa", "PTR")) == ["node2.tail.example."]
    six = "2." + "0." * 19 + "0.e.1.a.c.5.1.1.a.7.d.f.ip6.arpa"
    assert records(known(six, "PTR")) == ["node2.tail.example."]
    assert known("2.0.64.100.in-addr.arpa", "A").answer == []


@pytest.mark.parametrize("name", ["example.org", "x.corp.example", "1.0.168.192.in-addr.arpa", "."])
def test_other_names_are_for_others(name: str) -> None:
    assert ask(name) is None


def test_the_type_of_zones_is_not_implemented_for_hosts() -> None:
    assert known("node2.tail.example", "SOA").rcode() == dns.rcode.NOTIMP


def test_an_update_is_not_implemented() -> None:
    message = dns.message.make_query("tail.example", "SOA")
    message.set_opcode(dns.opcode.NOTIFY)
    answer = local_answer(parse_question(message.to_wire()), CONFIG)
    assert answer is not None
    assert dns.message.from_wire(answer).rcode() == dns.rcode.NOTIMP


def test_an_answer_too_long_is_cut_and_says_so() -> None:
    records = tuple({"Name": "many.tail.example", "Value": f"100.64.1.{n}"} for n in range(200))
    config = make_config(netmap(dns_config=DNSConfig(proxied=True, extra_records=records)))
    plain = dns.message.make_query("many.tail.example", "A", use_edns=False)
    question = parse_question(plain.to_wire())
    whole = local_answer(question, config)
    assert whole is not None
    cut = dns.message.from_wire(fit_udp(question, whole))
    assert cut.flags & dns.flags.TC
    assert not cut.answer
    large = parse_question(make_query("many.tail.example", "A"))
    assert fit_udp(large, whole) == whole


def test_the_size_of_datagrams_has_bounds() -> None:
    for payload, limit in ((0, 512), (100, 512), (1232, 1232), (65535, 4096)):
        message = dns.message.make_query("x.example", "A", use_edns=0, payload=payload)
        assert parse_question(message.to_wire()).max_udp == limit


def test_servfail_repeats_the_question() -> None:
    query = with_id(make_query("x.example", "A"), 4711)
    answer = dns.message.from_wire(servfail(parse_question(query)))
    assert (answer.id, answer.rcode()) == (4711, dns.rcode.SERVFAIL)


def test_another_questions_answer_is_none() -> None:
    query = with_id(make_query("x.example", "A"), 7)
    right = servfail(parse_question(query))
    assert answers(right, query)
    assert not answers(with_id(right, 8), query)
    assert not answers(query, query)
    for name, kind in (("y.example", "A"), ("x.example", "AAAA")):
        assert not answers(servfail(parse_question(with_id(make_query(name, kind), 7))), query)


@pytest.mark.parametrize("data", [b"", b"\0" * 11, b"\0" * 12, b"\0\0\x80" + b"\0" * 20, b"\xff" * 40])
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(Unreadable):
        parse_question(data)


def test_answers_are_not_answered() -> None:
    assert format_error(b"\0\1\x80\0" + b"\0" * 8) is None
    assert format_error(b"\0" * 5) is None
    refused = format_error(b"\0\1\x01\0" + b"\xff" * 8)
    assert refused is not None
    assert dns.message.from_wire(refused).rcode() == dns.rcode.FORMERR


mutations = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), max_size=6)


@given(
    st.binary(max_size=200)
    | st.builds(lambda tail: make_query("node2.tail.example", "A") + tail, st.binary())
)
def test_no_packet_breaks_the_reader(data: bytes) -> None:
    check(data)


@given(
    st.sampled_from(["node2.tail.example", "nobody.tail.example", "example.org"]),
    mutations,
    st.integers(0, 60),
)
def test_no_mutated_packet_breaks_the_reader(name: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(make_query(name, "A"))
    for place, value in changes:
        data[place % len(data)] = value
    check(bytes(data))
    check(bytes(data[:cut]))


def check(data: bytes) -> None:
    """Every packet is answered, refused or ignored."""
    try:
        question = parse_question(data)
    except Unreadable:
        format_error(data)
    else:
        answer = local_answer(question, CONFIG)
        if answer is not None:
            assert len(fit_udp(question, answer)) <= question.max_udp
        assert parse_question(data).max_udp >= 512
        servfail(question)
    answers(data, make_query("node2.tail.example", "A"))
    addresses_in(data)


def test_answers_in_words() -> None:
    answer = local_answer(parse_question(make_query("node2.tail.example", "A")), CONFIG)
    assert answer is not None
    assert describe(answer) == ("NOERROR", ["node2.tail.example. 5 IN A 100.64.0.2"])
    assert addresses_in(answer) == ["100.64.0.2"]
    with pytest.raises(Unreadable):
        describe(b"no")
    for name, kind in (("a..b", "A"), ("x.example", "NOTYPE"), ("x" * 300, "A")):
        with pytest.raises(ValueError, match=r"."):
            make_query(name, kind)


def test_upstreams_are_shown_as_people_write_them() -> None:
    assert str(Upstream("10.0.0.1")) == "10.0.0.1"
