"""Disco: messages byte for byte as the reference writes them, sealed packets, hostile bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import NODE_KEY, TXID, recorded
from tests.wire.strategies import addresses, entropy, node_keys, nonces
from wire import disco
from wire.disco import CallMeMaybe, Message, Ping, Pong, Unknown
from wire.errors import DecryptError, FrameError, WireError
from wire.keys import DiscoPrivate

txids = st.binary(min_size=12, max_size=12)
pings = st.builds(Ping, txids, node_keys, st.integers(0, 1200)) | st.builds(Ping, txids)
messages: st.SearchStrategy[Message] = (
    pings
    | st.builds(Pong, txids, addresses)
    | st.builds(CallMeMaybe, st.lists(addresses, max_size=disco.MAX_ENDPOINTS).map(tuple))
)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("disco_ping", Ping(TXID, NODE_KEY, 3)),
        ("disco_pong", Pong(TXID, ("192.0.2.1", 41641))),
        ("disco_pong6", Pong(TXID, ("2001:db8::1", 65535))),
        ("disco_cmm", CallMeMaybe((("192.0.2.1", 1), ("2001:db8::1", 2)))),
    ],
)
def test_messages_are_the_references(name: str, message: Message) -> None:
    assert disco.serialize(message) == recorded(name)
    assert disco.parse(recorded(name)) == message


@given(messages)
def test_messages_round_trip(message: Message) -> None:
    assert disco.parse(disco.serialize(message)) == message


@given(messages, st.binary(max_size=17))
def test_trailing_bytes_are_tolerated(message: Message, more: bytes) -> None:
    parsed = disco.parse(disco.serialize(message) + more)
    if not isinstance(message, Ping):
        assert parsed == message
    else:
        assert isinstance(parsed, Ping)
        assert parsed.txid == message.txid


@given(messages, entropy, entropy, nonces)
def test_packets_round_trip(message: Message, a: bytes, b: bytes, nonce: bytes) -> None:
    ours, theirs = DiscoPrivate.generate(a), DiscoPrivate.generate(b)
    packet = disco.seal(ours.shared(theirs.public()), ours.public(), nonce, message)
    assert disco.is_disco(packet)
    assert disco.parse_header(packet) == ours.public()
    assert disco.open(theirs.shared(ours.public()), packet) == message


@given(st.binary(max_size=300))
def test_hostile_plaintext_is_a_message_or_a_declared_error(junk: bytes) -> None:
    with contextlib.suppress(FrameError):
        disco.parse(junk)


@given(st.binary(max_size=300), st.booleans())
def test_hostile_packets_do_not_open(junk: bytes, with_magic: bool) -> None:
    packet = (disco.MAGIC + junk) if with_magic else junk
    shared = DiscoPrivate.generate(bytes(32)).shared(DiscoPrivate.generate(bytes(range(32))).public())
    header = disco.parse_header(packet)
    assert (header is None) == (not disco.is_disco(packet))
    with pytest.raises(DecryptError):
        disco.open(shared, packet)


def test_more_endpoints_than_allowed_are_left_out() -> None:
    many = CallMeMaybe((("192.0.2.1", 1),) * (disco.MAX_ENDPOINTS + 50))
    parsed = disco.parse(disco.serialize(many))
    assert isinstance(parsed, CallMeMaybe)
    assert len(parsed.endpoints) == disco.MAX_ENDPOINTS


def test_unknown_types_are_handed_on_and_not_sent() -> None:
    assert disco.parse(b"\x07\x00body") == Unknown(7)
    with pytest.raises(WireError):
        disco.serialize(Unknown(7))
