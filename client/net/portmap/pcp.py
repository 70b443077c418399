"""The Port Control Protocol (RFC 6887) as bytes: ANNOUNCE and MAP for one UDP port over IPv4. Pure."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

VERSION = 2
OP_ANNOUNCE, OP_MAP = 0, 1
ANSWER = 0x80
UDP = 17
NONCE_BYTES = 12
OK = 0

_REQUEST = struct.Struct("!BBHI16s")  # §7.1
_ANSWER = struct.Struct("!BBBBII12s")  # §7.2
_MAP = struct.Struct("!12sB3sHH16s")  # §11.1


@dataclass(frozen=True, slots=True)
class Answer:
    """A PCP answer's head. ``result`` 0 = success; ``epoch``: seconds since the router lost its state."""

    opcode: int
    result: int
    lifetime: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapping as the router keeps it; ``lifetime`` 0 = there is none (any more)."""

    result: int
    host: str | None
    external_port: int
    lifetime: int
    epoch: int


def announce_request(own: str) -> bytes:
    """§14.1: harmless, and answered by every PCP server. ``own``: our IPv4 address towards the router."""
    return _REQUEST.pack(VERSION, OP_ANNOUNCE, 0, 0, _mapped_v4(own))


def map_request(own: str, internal_port: int, external_port: int, lifetime: int, nonce: bytes) -> bytes:
    """§11.1; ``external_port`` is a wish, lifetime 0 ends the mapping. The nonce proves whose it is."""
    head = _REQUEST.pack(VERSION, OP_MAP, 0, lifetime, _mapped_v4(own))
    return head + _MAP.pack(nonce, UDP, bytes(3), internal_port, external_port, _mapped_v4("0.0.0.0"))  # noqa: S104


def parse_answer(packet: bytes) -> Answer | None:
    """``None`` for what no PCP server of our version sent (a NAT-PMP router answers with version 0)."""
    if len(packet) < _ANSWER.size:
        return None
    version, opcode, _, result, lifetime, epoch, _ = _ANSWER.unpack_from(packet)
    if version != VERSION or not opcode & ANSWER:
        return None
    return Answer(opcode & ~ANSWER, result, lifetime, epoch)


def parse_map(packet: bytes, internal_port: int, nonce: bytes) -> Mapped | None:
    """``None`` for what is no answer to a :func:`map_request` of this port and nonce."""
    answer = parse_answer(packet)
    if answer is None or answer.opcode != OP_MAP or len(packet) < _ANSWER.size + _MAP.size:
        return None
    echoed, protocol, _, internal, external, raw = _MAP.unpack_from(packet, _ANSWER.size)
    if (echoed, protocol, internal) != (nonce, UDP, internal_port):
        return None
    lifetime = answer.lifetime if answer.result == OK else 0
    return Mapped(answer.result, _host(raw), external, lifetime, answer.epoch)


def _mapped_v4(host: str) -> bytes:
    return bytes(10) + b"\xff\xff" + ipaddress.IPv4Address(host).packed


def _host(raw: bytes) -> str | None:
    v4 = ipaddress.IPv6Address(raw).ipv4_mapped
    return None if v4 is None or v4.is_unspecified else str(v4)
