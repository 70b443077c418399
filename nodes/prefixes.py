"""Prefixes as intervals: their natural order, and which of them overlap. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network

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
