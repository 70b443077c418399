"""NAT-PMP and PCP as bytes, beside the RFCs' layouts; whatever a router sends is an answer or none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.net.portmap import natpmp, pcp
from tests.client.net.portmap.routers import PUBLIC, Router

PORTS = st.integers(1, 65535)
NONCE = bytes(range(12))


def test_natpmp_requests_are_those_of_the_rfc() -> None:
    assert natpmp.address_request() == bytes.fromhex("0000")
    assert natpmp.map_request(0x1234, 0x5678, 7200) == bytes.fromhex("0001 0000 1234 5678 00001c20")


def test_natpmp_answers_are_those_of_the_rfc() -> None:
    assert natpmp.parse_address(bytes.fromhex("0080 0000 00000007 cb007109")) == natpmp.ExternalAddress(
        PUBLIC, 7
    )
    assert natpmp.parse_address(bytes.fromhex("0080 0003 00000007 00000000")) == natpmp.ExternalAddress(
        None, 7
    )
    mapped = natpmp.parse_map(bytes.fromhex("0081 0000 00000007 1234 5678 00000e10"), 0x1234)
    assert mapped == natpmp.Mapped(0, 0x1234, 0x5678, 3600, 7)
    refused = natpmp.parse_map(bytes.fromhex("0081 0002 00000007 1234 0000 00000e10"), 0x1234)
    assert refused is not None
    assert refused.lifetime == 0


def test_pcp_requests_are_those_of_the_rfc() -> None:
    head = "02 01 0000 00001c20 00000000000000000000ffff c0a80105"
    body = NONCE.hex() + "11 000000 1234 5678 00000000000000000000ffff 00000000"
    assert pcp.map_request("192.168.1.5", 0x1234, 0x5678, 7200, NONCE) == bytes.fromhex(head + body)
    assert pcp.announce_request("192.168.1.5") == bytes.fromhex("02 00 0000 00000000" + head[20:])


@given(internal=PORTS, wanted=PORTS, lifetime=st.integers(1, 2**32 - 1), granted=st.integers(1, 2**32 - 1))
def test_both_are_understood_by_a_router_and_its_answers_by_us(
    internal: int, wanted: int, lifetime: int, granted: int
) -> None:
    router = Router({"PCP", "NAT-PMP"}, lifetime=granted)
    answer = router.answer(pcp.map_request("192.168.1.5", internal, wanted, lifetime, NONCE))
    assert answer is not None
    assert pcp.parse_map(answer, internal, NONCE) == pcp.Mapped(0, PUBLIC, wanted, granted, 7)
    assert pcp.parse_map(answer, internal, bytes(12)) is None
    assert pcp.parse_map(answer, internal ^ 1, NONCE) is None
    answer = router.answer(natpmp.map_request(internal, wanted, lifetime))
    assert answer is not None
    assert natpmp.parse_map(answer, internal) == natpmp.Mapped(0, internal, wanted, granted, 7)
    assert natpmp.parse_map(answer, internal ^ 1) is None


@given(packet=st.binary(max_size=80), port=PORTS)
def test_any_bytes_are_an_answer_or_none(packet: bytes, port: int) -> None:
    natpmp.parse_address(packet)
    natpmp.parse_map(packet, port)
    pcp.parse_answer(packet)
    pcp.parse_map(packet, port, NONCE)


@pytest.mark.parametrize("protocol", ["PCP", "NAT-PMP"])
def test_a_truncated_answer_is_none(protocol: str) -> None:
    router = Router({protocol})
    request = (
        pcp.map_request("192.168.1.5", 1, 2, 3, NONCE) if protocol == "PCP" else natpmp.map_request(1, 2, 3)
    )
    answer = router.answer(request)
    assert answer is not None
    for size in range(len(answer)):
        assert pcp.parse_map(answer[:size], 1, NONCE) is None
        assert natpmp.parse_map(answer[:size], 1) is None
