"""What of this host's network matters to paths: its addresses, where they are, and the main routes.

Kernels tell of much that does not: renewed lifetimes of IPv6 addresses, wireless statistics, containers that
come and go.
"""

from __future__ import annotations

import ipaddress
import socket

from pyroute2 import AsyncIPRoute

MAIN_TABLE = 254
MAX_ROUTES = 1000  # of a router with more only so many are compared
IFF_LOWER_UP = 0x10000  # linux/if.h: the cable is in, the Wi-Fi joined
IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x08, 0x20, 0x40  # linux/if_addr.h
UNUSABLE = IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE

Fact = tuple[object, ...]
Surface = frozenset[Fact]
Links = dict[int, tuple[str, bool]]  # by index: its name, whether it has a carrier


async def read_surface(*, ignore: str) -> Surface:
    """Two that are equal are the same network; ``ignore`` is the tunnel.

    Raises ``OSError``, ``NetlinkError``.
    """
    async with AsyncIPRoute() as netlink:
        links = {
            link["index"]: (str(link.get_attr("IFLA_IFNAME")), bool(link["flags"] & IFF_LOWER_UP))
            async for link in await netlink.get_links()
        }
        links = {index: link for index, link in links.items() if link[0] != ignore}
        found = await _addresses(netlink, links)
        for family in (socket.AF_INET, socket.AF_INET6):
            found += await _routes(netlink, links, family)
        return frozenset(found)


async def _addresses(netlink: AsyncIPRoute, links: Links) -> list[Fact]:
    found: list[Fact] = []
    async for message in await netlink.get_addr():
        host = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        usable = not (message.get_attr("IFA_FLAGS") or message["flags"]) & UNUSABLE
        if host and usable and message["index"] in links and _matters(str(host)):
            found.append((str(host), *links[message["index"]]))
    return found


async def _routes(netlink: AsyncIPRoute, links: Links, family: int) -> list[Fact]:
    found: list[Fact] = []
    async for route in await netlink.get_routes(family=family):
        name, _ = links.get(route.get_attr("RTA_OIF") or 0, ("", False))
        table = route.get_attr("RTA_TABLE") or route["table"]
        to = str(route.get_attr("RTA_DST") or "")
        if table == MAIN_TABLE and name and len(found) < MAX_ROUTES and (not to or _matters(to)):
            metric = route.get_attr("RTA_PRIORITY") or 0
            found.append(
                (family, to, route["dst_len"], str(route.get_attr("RTA_GATEWAY") or ""), name, metric)
            )
    return found


def _matters(host: str) -> bool:
    """Every container's interface has a link-local address; none is a way to a peer."""
    ip = ipaddress.ip_address(host)
    return not ip.is_loopback and not (ip.version == 6 and (ip.is_link_local or ip.is_multicast))
