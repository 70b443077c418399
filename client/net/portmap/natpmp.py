"""NAT-PMP (RFC 6886) as bytes: what is asked of a router at UDP port 5351, and what it answers. Pure."""

from __future__ import annotations

import ipaddress
import struct
from dataclasses import dataclass

PORT = 5351
OP_ADDRESS, OP_MAP_UDP = 0, 1
ANSWER = 0x80  # added to the opcode
OK = 0
UNSUPPORTED_VERSION = 1

_ADDRESS = struct.Struct("!BBHI4s")
_MAP_REQUEST = struct.Struct("!BBHHHI")
_MAP = struct.Struct("!BBHIHHI")


@dataclass(frozen=True, slots=True)
class ExternalAddress:
    """The router's own public address, ``None`` when it has none; ``epoch``: seconds since it started."""

    host: str | None
    epoch: int


@dataclass(frozen=True, slots=True)
class Mapped:
    """A mapping as the router keeps it. ``lifetime`` in seconds, 0 = there is none (any more)."""

    result: int
    internal_port: int
    external_port: int
    lifetime: int
    epoch: int


def address_request() -> bytes:
    """RFC 6886 §3.2."""
    return bytes((0, OP_ADDRESS))


def map_request(internal_port: int, external_port: int, lifetime: int) -> bytes:
    """RFC 6886 §3.3; ``external_port`` is a wish. Lifetime and external port 0 end the mapping (§3.4)."""
    return _MAP_REQUEST.pack(0, OP_MAP_UDP, 0, internal_port, external_port, lifetime)


def parse_address(packet: bytes) -> ExternalAddress | None:
    """``None`` for what is no answer to :func:`address_request`."""
    if len(packet) < _ADDRESS.size:
        return None
    version, opcode, result, epoch, raw = _ADDRESS.unpack_from(packet)
    if (version, opcode) != (0, ANSWER | OP_ADDRESS):
        return None
    host = ipaddress.IPv4Address(raw)
    return ExternalAddress(str(host) if result == OK and not host.is_unspecified else None, epoch)


def parse_map(packet: bytes, internal_port: int) -> Mapped | None:
    """``None`` for what is no answer to a :func:`map_request` for this port."""
    if len(packet) < _MAP.size:
        return None
    version, opcode, result, epoch, internal, external, lifetime = _MAP.unpack_from(packet)
    if (version, opcode, internal) != (0, ANSWER | OP_MAP_UDP, internal_port):
        return None
    return Mapped(result, internal, external, lifetime if result == OK else 0, epoch)
