"""Where this node may be reached: what it tells its peers and the server."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

Address = tuple[str, int]


class EndpointType(IntEnum):
    """How an endpoint became known (MapRequest.EndpointTypes, wire.md §5.1)."""

    UNKNOWN = 0
    LOCAL = 1
    STUN = 2
    PORTMAPPED = 3
    STUN_LOCAL_PORT = 4
    EXPLICIT = 5


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of this node's own addresses."""

    address: Address
    type: EndpointType

    def __str__(self) -> str:
        return format_address(self.address)


def format_address(address: Address) -> str:
    """``ip:port``, or ``[ip]:port`` for IPv6: the form of MapRequest.Endpoints."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
