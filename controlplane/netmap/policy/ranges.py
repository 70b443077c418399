"""Sets of IP addresses of both families: immutable, sorted, as they go on the wire. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

V6 = 1 << 128  # IPv6 addresses are counted from here, so that one number line holds both families
LAST_V4 = (1 << 32) - 1
LAST_V6 = V6 + (1 << 128) - 1


@dataclass(frozen=True, slots=True, order=True)
class Prefix:
    """An IP prefix as a range on the number line: its first and last address."""

    first: int
    last: int

    def __str__(self) -> str:
        text = span_text(self.first, self.last)
        return text if "/" in text else f"{text}/{32 if self.first < V6 else 128}"


@lru_cache(maxsize=65536)
def number(text: str) -> int:
    """An address on the number line; ``ValueError`` when it is none."""
    address = ip_address(text)
    return int(address) if address.version == 4 else V6 + int(address)


@lru_cache(maxsize=65536)
def parse_prefix(text: str) -> Prefix:
    """``10.0.0.0/8`` or a plain address; ``ValueError`` when it is neither. Host bits are masked away."""
    if "/" not in text:
        only = number(text)
        return Prefix(only, only)
    net = ip_network(text, strict=False)
    base = 0 if net.version == 4 else V6
    return Prefix(base + int(net.network_address), base + int(net.broadcast_address))


@lru_cache(maxsize=65536)
def address_text(value: int) -> str:
    """An address of the number line as it is written."""
    return str(IPv4Address(value)) if value < V6 else str(IPv6Address(value - V6))


def span_text(first: int, last: int) -> str:
    """A range in the wire's words: an address, a prefix if it is one, else ``first-last``."""
    if first == last:
        return address_text(first)
    size = last - first + 1
    if size & (size - 1) == 0 and first % size == 0:  # V6 is a multiple of every size
        bits = 32 if first < V6 else 128
        return f"{address_text(first)}/{bits - size.bit_length() + 1}"
    return f"{address_text(first)}-{address_text(last)}"


Span = tuple[int, int]


def merged(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sorted, with what overlaps or touches in one; the families stay apart."""
    result: list[Span] = []
    for first, last in sorted(spans):
        if result and first <= result[-1][1] + 1 and (first < V6) == (result[-1][0] < V6):
            if last > result[-1][1]:
                result[-1] = (result[-1][0], last)
        else:
            result.append((first, last))
    return tuple(result)


@dataclass(frozen=True, slots=True)
class IPSet:
    """Addresses as sorted ranges that neither overlap nor touch."""

    spans: tuple[Span, ...] = ()
    _hash: int = field(default=0, init=False, repr=False, compare=False)

    def __hash__(self) -> int:
        if not self._hash:  # sets are keys of caches, and may be long
            object.__setattr__(self, "_hash", hash(self.spans) or 1)
        return self._hash

    @classmethod
    def of(cls, spans: Iterable[Span]) -> IPSet:
        return cls(merged(spans))

    @classmethod
    def of_prefixes(cls, prefixes: Iterable[Prefix]) -> IPSet:
        return cls(merged((prefix.first, prefix.last) for prefix in prefixes))

    def __bool__(self) -> bool:
        return bool(self.spans)

    def __or__(self, other: IPSet) -> IPSet:
        return IPSet(merged(self.spans + other.spans)) if other.spans else self

    def __sub__(self, other: IPSet) -> IPSet:
        result: list[Span] = []
        cuts = other.spans
        at = 0
        for first, last in self.spans:
            start = first
            while at < len(cuts) and cuts[at][1] < start:
                at += 1
            place = at
            while place < len(cuts) and cuts[place][0] <= last:
                if cuts[place][0] > start:
                    result.append((start, cuts[place][0] - 1))
                start = cuts[place][1] + 1
                place += 1
            if start <= last:
                result.append((start, last))
        return IPSet(tuple(result))

    def contains(self, first: int, last: int | None = None) -> bool:
        """Whether an address, or a whole range, is in the set."""
        found = bisect_right(self.spans, (first, LAST_V6)) - 1
        return found >= 0 and self.spans[found][1] >= (first if last is None else last)

    def overlaps(self, first: int, last: int) -> bool:
        """Whether any address of a range is in the set."""
        found = bisect_right(self.spans, (last, LAST_V6)) - 1
        return found >= 0 and self.spans[found][1] >= first

    def meets(self, other: IPSet) -> bool:
        """Whether both have an address in common."""
        return any(other.overlaps(first, last) for first, last in self.spans)

    def texts(self) -> list[str]:
        """The set in the wire's words."""
        if self.spans == EVERYTHING.spans:
            return ["*"]
        return [span_text(first, last) for first, last in self.spans]


EVERYTHING = IPSet(((0, LAST_V4), (V6, LAST_V6)))
NOTHING = IPSet()


def ip_set(*prefixes: str) -> IPSet:
    return IPSet.of_prefixes(parse_prefix(prefix) for prefix in prefixes)


# What nodes of any tailnet have; ChromeOS keeps a part of the shared address space for itself.
NODE_RANGES = ip_set("100.64.0.0/10", "fd7a:115c:a1e0::/48") - ip_set("100.115.92.0/23")
# What exit nodes lead to: public unicast, so nothing private, link-local or of a tailnet.
INTERNET_RANGES = ip_set("0.0.0.0/0", "2000::/3") - ip_set(
    "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16"
)
