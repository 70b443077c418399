"""The relays that this node talks through, by region."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from wire.derpmap import DERPMap
from wire.keys import NodePrivate, NodePublic


class DerpPool:
    """Connections to relays: the home one always, others on demand. All methods belong to the running loop."""

    def __init__(
        self,
        *,
        node_key: NodePrivate,
        mark: int,
        on_packets: Callable[[int, NodePublic, list[bytes]], None],
        on_gone: Callable[[int, NodePublic, int], None],
        on_change: Callable[[int, bool], None],
    ) -> None:
        raise NotImplementedError

    def set_map(self, derp_map: DERPMap) -> None:
        """Connections to regions that vanished or changed are closed; the home region is dialled anew."""

    def set_home(self, region: int) -> None:
        """The region to stay connected to; 0 = none."""

    def set_node_key(self, key: NodePrivate) -> None:
        """Reconnect everywhere under a new identity."""

    def link_changed(self) -> None:
        """The network changed: try again at once, and find out within seconds which connections are dead."""

    def send(self, region: int, peer: NodePublic, packets: Sequence[bytes]) -> bool:
        """Queue packets, connecting on demand. ``False`` when some had to be dropped or there is no such region."""
        raise NotImplementedError

    def connected(self, region: int) -> bool:
        raise NotImplementedError

    async def close(self) -> None: ...
