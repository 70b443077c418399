"""The addresses that every node answers DNS on, put on the tunnel's interface so that they end with it.

Neither may become the source of what this host sends: the IPv4 one has host scope, the IPv6 one is
deprecated. Source of the addresses: tailscale net/tsaddr.
"""

from __future__ import annotations

import ipaddress
from typing import Any

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.errors import SetupError
from client.prefixes import Network

SERVICE4 = "100.100.100.100"
SERVICE6 = "fd7a:115c:a1e0::53"
SERVICE_ADDRESSES = (SERVICE4, SERVICE6)
SERVICE = tuple(map(ipaddress.ip_address, SERVICE_ADDRESSES))
SERVICE_PREFIXES: frozenset[Network] = frozenset(map(ipaddress.ip_network, SERVICE_ADDRESSES))
HOST_SCOPE = 254
FOREVER = 2**32 - 1
# IFA_F_NODAD (linux/if_addr.h). A new IPv6 address cannot be bound until the kernel has seen to it that it is
# nobody else's; a tunnel has no neighbours to ask, yet without this even that is done a moment later.
AT_ONCE = 0x02


async def put_service_addresses(interface: str) -> tuple[str, ...]:
    """Give the interface those that it lacks; returns what it has. Raises :class:`SetupError`.

    A host without IPv6 has the other one.
    """
    try:
        async with AsyncIPRoute() as netlink:
            found = await netlink.link_lookup(ifname=interface)
            if not found:
                raise SetupError(f"the interface {interface} is gone: was it removed by hand?")
            present = [item.get_attr("IFA_ADDRESS") async for item in await netlink.get_addr(index=found[0])]
            if SERVICE4 not in present:
                await netlink.addr("add", index=found[0], address=SERVICE4, prefixlen=32, scope=HOST_SCOPE)
            if SERVICE6 not in present and not await _add6(netlink, found[0]):
                return (SERVICE4,)
    except (NetlinkError, OSError) as error:
        raise SetupError(f"cannot give {interface} the address {SERVICE4} for DNS: {error}") from error
    return SERVICE_ADDRESSES


async def _add6(netlink: Any, index: int) -> bool:
    try:
        await netlink.addr(
            "add",
            index=index,
            address=SERVICE6,
            prefixlen=128,
            preferred=0,
            valid=FOREVER,
            flags=AT_ONCE,
        )
    except NetlinkError:
        return False
    return True
