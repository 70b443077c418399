"""STUN and disco on the UDP port that WireGuard owns, through raw sockets with a BPF filter."""

from __future__ import annotations

from collections.abc import Callable

Address = tuple[str, int]


class RawPort:
    """Sends from, and listens beside, WireGuard's ``port``. ``on_packet(payload, from)`` gets STUN answers and
    disco only; everything else stays in the kernel."""

    def __init__(self, port: int, *, mark: int, on_packet: Callable[[bytes, Address], None]) -> None:
        raise NotImplementedError

    def start(self) -> None:
        """Open the sockets on the running loop; raises ``SetupError`` without CAP_NET_RAW."""

    def send(self, packet: bytes, to: Address) -> bool:
        """One datagram; ``False`` when the host has no way there (now)."""
        raise NotImplementedError

    def close(self) -> None: ...
