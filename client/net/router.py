"""The interface's addresses and routes, and its being up: reconciled with the netmap, through netlink.

Routes stand in the main table, on the interface: when that goes, they go.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.errors import SetupError
from client.net.serviceaddresses import AT_ONCE, SERVICE_PREFIXES
from client.prefixes import Network, tailnet_prefixes
from wire.netmap import NetMap

MTU = 1280
RT_TABLE_MAIN = 254
RTPROT_STATIC = 4
OpenNetlink = Callable[[], AbstractAsyncContextManager[Any]]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the interface should have. Addresses are host prefixes (/32, /128)."""

    addresses: frozenset[Network]
    routes: frozenset[Network]


def layout(netmap: NetMap) -> Layout:
    """This node's addresses, and a route to every peer's prefixes inside the tailnet's ranges. Pure."""
    addresses = frozenset(tailnet_prefixes(netmap.node.addresses))
    prefixes = (prefix for peer in netmap.peers.values() for prefix in peer.routed_prefixes)
    return Layout(addresses, frozenset(tailnet_prefixes(prefixes)) - addresses)


def same_layout(before: NetMap, after: NetMap) -> bool:
    """Whether two netmaps ask for the same: far cheaper than making both layouts. Pure."""
    if before.node.addresses != after.node.addresses or before.peers.keys() != after.peers.keys():
        return False
    pairs = ((before.peers[node_id], peer) for node_id, peer in after.peers.items())
    return all(old is new or old.routed_prefixes == new.routed_prefixes for old, new in pairs)


class Router:
    """One interface of this host, or of wherever ``netlink`` leads."""

    def __init__(self, interface: str, *, netlink: OpenNetlink = AsyncIPRoute) -> None:
        self._interface = interface
        self._netlink = netlink

    async def apply(self, wanted: Layout) -> None:
        """Make addresses and routes so, and the link up; what is right already is left alone.

        Raises :class:`SetupError`.
        """
        try:
            async with self._netlink() as netlink:
                index = await self._index(netlink)
                await self._addresses(netlink, index, wanted.addresses)
                await netlink.link("set", index=index, mtu=MTU, state="up")
                await self._routes(netlink, index, wanted.routes)
        except (NetlinkError, OSError) as error:
            raise SetupError(f"cannot set up {self._interface}: {error}") from error

    async def _index(self, netlink: Any) -> int:
        found = await netlink.link_lookup(ifname=self._interface)
        if not found:
            raise SetupError(f"the interface {self._interface} is gone: was it removed by hand?")
        return int(found[0])

    async def _addresses(self, netlink: Any, index: int, wanted: frozenset[Network]) -> None:
        present = set()
        async for item in await netlink.get_addr(index=index):
            network = ipaddress.ip_network((item.get_attr("IFA_ADDRESS"), item["prefixlen"]), strict=False)
            if not network.is_link_local and network not in SERVICE_PREFIXES:
                present.add(network)
        for network in present - wanted:
            await netlink.addr("del", index=index, **_address(network))
        for network in wanted - present:
            await netlink.addr("add", index=index, **_address(network))

    async def _routes(self, netlink: Any, index: int, wanted: frozenset[Network]) -> None:
        present = set()
        for family in (2, 10):
            async for item in await netlink.get_routes(oif=index, family=family, table=RT_TABLE_MAIN):
                destination = item.get_attr("RTA_DST")
                if destination is not None and item["proto"] == RTPROT_STATIC:
                    present.add(ipaddress.ip_network((destination, item["dst_len"])))
        for network in present - wanted:
            await netlink.route("del", dst=str(network), oif=index, table=RT_TABLE_MAIN)
        for network in wanted - present:
            await netlink.route(
                "replace", dst=str(network), oif=index, table=RT_TABLE_MAIN, proto=RTPROT_STATIC
            )


def _address(network: Network) -> dict[str, Any]:
    flags = {"flags": AT_ONCE} if network.version == 6 else {}
    return {"address": str(network.network_address), "prefixlen": network.prefixlen, **flags}
