"""The two ways that magicsock's packets take, whatever carries them: the UDP port, the relay's shuttle."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from client.magicsock.rawport import RawPort
from client.magicsock.shuttle import Shuttle
from client.magicsock.udp import Address
from wire.keys import NodePublic


class Port(Protocol):
    """STUN and disco on WireGuard's public port; see :class:`client.magicsock.rawport.RawPort`."""

    def start(self) -> None: ...
    def send(self, packet: bytes, to: Address) -> bool: ...
    def close(self) -> None: ...


class Shuttling(Protocol):
    """Relayed packets to and from WireGuard; see :class:`client.magicsock.shuttle.Shuttle`."""

    def add(self, peer: NodePublic) -> Address: ...
    def remove(self, peer: NodePublic) -> None: ...
    def rekey(self, old: NodePublic, new: NodePublic) -> None: ...
    def address_of(self, peer: NodePublic) -> Address: ...
    def inject(self, peer: NodePublic, packets: Sequence[bytes]) -> None: ...
    def set_direct(self, peer: NodePublic, endpoint: Address | None) -> None: ...
    def close(self) -> None: ...


class MakePorts(Protocol):
    """Makes both for one WireGuard that listens on ``port``."""

    def __call__(
        self,
        port: int,
        *,
        mark: int,
        on_packet: Callable[[bytes, Address], None],
        on_outgoing: Callable[[NodePublic, list[bytes]], None],
    ) -> tuple[Port, Shuttling]: ...


def host_ports(
    port: int,
    *,
    mark: int,
    on_packet: Callable[[bytes, Address], None],
    on_outgoing: Callable[[NodePublic, list[bytes]], None],
) -> tuple[Port, Shuttling]:
    """Beside a WireGuard of this host, by raw sockets and loopback ones."""
    return (
        RawPort(port, mark=mark, on_packet=on_packet),
        Shuttle(wireguard_port=port, mark=mark, on_outgoing=on_outgoing),
    )
