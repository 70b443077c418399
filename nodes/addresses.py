"""Which addresses a new node gets. Pure: entropy and what is taken are arguments.

IPv4 from the shared address space 100.64.0.0/10 (RFC 6598) less 100.115.92.0/23 (ChromeOS uses it inside)
and 100.100.100.100 (MagicDNS); IPv6 from fd7a:115c:a1e0::/48 less fd7a:115c:a1e0::53 (MagicDNS). Both per
tailnet. The IPv6 address carries the IPv4 one in its last 32 bits, so one search finds both.
Source: tailscale net/tsaddr/tsaddr.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

IPV4_POOL = IPv4Network("100.64.0.0/10")
IPV6_POOL = IPv6Network("fd7a:115c:a1e0::/48")
CHROMEOS = IPv4Network("100.115.92.0/23")
MAGIC_DNS_V4 = IPv4Address("100.100.100.100")
MAGIC_DNS_V6 = IPv6Address("fd7a:115c:a1e0::53")
NODES_V6 = IPv6Network("fd7a:115c:a1e0::/96")  # where nodes are; prefixes beside it may be routed (4via6)
MAX_PROBES = 100_000
Span = tuple[int, int]  # the first and the last address of a range, as numbers
WHOLE_POOL: Sequence[Span] = ((int(IPV4_POOL[0]), int(IPV4_POOL[-1])),)


class PoolExhausted(Exception):
    """No free address was found; the tailnet holds as many nodes as it can."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """One node's two addresses."""

    ipv4: IPv4Address
    ipv6: IPv6Address


def is_assignable(address: IPv4Address) -> bool:
    """Whether a node may have this IPv4 address."""
    return (
        address in IPV4_POOL
        and address not in CHROMEOS
        and address not in (MAGIC_DNS_V4, IPV4_POOL.network_address, IPV4_POOL.broadcast_address)
    )


def is_nodes_own(prefix: str) -> bool:
    """Whether a prefix lies within the addresses of nodes and MagicDNS: its router would pose as them."""
    network = ip_network(prefix)
    if isinstance(network, IPv4Network):
        return network.subnet_of(IPV4_POOL)
    return network.subnet_of(NODES_V6)


def ipv6_for(ipv4: IPv4Address) -> IPv6Address:
    """The IPv6 address that goes with an IPv4 one."""
    return IPv6Address(int(IPV6_POOL.network_address) | int(ipv4))


def candidates(seed: int, spans: Sequence[Span] = WHOLE_POOL) -> Iterator[Addresses]:
    """Every assignable pair of these ranges once, from where ``seed`` says, in order, around their end.

    A random start keeps a deleted node's address from being given to the next one, while others may still
    have it in a cache.
    """
    size = sum(last - first + 1 for first, last in spans)
    start = seed % size if size else 0
    for first, last in (*_from(start, spans), *_until(start, spans)):
        for number in range(first, last + 1):
            if is_assignable(ipv4 := IPv4Address(number)):
                yield Addresses(ipv4, ipv6_for(ipv4))


def _from(start: int, spans: Sequence[Span]) -> Iterator[Span]:
    """The ranges without their first ``start`` addresses."""
    for first, last in spans:
        size = last - first + 1
        if start < size:
            yield first + start, last
        start = max(0, start - size)


def _until(end: int, spans: Sequence[Span]) -> Iterator[Span]:
    """The first ``end`` addresses of the ranges."""
    for first, last in spans:
        size = min(end, last - first + 1)
        if size:
            yield first, first + size - 1
        end -= size


def allocate(
    is_taken: Callable[[Addresses], bool], *, seed: int, spans: Sequence[Span] = WHOLE_POOL
) -> Addresses:
    """The first candidate that is not taken; raises :class:`PoolExhausted` after :data:`MAX_PROBES`."""
    for probe, candidate in enumerate(candidates(seed, spans)):
        if probe >= MAX_PROBES:
            break
        if not is_taken(candidate):
            return candidate
    raise PoolExhausted("no free address was found")
