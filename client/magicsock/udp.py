"""IP and UDP headers, made and taken apart by hand. Sources: RFC 768, RFC 791, RFC 8200 §8.1."""

from __future__ import annotations

import socket
import struct

Address = tuple[str, int]

UDP_HEADER = struct.Struct("!HHHH")
UDP_HEADER_BYTES = UDP_HEADER.size
IPV4_MIN_HEADER_BYTES = 20
IPV6_HEADER_BYTES = 40
HOP_LIMIT = 64
MAX_UDP_PAYLOAD = 65_507


def checksum(data: bytes) -> int:
    """The Internet checksum, never 0 (which UDP reads as "none").

    Summing 16-bit words in one's complement is taking the whole number modulo 65535: one division in C.
    """
    if len(data) % 2:
        data += b"\0"
    return 0xFFFF - int.from_bytes(data, "big") % 0xFFFF


def udp_header(source_port: int, to_port: int, payload: bytes, check: int = 0) -> bytes:
    return UDP_HEADER.pack(source_port, to_port, UDP_HEADER_BYTES + len(payload), check)


def udp4(source: Address, to: Address, payload: bytes) -> bytes:
    """A UDP header with its checksum over the IPv4 pseudo-header, and ``payload``."""
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(to[0])
    bare = udp_header(source[1], to[1], payload) + payload
    pseudo = addresses + struct.pack("!BBH", 0, socket.IPPROTO_UDP, len(bare))
    return udp_header(source[1], to[1], payload, checksum(pseudo + bare)) + payload


def ipv4_packet(source: Address, to: Address, payload: bytes) -> bytes:
    """A whole IPv4 packet without a UDP checksum, for the loopback interface; the kernel fills the IP one."""
    length = IPV4_MIN_HEADER_BYTES + UDP_HEADER_BYTES + len(payload)
    return (
        struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0, HOP_LIMIT, socket.IPPROTO_UDP, 0)
        + socket.inet_aton(source[0])
        + socket.inet_aton(to[0])
        + udp_header(source[1], to[1], payload)
        + payload
    )


def ipv6_packet(source: Address, to: Address, payload: bytes) -> bytes:
    """A whole IPv6 packet; there the UDP checksum is mandatory."""
    addresses = socket.inet_pton(socket.AF_INET6, source[0]) + socket.inet_pton(socket.AF_INET6, to[0])
    bare = udp_header(source[1], to[1], payload) + payload
    pseudo = addresses + struct.pack("!IBBBB", len(bare), 0, 0, 0, socket.IPPROTO_UDP)
    return (
        struct.pack("!IHBB", 6 << 28, len(bare), socket.IPPROTO_UDP, HOP_LIMIT)
        + addresses
        + udp_header(source[1], to[1], payload, checksum(pseudo + bare))
        + payload
    )


def parse_udp(datagram: bytes) -> tuple[int, bytes] | None:
    """Source port and payload of a datagram that begins at its UDP header; ``None`` when it is cut off.

    The checksum is not looked at: the kernel has done it, and virtual links deliver partial ones.
    """
    if len(datagram) < UDP_HEADER_BYTES:
        return None
    source_port, _, length, _ = UDP_HEADER.unpack_from(datagram)
    if not UDP_HEADER_BYTES <= length <= len(datagram):
        return None
    return source_port, datagram[UDP_HEADER_BYTES:length]


def parse_ipv4(packet: bytes) -> tuple[Address, bytes] | None:
    """Source address and payload of a UDP-in-IPv4 packet; ``None`` when it is malformed."""
    if len(packet) < IPV4_MIN_HEADER_BYTES:
        return None
    parsed = parse_udp(packet[4 * (packet[0] & 0xF) :])
    return ((socket.inet_ntoa(packet[12:16]), parsed[0]), parsed[1]) if parsed else None
