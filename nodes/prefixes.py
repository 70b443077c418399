"""Prefixes as intervals: their natural order, and which of them overlap. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, ip_network
from itertools import takewhile

MAX_SHOWN = 3  # overlaps that are named; more are counted by nobody
KNOWN = 16384  # prefixes whose parsed form is kept

Key = tuple[int, int, int]


@lru_cache(maxsize=KNOWN)
def key(prefix: str) -> Key:
    """``(IP version, first address, length)``: sorts networks by family and address, the wider first."""
    network = ip_network(prefix)
    return network.version, int(network.network_address), network.prefixlen


@dataclass(frozen=True, slots=True)
class Overlaps:
    """``inside``: wider prefixes around one, the narrowest first; ``around``: narrower ones in it."""

    inside: list[str]
    around: list[str]

    def __bool__(self) -> bool:
        return bool(self.inside or self.around)


def near(prefix: str) -> tuple[list[str], str]:
    """Where a database finds what overlaps a prefix: it and the wider ones by name, how the narrower begin.

    Prefixes are kept as :mod:`ipaddress` writes them, so the narrower begin with its whole bytes (IPv4) or
    with its groups (IPv6) up to the first that is zero, which may be written shorter. Others may begin so
    too.
    """
    network = ip_network(prefix)
    wider = [str(network.supernet(new_prefix=length)) for length in range(1, network.prefixlen + 1)]
    address = network.network_address
    if isinstance(address, IPv4Address):
        return wider, "".join(f"{byte}." for byte in address.packed[: network.prefixlen // 8])
    groups = (int(group, 16) for group in address.exploded.split(":")[: network.prefixlen // 16])
    return wider, "".join(f"{group:x}:" for group in takewhile(bool, groups))


class Overlapping:
    """Finds what overlaps a prefix among ``prefixes``: of two networks that meet, one holds the other."""

    def __init__(self, prefixes: Collection[str]) -> None:
        self._by_key = {key(prefix): prefix for prefix in prefixes}
        self._sorted = sorted(self._by_key)

    def of(self, prefix: str) -> Overlaps:
        """At most :data:`MAX_SHOWN` in each direction; default routes overlap nothing, being exit nodes."""
        return Overlaps(self._inside(key(prefix)), self._around(key(prefix)))

    def _inside(self, wanted: Key) -> list[str]:
        version, first, length = wanted
        bits = 32 if version == 4 else 128
        found = []
        for wider in range(length - 1, 0, -1):
            start = first >> (bits - wider) << (bits - wider)
            if (version, start, wider) in self._by_key:
                found.append(self._by_key[version, start, wider])
        return found[:MAX_SHOWN]

    def _around(self, wanted: Key) -> list[str]:
        version, first, length = wanted
        if length == 0:
            return []
        end = first + (1 << ((32 if version == 4 else 128) - length))
        at = bisect_right(self._sorted, wanted)
        found: list[str] = []
        while at < len(self._sorted) and len(found) < MAX_SHOWN:
            other = self._sorted[at]
            if other[0] != version or other[1] >= end:
                break
            if other[2] > length:
                found.append(self._by_key[other])
            at += 1
        return found
