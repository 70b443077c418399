"""Disco: the sealed packets by which nodes find direct paths to each other.

A packet is magic ‖ sender's disco key ‖ nonce ‖ box(type ‖ version ‖ body). Source: tailscale disco/disco.go.
"""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

from wire.errors import FrameError
from wire.keys import BOX_OVERHEAD, KEY_BYTES, DiscoPublic, NodePublic, SharedKey

MAGIC = b"TS\xf0\x9f\x92\xac"
HEADER_BYTES = len(MAGIC) + KEY_BYTES
MIN_PACKET_BYTES = HEADER_BYTES + BOX_OVERHEAD
TXID_BYTES = 12
ADDRESS_BYTES = 18
MAX_ENDPOINTS = 128
VERSION = 0
TYPE_PING, TYPE_PONG, TYPE_CALL_ME_MAYBE = 1, 2, 3
# The "address" of a packet that came through a relay: this IP, and the region as port.
DERP_MAGIC_IP = "127.3.3.40"

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? ``node_key`` ties the sender's disco key to its node; ``padding`` probes the MTU."""

    txid: bytes
    node_key: NodePublic | None = None
    padding: int = 0


@dataclass(frozen=True, slots=True)
class Pong:
    """I am, and this is the address that your ping came from."""

    txid: bytes
    source: Address


@dataclass(frozen=True, slots=True)
class CallMeMaybe:
    """Sent through a relay: here are my endpoints, ping them all now."""

    endpoints: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """A type that this implementation does not use; to be ignored."""

    type: int


Message = Ping | Pong | CallMeMaybe | Unknown


def is_disco(packet: bytes) -> bool:
    return len(packet) >= MIN_PACKET_BYTES and packet.startswith(MAGIC)


def parse_header(packet: bytes) -> DiscoPublic | None:
    """The sender's disco key, or ``None`` when the packet is not disco."""
    return DiscoPublic(packet[len(MAGIC) : HEADER_BYTES]) if is_disco(packet) else None


def seal(shared: SharedKey, sender: DiscoPublic, nonce: bytes, message: Message) -> bytes:
    """A whole packet; ``nonce`` is 24 random bytes."""
    return MAGIC + sender.raw + shared.seal(nonce, serialize(message))


def open(shared: SharedKey, packet: bytes) -> Message:
    """The message inside a packet; raises ``DecryptError``, :class:`FrameError`."""
    return parse(shared.open(packet[HEADER_BYTES:]))


def _pack_address(address: Address) -> bytes:
    ip = ipaddress.ip_address(address[0])
    packed = b"\0" * 10 + b"\xff\xff" + ip.packed if ip.version == 4 else ip.packed
    return packed + struct.pack(">H", address[1])


def _unpack_address(data: bytes) -> Address:
    ip = ipaddress.IPv6Address(data[:16])
    return str(ip.ipv4_mapped or ip), int.from_bytes(data[16:18], "big")


def serialize(message: Message) -> bytes:
    """A message's plaintext."""
    if isinstance(message, Ping):
        key = message.node_key.raw if message.node_key else b""
        return bytes([TYPE_PING, VERSION]) + message.txid + key + bytes(message.padding)
    if isinstance(message, Pong):
        return bytes([TYPE_PONG, VERSION]) + message.txid + _pack_address(message.source)
    if isinstance(message, CallMeMaybe):
        return bytes([TYPE_CALL_ME_MAYBE, VERSION]) + b"".join(map(_pack_address, message.endpoints))
    raise FrameError(f"disco type {message.type} is not sent")


def parse(plaintext: bytes) -> Message:
    """The inverse of :func:`serialize`, tolerant of trailing bytes; raises :class:`FrameError`."""
    if len(plaintext) < 2:
        raise FrameError("a disco message has a type and a version")
    kind, body = plaintext[0], plaintext[2:]
    if kind == TYPE_PING:
        return _parse_ping(body)
    if kind == TYPE_PONG:
        if len(body) < TXID_BYTES + ADDRESS_BYTES:
            raise FrameError("a pong is cut off")
        return Pong(body[:TXID_BYTES], _unpack_address(body[TXID_BYTES:]))
    if kind == TYPE_CALL_ME_MAYBE:
        count = min(len(body) // ADDRESS_BYTES, MAX_ENDPOINTS)
        return CallMeMaybe(tuple(_unpack_address(body[i * ADDRESS_BYTES :]) for i in range(count)))
    return Unknown(kind)


def _parse_ping(body: bytes) -> Ping:
    if len(body) < TXID_BYTES:
        raise FrameError("a ping is cut off")
    rest = body[TXID_BYTES:]
    if len(rest) < KEY_BYTES:
        return Ping(body[:TXID_BYTES])
    return Ping(body[:TXID_BYTES], NodePublic(rest[:KEY_BYTES]), len(rest) - KEY_BYTES)
