"""Who gains and who loses by another policy: the packet filters of two evaluations compared by meaning. Pure.

Filters are compared port by port and node by node, not as texts: a rule that is written otherwise and lets
the same through changes nothing. What nodes get is compared: addresses that are nobody's do not count.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.model import ALL_PORTS
from controlplane.netmap.policy.ranges import IPSet, Span, number, parse_prefix
from controlplane.netmap.snapshot import NodeSnapshot, Standing

MAX_CHANGES = 5000  # of one comparison; more are counted and not told
TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58
BY_DEFAULT = (TCP, UDP, ICMP, ICMPV6)
PINGS = frozenset({ICMP, ICMPV6})  # have no ports, and clients let them in wherever they let anything in

Cell = tuple[int, str]  # a protocol, and where to: "" is the node itself, else a prefix behind it
Spans = dict[Cell, list[tuple[int, int, int]]]  # first port, last port, mask of the nodes that may


@dataclass(frozen=True, slots=True)
class Opening:
    """Ports of a node, or of what it routes to (``beyond``; "" = itself), for one protocol number."""

    protocol: int
    first: int
    last: int
    beyond: str = ""


@dataclass(frozen=True, slots=True)
class Change:
    """What some nodes may do at another that they could not, or may not any more; nodes by their ids."""

    sources: tuple[int, ...]
    target: int
    gained: tuple[Opening, ...] = ()
    lost: tuple[Opening, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """All changes, by target; ``more`` = how many were left out."""

    changes: tuple[Change, ...]
    more: int = 0


class _Places:
    """Whose bit is which, and which nodes a list of sources means."""

    def __init__(self, nodes: Iterable[NodeSnapshot]) -> None:
        active = [node for node in nodes if node.standing is Standing.ACTIVE]
        self.ids = [node.id for node in active]
        self.bits = {node.id: place for place, node in enumerate(active)}
        self._numbers = [(number(node.ipv4), number(node.ipv6)) for node in active]
        self._masks: dict[tuple[str, ...], int] = {}

    def mask(self, sources: list[str]) -> int:
        key = tuple(sources)
        if key not in self._masks:
            addresses = IPSet.of(_span(text) for text in sources)
            self._masks[key] = sum(
                1 << place
                for place, (four, six) in enumerate(self._numbers)
                if addresses.contains(four) or addresses.contains(six)
            )
        return self._masks[key]

    def of(self, mask: int) -> tuple[int, ...]:
        return tuple(node_id for place, node_id in enumerate(self.ids) if mask >> place & 1)


def compare(old: Evaluation, new: Evaluation, nodes: Mapping[int, NodeSnapshot]) -> Comparison:
    """What ``new`` gives and takes in comparison with ``old``, both evaluated for the same ``nodes``."""
    places = _Places(nodes.values())
    found: list[Change] = []
    more = 0
    for target in places.ids:
        before, after = old.filter_of(target), new.filter_of(target)
        if before == after:
            continue
        own = (number(nodes[target].ipv4), number(nodes[target].ipv6))
        for change in _changes(target, _spans(before, own, places), _spans(after, own, places), places):
            if len(found) < MAX_CHANGES:
                found.append(change)
            else:
                more += 1
    return Comparison(tuple(found), more)


def _span(text: str) -> Span:
    """What a source or target of a filter says: ``*``, an address, a prefix or a range."""
    if "-" in text:
        first, last = text.split("-")
        return number(first), number(last)
    prefix = parse_prefix(text)
    return prefix.first, prefix.last


def _is_all(text: str) -> bool:
    return text == "*"


def _spans(rules: list[dict[str, Any]], own: tuple[int, int], places: _Places) -> Spans:
    """What a filter lets through, by protocol and place."""
    found: Spans = defaultdict(list)
    for rule in rules:
        sources = rule.get("SrcIPs") or []
        mask = (1 << len(places.ids)) - 1 if "*" in sources else places.mask(sources)
        if not mask:
            continue
        with_ports = set(rule.get("IPProto") or BY_DEFAULT) - PINGS
        for port in rule.get("DstPorts") or []:
            where = _place(port["IP"], own)
            for protocol in with_ports:
                found[protocol, where].append((port["Ports"]["First"], port["Ports"]["Last"], mask))
            for protocol in PINGS:
                found[protocol, where].append((*ALL_PORTS, mask))
    return found


def _place(text: str, own: tuple[int, int]) -> str:
    """ "" for the node's own addresses, else what lies behind it."""
    if _is_all(text):
        return ""
    first, last = _span(text)
    return "" if any(first <= one <= last for one in own) else text


@dataclass(slots=True)
class _Alike:
    """Sources for which the same changes."""

    mask: int
    gained: tuple[Opening, ...] = ()
    lost: tuple[Opening, ...] = ()


def _changes(target: int, before: Spans, after: Spans, places: _Places) -> Iterator[Change]:
    """Sources for which the same changes are told together."""
    everybody = ((1 << len(places.ids)) - 1) & ~(1 << places.bits[target])
    groups = [_Alike(everybody)]
    for cell in sorted(before.keys() | after.keys()):
        for first, last, old, new in _pieces(before.get(cell, []), after.get(cell, [])):
            one = Opening(cell[0], first, last, cell[1])
            groups = [part for group in groups for part in _split(group, one, new & ~old, old & ~new)]
    for group in groups:
        if group.gained or group.lost:
            yield Change(places.of(group.mask), target, group.gained, group.lost)


def _split(group: _Alike, one: Opening, gains: int, loses: int) -> Iterator[_Alike]:
    """A group by who of it gains an opening, who loses it, and for whom nothing changes."""
    if gain := group.mask & gains:
        yield _Alike(gain, _with(group.gained, one), group.lost)
    if lose := group.mask & loses:
        yield _Alike(lose, group.gained, _with(group.lost, one))
    if rest := group.mask & ~gains & ~loses:
        yield _Alike(rest, group.gained, group.lost)


def _pieces(
    before: list[tuple[int, int, int]], after: list[tuple[int, int, int]]
) -> Iterator[tuple[int, int, int, int]]:
    """The ports cut wherever either side changes, with the masks of both."""
    cuts = sorted({first for first, _, _ in before + after} | {last + 1 for _, last, _ in before + after})
    for first, end in pairwise(cuts):
        old, new = (_mask_at(first, spans) for spans in (before, after))
        if old != new:
            yield first, end - 1, old, new


def _mask_at(port: int, spans: list[tuple[int, int, int]]) -> int:
    mask = 0
    for first, last, who in spans:
        if first <= port <= last:
            mask |= who
    return mask


def _with(openings: tuple[Opening, ...], one: Opening) -> tuple[Opening, ...]:
    """Joined with the one before it where that ends right there."""
    if openings:
        last = openings[-1]
        if (last.protocol, last.beyond, last.last + 1) == (one.protocol, one.beyond, one.first):
            return (*openings[:-1], Opening(one.protocol, last.first, one.last, one.beyond))
    return (*openings, one)
