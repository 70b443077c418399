"""Protocols and ports in the spellings that policies have: ``22``, ``80-443``, ``tcp:*``, ``icmp``. Pure."""

from __future__ import annotations

from functools import lru_cache

from controlplane.netmap.policy.errors import quoted
from controlplane.netmap.policy.model import ALL_PORTS, Service

# The names that a policy may use; numbers 1 to 255 say any other protocol.
PROTOCOLS: dict[str, tuple[int, ...]] = {
    "icmp": (1,),
    "igmp": (2,),
    "ipv4": (4,),
    "ip-in-ip": (4,),
    "tcp": (6,),
    "egp": (8,),
    "igp": (9,),
    "udp": (17,),
    "gre": (47,),
    "esp": (50,),
    "ah": (51,),
    "ipv6-icmp": (58,),
    "icmpv6": (58,),
    "sctp": (132,),
}
WITH_PORTS = frozenset({6, 17, 132})
LAST_PROTOCOL = 255
LAST_PORT = 65535

Ports = tuple[tuple[int, int], ...]


class PortError(ValueError):
    """A spelling that means no ports, with the words for it."""


def _integer(text: str, last: int) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 8 and int(text) <= last else None


def parse_range(text: str) -> tuple[int, int]:
    """``22`` or ``80-443`` or ``*``."""
    if text == "*":
        return ALL_PORTS
    low, dash, high = text.partition("-")
    first = _integer(low, LAST_PORT)
    if first is None:
        raise PortError(f"port range {quoted(text)}: invalid first integer")
    last = _integer(high, LAST_PORT) if dash else first
    if last is None:
        raise PortError(f"port range {quoted(text)}: invalid last integer")
    if first == 0:
        raise PortError(f"port range {quoted(text)}: first port must be >0, or use '*' for wildcard")
    if first > last:
        raise PortError(f"port range {quoted(text)}: first port must be <= last port")
    return first, last


@lru_cache(maxsize=4096)
def parse_ports(text: str) -> Ports:
    """Ranges with commas between them."""
    return tuple(parse_range(part.strip()) for part in text.split(","))


def parse_protocol(text: str) -> tuple[int, ...]:
    """A protocol by name or number; empty for none, which means TCP, UDP and ICMP."""
    if text in ("", "*"):
        return ()
    if (named := PROTOCOLS.get(text.lower())) is not None:
        return named
    number = _integer(text, LAST_PROTOCOL)
    if not number:
        raise PortError(f"unknown protocol {quoted(text)}")
    return (number,)


def check_ports_fit(protocols: tuple[int, ...], ports: Ports) -> None:
    """Only TCP, UDP and SCTP have ports."""
    if protocols and not WITH_PORTS.issuperset(protocols) and ports != (ALL_PORTS,):
        raise PortError("only tcp, udp and sctp have ports: use '*' with other protocols")


@lru_cache(maxsize=4096)
def parse_service(text: str) -> Service:
    """An item of ``ip`` of a grant: ``*``, ports, or a protocol with ports."""
    protocol, colon, ports = text.rpartition(":")
    service = Service(parse_protocol(protocol) if colon else (), parse_ports(ports))
    if colon and not protocol:
        raise PortError(f"unknown protocol {quoted(protocol)}")
    check_ports_fit(service.protocols, service.ports)
    return service
