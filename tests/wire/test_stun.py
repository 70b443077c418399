"""STUN: byte for byte as the reference writes it, and silence or a declared error for the rest."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import TXID, recorded
from tests.wire.strategies import addresses, ports
from wire.errors import FrameError
from wire.stun import (
    ATTR_MAPPED,
    ATTR_XOR_MAPPED_OLD,
    BindingResponse,
    binding_request,
    binding_response,
    is_stun,
    parse_binding_request,
    parse_response,
)

txids = st.binary(min_size=12, max_size=12)


def test_messages_are_the_references() -> None:
    assert binding_request(TXID) == recorded("stun_request")
    assert binding_response(TXID, ("192.0.2.1", 41641)) == recorded("stun_response")
    assert binding_response(TXID, ("2001:db8::1", 65535)) == recorded("stun_response6")
    assert parse_response(recorded("stun_response6")) == BindingResponse(TXID, ("2001:db8::1", 65535))


@given(txids)
def test_requests_round_trip(txid: bytes) -> None:
    assert is_stun(binding_request(txid))
    assert parse_binding_request(binding_request(txid)) == txid


@given(txids, addresses)
def test_responses_round_trip(txid: bytes, address: tuple[str, int]) -> None:
    assert parse_response(binding_response(txid, address)) == BindingResponse(txid, address)


@given(txids, st.ip_addresses(v=4), ports)
def test_a_mapped_address_is_answered_as_ipv4(txid: bytes, ip: object, port: int) -> None:
    assert binding_response(txid, (f"::ffff:{ip}", port)) == binding_response(txid, (str(ip), port))


@given(txids, st.integers(0, 39), st.integers(1, 255))
def test_a_request_touched_anywhere_gets_silence(txid: bytes, at: int, flip: int) -> None:
    request = bytearray(binding_request(txid))
    request[at] ^= flip
    assert parse_binding_request(bytes(request)) is None


@given(st.binary(max_size=80))
def test_other_packets_get_silence_or_a_declared_error(junk: bytes) -> None:
    assert parse_binding_request(junk) is None
    with pytest.raises(FrameError):
        parse_response(junk)


@given(txids, addresses, st.data())
def test_a_cut_response_is_a_declared_error(
    txid: bytes, address: tuple[str, int], data: st.DataObject
) -> None:
    packet = binding_response(txid, address)
    with pytest.raises(FrameError):
        parse_response(packet[: data.draw(st.integers(0, len(packet) - 1))])


@given(txids, st.binary(max_size=60))
def test_hostile_attributes_are_a_declared_error_or_an_address(txid: bytes, attributes: bytes) -> None:
    head = b"\x01\x01" + struct.pack(">H", len(attributes)) + b"\x21\x12\xa4\x42" + txid
    with contextlib.suppress(FrameError):
        assert parse_response(head + attributes).txid == txid


def _response(*attributes: bytes) -> bytes:
    body = b"".join(attributes)
    return b"\x01\x01" + struct.pack(">H", len(body)) + b"\x21\x12\xa4\x42" + TXID + body


def test_the_older_attributes_are_understood() -> None:
    plain = struct.pack(">HHBBH4s", ATTR_MAPPED, 8, 0, 1, 7, bytes([192, 0, 2, 9]))
    assert parse_response(_response(plain)).address == ("192.0.2.9", 7)
    old = struct.pack(">HH", ATTR_XOR_MAPPED_OLD, 8) + recorded("stun_response")[24:]
    software = struct.pack(">HH", 0x8022, 3) + b"abc\0"
    assert parse_response(_response(software, plain, old)).address == ("192.0.2.1", 41641)


def test_a_transaction_id_has_12_bytes() -> None:
    with pytest.raises(FrameError):
        binding_request(b"short")
