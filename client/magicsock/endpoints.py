"""Where this node may be reached: what it tells its peers and the server.

Source: tailscale net/netmon (LocalAddresses), wgengine/magicsock (determineEndpoints).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from pyroute2 import AsyncIPRoute

from client.magicsock.candidates import is_usable
from client.magicsock.netcheck import Report

Address = tuple[str, int]

MAX_ENDPOINTS = 64
# linux/if_addr.h: no address to be reached at (yet, or any more)
IFA_F_DADFAILED, IFA_F_DEPRECATED, IFA_F_TENTATIVE = 0x08, 0x20, 0x40
UNUSABLE_FLAGS = IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE
IFF_UP = 0x1
# The tailnet's own addresses (tailscale net/tsaddr): a path inside a tunnel is none.
TAILNET_V6 = ipaddress.ip_network("fd7a:115c:a1e0::/48")


class EndpointType(IntEnum):
    """How an endpoint became known (MapRequest.EndpointTypes; tailscale tailcfg.EndpointType)."""

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


@dataclass(frozen=True, slots=True)
class LocalAddress:
    """An address of one of this host's interfaces."""

    host: str
    interface: str
    up: bool = True
    usable: bool = True


async def read_local_addresses() -> list[LocalAddress]:
    """Every address of this host (of this network namespace), by netlink. Raises :class:`OSError`."""
    async with AsyncIPRoute() as netlink:
        links = {
            link["index"]: (str(link.get_attr("IFLA_IFNAME")), bool(link["flags"] & IFF_UP))
            async for link in await netlink.get_links()
        }
        found = []
        async for message in await netlink.get_addr():
            name, up = links.get(message["index"], ("", False))
            host = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            flags = message.get_attr("IFA_FLAGS") or message["flags"]
            if host:
                found.append(LocalAddress(str(host), name, up, not flags & UNUSABLE_FLAGS))
        return found


def reachable_hosts(local: Iterable[LocalAddress], *, tunnel: str) -> list[str]:
    """The hosts among ``local`` that a peer may try; the ``tunnel`` interface is left out.

    IPv4 link-local ones are for when there is nothing else, loopback ones for when there is nothing at all.
    """
    regular: list[str] = []
    link_local: list[str] = []
    loopback: list[str] = []
    for item in local:
        ip = ipaddress.ip_address(item.host)
        if item.interface == tunnel or not item.up or not item.usable or ip in TAILNET_V6:
            continue
        if ip.is_loopback:
            loopback.append(item.host)
        elif ip.is_link_local:
            link_local += [item.host] if ip.version == 4 else []
        else:
            regular.append(item.host)
    return regular or link_local or loopback


def own_endpoints(
    hosts: Sequence[str], report: Report | None, *, port: int, static: Sequence[Address] = ()
) -> tuple[Endpoint, ...]:
    """All that peers should try, the farthest-reaching first: forwarded, by STUN, static, local.

    Behind a hard NAT someone may have forwarded our very port: then the public address with it works.
    """
    found: list[Endpoint] = []
    if report is not None:
        if report.mapped is not None and is_usable(report.mapped):
            found.append(Endpoint(report.mapped, EndpointType.PORTMAPPED))
        # A relay on this very host sees us by loopback.
        seen = [address for address in (*report.global_v4, *report.global_v6) if is_usable(address)]
        found += [Endpoint(address, EndpointType.STUN) for address in seen]
        if report.mapping_varies_by_dest_ip and report.global_v4:
            guess = (report.global_v4[0][0], port)
            found.append(Endpoint(guess, EndpointType.STUN_LOCAL_PORT))
    found += [Endpoint(address, EndpointType.EXPLICIT) for address in static]
    if hosts and not (found and all(ipaddress.ip_address(host).is_loopback for host in hosts)):
        found += [Endpoint((host, port), EndpointType.LOCAL) for host in hosts]
    unique = {endpoint.address: endpoint for endpoint in reversed(found)}
    return tuple(sorted(unique.values(), key=found.index))[:MAX_ENDPOINTS]
