"""Relayed packets between WireGuard and the relay: one loopback socket, and so one endpoint, per peer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wire.keys import NodePublic

Address = tuple[str, int]


class Shuttle:
    """``on_outgoing(peer, packets)`` gets what WireGuard sends to a peer's loopback endpoint, in batches."""

    def __init__(
        self, *, wireguard_port: int, mark: int, on_outgoing: Callable[[NodePublic, list[bytes]], None]
    ) -> None:
        raise NotImplementedError

    def add(self, peer: NodePublic) -> Address:
        """The endpoint that means "relay" for this peer; the same one when called again."""
        raise NotImplementedError

    def remove(self, peer: NodePublic) -> None: ...

    def rekey(self, old: NodePublic, new: NodePublic) -> None:
        """The same socket under a peer's new key."""

    def address_of(self, peer: NodePublic) -> Address:
        """Raises :class:`KeyError` for a peer that was not added."""
        raise NotImplementedError

    def inject(self, peer: NodePublic, packets: Sequence[bytes]) -> None:
        """Relay to WireGuard: from the peer's loopback endpoint, or from its direct one (:meth:`set_direct`)."""

    def set_direct(self, peer: NodePublic, endpoint: Address | None) -> None:
        """From now on injected packets bear this source; ``None`` = the loopback endpoint again.

        The order matters: going direct, call this first and set WireGuard's endpoint after it; going back to
        the relay likewise first this with ``None``, then the endpoint.
        """

    def close(self) -> None: ...
