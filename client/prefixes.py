"""A tailnet's own addresses, read from a server's texts: what is none, or lies elsewhere, is left out. Pure.

Everything that comes out of here has been parsed to numbers and written anew.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from functools import lru_cache

from client.errors import PrefsError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

# Source: tailscale net/tsaddr.
TAILNET_RANGES = (ipaddress.ip_network("100.64.0.0/10"), ipaddress.ip_network("fd7a:115c:a1e0::/48"))
UNUSED_RANGES = (ipaddress.ip_network("100.115.92.0/23"),)  # of them: ChromeOS has it for itself
EXIT_ROUTES: tuple[Network, Network] = (ipaddress.ip_network("0.0.0.0/0"), ipaddress.ip_network("::/0"))
MAX_CACHED = 65536  # most texts come again with the next netmap


def tailnet_prefixes(texts: Iterable[str]) -> Iterator[Network]:
    """The prefixes inside the tailnet's ranges, in order.

    Others are a subnet router's or an exit node's: a peer that may send from them could pass for any host.
    """
    found = map(_tailnet_prefix, texts)
    return (network for network in found if network is not None)


def tailnet_addresses(texts: Iterable[str]) -> Iterator[IPAddress]:
    """The single addresses among them (/32 and /128)."""
    return (
        network.network_address
        for network in tailnet_prefixes(texts)
        if network.prefixlen == network.max_prefixlen
    )


def in_tailnet(network: Network) -> bool:
    """Whether a prefix lies inside the ranges that tailnets' own addresses come from."""
    return any(
        network.version == whole.version and network.subnet_of(whole)  # type: ignore[arg-type]
        for whole in TAILNET_RANGES
    )


def advertisable(text: str) -> Network:
    """A prefix that a router may offer; raises :class:`PrefsError` for what could not be routed by it."""
    try:
        loose = ipaddress.ip_network("%" if "%" in text else text, strict=False)  # no scopes
    except ValueError:
        raise PrefsError(
            f"{text[:80]!r} is no prefix: it looks like 192.168.1.0/24 or 2001:db8::/64"
        ) from None
    if str(loose.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise PrefsError(f"{text} has host bits: say {loose}")
    if loose in EXIT_ROUTES:
        return loose
    if loose.is_loopback or loose.is_multicast or loose.is_link_local:
        raise PrefsError(f"{loose} cannot be routed: it means something else on each machine")
    if any(loose.overlaps(whole) for whole in TAILNET_RANGES if whole.version == loose.version):
        raise PrefsError(f"{loose} holds addresses of the tailnet itself: it cannot be advertised")
    return loose


@lru_cache(MAX_CACHED)
def _tailnet_prefix(text: str) -> Network | None:
    """``None`` for what is no prefix either: a server's slip must not cost the other peers."""
    if "%" in text:  # a scope, which Python would keep as it is
        return None
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        return None
    return network if in_tailnet(network) else None
