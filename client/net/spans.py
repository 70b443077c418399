"""Addresses as ranges of numbers: parsed, merged, cut to each other. Pure.

What a server writes as text comes out of here as numbers, or not at all.
"""

from __future__ import annotations

import ipaddress
import socket
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import itemgetter

from client.prefixes import MAX_CACHED, Network

Span = tuple[int, int]  # first and last, as numbers


@lru_cache(MAX_CACHED)
def parse_span(text: str) -> tuple[int, Span] | None:
    """IP version and (first, last) of an address, a prefix without host bits or ``a-b``; else ``None``."""
    try:
        if text.count(".") == 3 and text.replace(".", "").isdecimal():  # most are this, by far
            number = int.from_bytes(socket.inet_pton(socket.AF_INET, text))
            return 4, (number, number)
        if "-" in text:
            first, last = (ipaddress.ip_address(part) for part in text.split("-", 1))
            ordered = first.version == last.version and int(first) <= int(last)
            return (first.version, (int(first), int(last))) if ordered else None
        network = ipaddress.ip_network(text)
    except (ValueError, OSError):
        return None
    return network.version, span_of(network)


def span_of(network: Network) -> Span:
    return int(network.network_address), int(network.broadcast_address)


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sorted and disjoint: nftables refuses sets whose members overlap."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def holds(merged: Sequence[Span], number: int) -> bool:
    """Whether one of :func:`merge`'s spans has the number."""
    index = bisect_right(merged, number, key=itemgetter(0))
    return index > 0 and number <= merged[index - 1][1]


def intersect(span: Span, others: Sequence[Span]) -> list[Span]:
    """What ``span`` and each of ``others`` have in common."""
    found = ((max(span[0], first), min(span[1], last)) for first, last in others)
    return [(first, last) for first, last in found if first <= last]


def subtract(spans: Iterable[Span], holes: Iterable[Span]) -> tuple[Span, ...]:
    """``spans`` without ``holes``, sorted and disjoint."""
    left = merge(spans)
    for first, last in merge(holes):
        left = tuple(
            piece
            for start, end in left
            for piece in ((start, min(end, first - 1)), (max(start, last + 1), end))
            if piece[0] <= piece[1]
        )
    return left
