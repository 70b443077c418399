"""One question and its answer as bytes: what this node knows itself, and refusals. Pure.

RFC 1035, RFC 6891 (EDNS), RFC 2308 (negative answers). The rules: tailscale net/dns/resolver/tsdns.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset

from client.dns.config import Config
from client.dns.names import normal, reversed_address
from client.prefixes import IPAddress

MAX_UDP = 4096
MIN_UDP = 512
MAX_TCP = 65535
HEADER = 12
TTL_SECONDS = 5
NEGATIVE_SECONDS = 10
ONION = "onion"  # RFC 7686 §2: never asked of DNS
NOT_IMPLEMENTED = frozenset({"NS", "SOA", "AXFR", "IXFR", "HINFO"})


class Unreadable(Exception):
    """No DNS question that could be answered, not even by a refusal."""


@dataclass(frozen=True, slots=True)
class Question:
    """One query. ``name`` is normal (``None``: one that no configuration can hold), ``type`` a word."""

    message: dns.message.Message
    wire: bytes
    name: str | None
    type: str
    max_udp: int


def parse_question(wire: bytes) -> Question:
    """Raises :class:`Unreadable` for what is no query with exactly one question."""
    if not HEADER <= len(wire) <= MAX_TCP:
        raise Unreadable("a DNS message has 12 to 65535 bytes")
    if wire[2] & 0x80:
        raise Unreadable("an answer, not a question")
    try:
        message = dns.message.from_wire(wire, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise Unreadable(str(error) or type(error).__name__) from error
    if len(message.question) != 1:
        raise Unreadable("not one question")
    asked = message.question[0]
    name = normal(asked.name.to_text(omit_final_dot=True)) if asked.name != dns.name.root else ""
    size = max(MIN_UDP, min(message.payload, MAX_UDP)) if message.edns >= 0 else MIN_UDP
    return Question(message, wire, name, dns.rdatatype.to_text(asked.rdtype), size)


def local_answer(question: Question, config: Config) -> bytes | None:
    """What is known here, or lies in a zone answered here; ``None`` = somebody else is to be asked."""
    message, name = question.message, question.name
    if message.opcode() != dns.opcode.QUERY:
        return refusal(question, dns.rcode.NOTIMP)
    if message.question[0].rdclass != dns.rdataclass.IN or name is None:
        return None
    return _known(question, name, config)


def _known(question: Question, name: str, config: Config) -> bytes | None:
    if name in config.hosts:
        return _host(question, config.hosts[name])
    address = reversed_address(name)
    if address is not None and (pointer := config.reverse.get(address)) is not None:
        return _pointer(question, pointer)
    if config.upstreams(name) is None:  # what lies above a host exists, too (RFC 8020)
        return _nothing(question, dns.rcode.NOERROR if name in config.parents else dns.rcode.NXDOMAIN)
    if name == ONION or name.endswith(f".{ONION}"):
        return _nothing(question, dns.rcode.NXDOMAIN)
    return None


def _host(question: Question, addresses: Iterable[IPAddress]) -> bytes:
    if question.type in NOT_IMPLEMENTED:
        return refusal(question, dns.rcode.NOTIMP)
    wanted = {"A": (4,), "AAAA": (6,), "ANY": (4, 6)}.get(question.type, ())
    chosen = [address for address in addresses if address.version in wanted]
    if not chosen:
        return _nothing(question, dns.rcode.NOERROR)
    answer = _response(question)
    for version, kind in ((4, "A"), (6, "AAAA")):
        texts = [str(address) for address in chosen if address.version == version]
        if texts:
            answer.answer.append(_rrset(question, kind, texts))
    return answer.to_wire()


def _pointer(question: Question, name: str) -> bytes:
    if question.type not in ("PTR", "ANY"):
        return _nothing(question, dns.rcode.NOERROR)
    answer = _response(question)
    answer.answer.append(_rrset(question, "PTR", [f"{name}."]))
    return answer.to_wire()


def _nothing(question: Question, rcode: dns.rcode.Rcode) -> bytes:
    """There is no such name, or no such record; the SOA says for how long to believe it (RFC 2308 §3)."""
    answer = _response(question, rcode)
    zone = question.message.question[0].name
    soa = f"ns. admin. 1 {NEGATIVE_SECONDS} {NEGATIVE_SECONDS} {NEGATIVE_SECONDS} {NEGATIVE_SECONDS}"
    answer.authority.append(dns.rrset.from_text(zone, NEGATIVE_SECONDS, "IN", "SOA", soa))
    return answer.to_wire()


def refusal(question: Question, rcode: dns.rcode.Rcode) -> bytes:
    """An answer without records."""
    return _response(question, rcode).to_wire()


def servfail(question: Question) -> bytes:
    return refusal(question, dns.rcode.SERVFAIL)


def format_error(wire: bytes) -> bytes | None:
    """FORMERR for what could not be read; ``None`` when there is nobody to tell: answers answer no answer."""
    if len(wire) < HEADER or wire[2] & 0x80:
        return None
    head = bytearray(wire[:2] + bytes(10))
    head[2] = 0x80 | (wire[2] & 0x79)  # an answer, with its opcode and "recursion desired"
    head[3] = 0x80 | dns.rcode.FORMERR
    return bytes(head)


def fit_udp(question: Question, answer: bytes) -> bytes:
    """The answer, or in its place an empty one with TC: ask again over TCP (RFC 2181 §9)."""
    if len(answer) <= question.max_udp:
        return answer
    short = _response(question)
    short.flags |= dns.flags.TC
    return short.to_wire()


def with_id(wire: bytes, number: int) -> bytes:
    return number.to_bytes(2) + wire[2:]


def rcode_of(answer: bytes) -> int:
    return answer[3] & 0x0F


def is_truncated(answer: bytes) -> bool:
    return bool(answer[2] & 0x02)


def answers(answer: bytes, query: bytes) -> bool:
    """Whether ``answer`` is one to ``query``: its number, and the same question if it repeats one.

    Without that check anybody who guesses a port and a number could slip in another name's answer.
    """
    if len(answer) < HEADER or answer[:2] != query[:2] or not answer[2] & 0x80:
        return False
    try:
        theirs = dns.message.from_wire(answer, question_only=True, ignore_trailing=True).question
        ours = dns.message.from_wire(query, question_only=True, ignore_trailing=True).question
    except (dns.exception.DNSException, ValueError, IndexError):
        return False
    if not theirs:
        return rcode_of(answer) != dns.rcode.NOERROR
    return [(one.name, one.rdtype, one.rdclass) for one in theirs] == [
        (one.name, one.rdtype, one.rdclass) for one in ours
    ]


def make_query(name: str, kind: str) -> bytes:
    """A query in wire form; raises ``ValueError`` for what is no name or no type."""
    try:
        message = dns.message.make_query(name, kind, use_edns=0, payload=MAX_UDP, id=0)
        return message.to_wire()
    except (dns.exception.DNSException, UnicodeError) as error:
        raise ValueError(str(error) or f"{name!r} is no name") from error


def describe(answer: bytes) -> tuple[str, list[str]]:
    """The response code as a word and the records as text, for people; raises :class:`Unreadable`."""
    try:
        message = dns.message.from_wire(answer, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError) as error:
        raise Unreadable(str(error)) from error
    records = [line for rrset in message.answer for line in rrset.to_text().splitlines()]
    return dns.rcode.to_text(message.rcode()), records


def addresses_in(answer: bytes, kind: str = "A") -> list[str]:
    """The addresses in an answer: IPv4, or with ``AAAA`` IPv6."""
    try:
        message = dns.message.from_wire(answer, ignore_trailing=True)
    except (dns.exception.DNSException, ValueError, IndexError):
        return []
    wanted = dns.rdatatype.from_text(kind)
    rrsets = (rrset for rrset in message.answer if rrset.rdtype == wanted)
    return [record.to_text() for rrset in rrsets for record in rrset]


def _response(question: Question, rcode: dns.rcode.Rcode = dns.rcode.NOERROR) -> dns.message.Message:
    answer = dns.message.make_response(question.message, recursion_available=True, our_payload=MAX_UDP)
    answer.set_rcode(rcode)
    if rcode in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        answer.flags |= dns.flags.AA
    return answer


def _rrset(question: Question, kind: str, texts: list[str]) -> dns.rrset.RRset:
    return dns.rrset.from_text_list(question.message.question[0].name, TTL_SECONDS, "IN", kind, texts)
