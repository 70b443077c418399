"""Why a peer stays on the relay, from what its path, our netcheck and its addresses say. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection

from client.magicsock.candidates import PRIVATE, Address, shows_hard_nat
from client.magicsock.netcheck import Report
from wire.paths import Reason

# What a path that has looked in vain may say; the network may know better why it was in vain.
IN_VAIN = frozenset({Reason.LOOKING, Reason.NO_ENDPOINTS, Reason.SILENT})


def explained(reason: Reason | None, report: Report | None, named: Collection[Address]) -> Reason | None:
    """``reason`` made more precise. ``named``: the addresses that the peer gives as its own."""
    if reason not in IN_VAIN or report is None:
        return reason
    if not report.udp:
        return Reason.UDP_BLOCKED_HERE
    if reason is not Reason.SILENT:
        return reason
    here, there = report.is_hard, shows_hard_nat(named)
    if here and there:
        return Reason.HARD_NAT_BOTH
    if here or there:
        return Reason.HARD_NAT_HERE if here else Reason.HARD_NAT_THERE
    return Reason.UDP_BLOCKED_THERE if named and all(map(_is_private, named)) else reason


def _is_private(address: Address) -> bool:
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    return ip.is_link_local or any(ip in network for network in PRIVATE if network.version == ip.version)
