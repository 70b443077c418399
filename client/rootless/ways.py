"""Which addresses are reached through the tunnel: in the namespace there is no other way.

It stands where routes and rules stand otherwise (:class:`client.net.traffic.Traffic`); the proxies ask it.
"""

from __future__ import annotations

import errno

from client.net.forwarding import NO_GATEWAY, Gateway
from client.net.router import layout
from client.net.traffic import Traffic
from client.prefixes import TAILNET_RANGES, IPAddress, Network
from client.prefs import Prefs
from client.routing import accepted_subnets
from wire.netmap import NetMap

SERVES_NOTHING = "without root trenzad serves no routes, and is no exit node: run it as root for that"


class Ways(Traffic):
    """With an exit node wanted every address is the tunnel's, also while that is down, and at first."""

    def __init__(self, interface: str) -> None:
        super().__init__(interface)
        self._through: frozenset[Network] = frozenset()
        self._own: frozenset[Network] = frozenset()
        self._lan: tuple[Network, ...] = ()
        self._everything = True  # until it is known that no exit node is wanted
        self._serves = False

    @property
    def troubles(self) -> list[str]:
        return [SERVES_NOTHING] if self._serves else []

    @property
    def hides(self) -> bool:
        """Whether an exit node is wanted: the network around this host should hear of nothing."""
        return self._everything

    def leads_to(self, address: IPAddress) -> bool:
        if address.is_loopback or _holds(self._own, address):
            return False
        if self._everything:
            return not _holds(self._lan, address)
        return _holds(self._through, address)

    def is_own(self, address: IPAddress) -> bool:
        """Whether it is this node's own in the tailnet."""
        return _holds(self._own, address)

    def own(self, version: int) -> str:
        """This node's address of an IP version in the tailnet; raises ``OSError`` where it has none."""
        for network in self._own:
            if network.version == version:
                return str(network.network_address)
        raise OSError(errno.EADDRNOTAVAIL, f"this node has no IPv{version} address in the tailnet")

    def link_changed(self) -> None:
        """Nothing here depends on the host's links but the networks around it, read with each netmap."""

    async def gateway(self, netmap: NetMap, prefs: Prefs) -> Gateway:
        self._serves = bool(prefs.advertise_routes)
        return NO_GATEWAY

    async def guard(self, prefs: Prefs) -> None:
        self._everything = prefs.uses_exit_node

    async def follow(self, netmap: NetMap, prefs: Prefs, port: int) -> None:
        self._own = layout(netmap).addresses
        self._through = accepted_subnets(netmap) | frozenset(TAILNET_RANGES)
        self._everything = prefs.uses_exit_node
        self._lan = tuple(await self._attached()) if prefs.exit_node_allow_lan else ()

    async def close(self, prefs: Prefs | None) -> None:
        self._own, self._lan, self._serves = frozenset(), (), False
        self._everything = prefs is not None and prefs.uses_exit_node


def _holds(networks: frozenset[Network] | tuple[Network, ...], address: IPAddress) -> bool:
    return any(address.version == network.version and address in network for network in networks)
