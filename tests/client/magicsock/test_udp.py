"""Headers made by hand, against scapy's."""

from __future__ import annotations

import ipaddress
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.magicsock.udp import checksum, ipv4_packet, ipv6_packet, parse_ipv4, parse_udp, udp4

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)
scapy = pytest.importorskip("scapy.all")

ports = st.integers(1, 65_535)
v4 = st.tuples(st.ip_addresses(v=4).map(str), ports)
v6 = st.tuples(st.ip_addresses(v=6).map(str), ports)
payloads = st.binary(max_size=1500)


def _sum(data: bytes) -> int:
    """The Internet checksum as RFC 1071 writes it."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


@given(st.binary(min_size=1, max_size=100).filter(any))
def test_the_checksum_is_that_of_rfc_1071_but_never_zero(data: bytes) -> None:
    assert checksum(data) == (_sum(data) or 0xFFFF)


@given(source=v4, to=v4, payload=payloads)
def test_a_udp_header_over_ipv4_is_scapys(
    source: tuple[str, int], to: tuple[str, int], payload: bytes
) -> None:
    packet = scapy.IP(src=source[0], dst=to[0]) / scapy.UDP(sport=source[1], dport=to[1]) / payload
    assert udp4(source, to, payload) == bytes(packet)[20:]


@given(source=v6, to=v6, payload=payloads)
def test_a_packet_of_ipv6_is_scapys(source: tuple[str, int], to: tuple[str, int], payload: bytes) -> None:
    packet = scapy.IPv6(src=source[0], dst=to[0]) / scapy.UDP(sport=source[1], dport=to[1]) / payload
    assert ipv6_packet(source, to, payload) == bytes(packet)


@given(source=v4, to=v4, payload=payloads)
def test_a_packet_of_ipv4_is_read_back(source: tuple[str, int], to: tuple[str, int], payload: bytes) -> None:
    packet = ipv4_packet(source, to, payload)
    assert scapy.IP(packet)[scapy.UDP].dport == to[1]
    assert parse_ipv4(packet) == (source, payload)
    assert parse_ipv4(packet + b"padding") == (source, payload)


@given(st.binary(max_size=80))
def test_garbage_is_refused_or_read_within_its_bounds(data: bytes) -> None:
    if parsed := parse_ipv4(data):
        source, payload = parsed
        assert ipaddress.ip_address(source[0]).version == 4
        assert payload in data
    if found := parse_udp(data):
        assert found[1] in data
