"""STUN binding requests and answers, as clients and relays of this protocol exchange them.

Source: RFC 8489 (was 5389); tailscale net/stun/stun.go. Requests bear a fixed SOFTWARE attribute and a final
FINGERPRINT; a server answers nothing else.
"""

from __future__ import annotations

import ipaddress
import struct
import zlib
from dataclasses import dataclass

from wire.errors import FrameError

HEADER_BYTES = 20
TXID_BYTES = 12
COOKIE = b"\x21\x12\xa4\x42"
BINDING_REQUEST = b"\x00\x01"
BINDING_SUCCESS = b"\x01\x01"
SOFTWARE = b"tailnode"
ATTR_MAPPED, ATTR_XOR_MAPPED, ATTR_XOR_MAPPED_OLD = 0x0001, 0x0020, 0x8020
ATTR_SOFTWARE, ATTR_FINGERPRINT = 0x8022, 0x8028
FINGERPRINT_XOR = 0x5354554E
REQUEST_BYTES = 40

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class BindingResponse:
    """What a STUN server saw: the transaction it answers, and the sender's public address."""

    txid: bytes
    address: Address


def is_stun(packet: bytes) -> bool:
    """Whether a UDP payload is STUN: long enough, top bits clear, the cookie in place."""
    return len(packet) >= HEADER_BYTES and packet[0] & 0xC0 == 0 and packet[4:8] == COOKIE


def _fingerprint(message: bytes) -> int:
    return zlib.crc32(message) ^ FINGERPRINT_XOR


def binding_request(txid: bytes) -> bytes:
    """A request of 40 bytes; ``txid`` is 12 random bytes."""
    if len(txid) != TXID_BYTES:
        raise FrameError(f"a transaction id has {TXID_BYTES} bytes")
    head = BINDING_REQUEST + struct.pack(">H", REQUEST_BYTES - HEADER_BYTES) + COOKIE + txid
    body = head + struct.pack(">HH", ATTR_SOFTWARE, len(SOFTWARE)) + SOFTWARE
    return body + struct.pack(">HHI", ATTR_FINGERPRINT, 4, _fingerprint(body))


def parse_binding_request(packet: bytes) -> bytes | None:
    """The transaction id of a well-formed request; ``None`` for anything else (it gets silence)."""
    if len(packet) != REQUEST_BYTES or not is_stun(packet) or packet[:2] != BINDING_REQUEST:
        return None
    expected = struct.pack(">HH", ATTR_SOFTWARE, len(SOFTWARE)) + SOFTWARE
    if packet[2:4] != struct.pack(">H", REQUEST_BYTES - HEADER_BYTES) or packet[20:32] != expected:
        return None
    if packet[32:] != struct.pack(">HHI", ATTR_FINGERPRINT, 4, _fingerprint(packet[:32])):
        return None
    return packet[8:20]


def _xor_address(txid: bytes, packed: bytes) -> bytes:
    mask = COOKIE + txid
    return bytes(a ^ b for a, b in zip(packed, mask, strict=False))


def binding_response(txid: bytes, address: Address) -> bytes:
    """The answer: ``address`` (IP text, port) as XOR-MAPPED-ADDRESS."""
    ip = ipaddress.ip_address(address[0])
    if ip.version == 6 and (mapped := ip.ipv4_mapped):
        ip = mapped
    family = 1 if ip.version == 4 else 2
    value = struct.pack(">BBH", 0, family, address[1] ^ 0x2112) + _xor_address(txid, ip.packed)
    attribute = struct.pack(">HH", ATTR_XOR_MAPPED, len(value)) + value
    return BINDING_SUCCESS + struct.pack(">H", len(attribute)) + COOKIE + txid + attribute


def parse_response(packet: bytes) -> BindingResponse:
    """Parse a success response; raises :class:`FrameError`. MAPPED-ADDRESS is only the fallback."""
    if not is_stun(packet) or packet[:2] != BINDING_SUCCESS:
        raise FrameError("not a STUN success response")
    length = struct.unpack_from(">H", packet, 2)[0]
    if len(packet) < HEADER_BYTES + length:
        raise FrameError("STUN attributes are cut off")
    txid, fallback = packet[8:20], None
    at, end = HEADER_BYTES, HEADER_BYTES + length
    while at + 4 <= end:
        kind, size = struct.unpack_from(">HH", packet, at)
        value = packet[at + 4 : at + 4 + size]
        if len(value) < size or at + 4 + size > end:
            raise FrameError("a STUN attribute is cut off")
        if kind in (ATTR_XOR_MAPPED, ATTR_XOR_MAPPED_OLD):
            return BindingResponse(txid, _address(value, txid))
        if kind == ATTR_MAPPED and fallback is None:
            fallback = _address(value, None)
        at += 4 + size + (-size % 4)
    if fallback is None:
        raise FrameError("a STUN response bears no address")
    return BindingResponse(txid, fallback)


def _address(value: bytes, txid: bytes | None) -> Address:
    """An address attribute; ``txid`` when it is XORed."""
    size = {1: 4, 2: 16}.get(value[1] if len(value) > 1 else 0)
    if size is None or len(value) < 4 + size:
        raise FrameError("a STUN address is malformed")
    port = struct.unpack_from(">H", value, 2)[0]
    packed = value[4 : 4 + size]
    if txid is not None:
        port ^= 0x2112
        packed = _xor_address(txid, packed)
    return str(ipaddress.ip_address(packed)), port
