"""The netmap's packet filter reduced to this node: which rules concern it, as numbers. Pure.

A rule is about this node's own addresses and, on a router, about the networks that it serves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from client.errors import SetupError
from client.net.forwarding import NO_GATEWAY, Gateway
from client.net.spans import Span, holds, intersect, merge, parse_span, span_of, subtract
from client.prefixes import TAILNET_RANGES, UNUSED_RANGES, IPAddress, tailnet_addresses
from wire.netmap import FilterRule, NetMap, Node, PortRange

ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132
DEFAULT_PROTOCOLS = (TCP, UDP, ICMP, ICMP6)
WITH_PORTS = {TCP, UDP, SCTP}
ALL_PORTS = (0, 65535)
CAPABILITY_SOURCE = "cap:"
MAX_RULES = 5_000  # condensed: what nft does in about 15 s on a small machine
MAX_SPANS = 250_000  # addresses, ranges and ports in all of them
REMEMBERED_LISTS, MAX_REMEMBERED = 512, 5_000  # lists of sources, and how long one may be


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What may come in of one IP version. ``None``: from anybody (``sources``), to all of ours."""

    version: int
    sources: tuple[Span, ...] | None
    protocols: tuple[int, ...]
    ports: tuple[Span, ...]
    destinations: tuple[Span, ...] | None = None


def reduce_rules(netmap: NetMap, gateway: Gateway = NO_GATEWAY) -> list[Rule]:
    """The netmap's rules as they concern this node; malformed entries are skipped."""
    own = own_addresses(netmap.node)
    ours = {
        version: merge(
            [
                *((int(address), int(address)) for address in own if address.version == version),
                *gateway.spans(version),
            ]
        )
        for version in (4, 6)
    }
    reduced = [item for rule in netmap.filter_rules or () for item in _reduce(rule, ours, netmap.peers)]
    return _bounded(condense(reduced))


def _reduce(
    rule: FilterRule, ours: Mapping[int, tuple[Span, ...]], peers: Mapping[int, Node]
) -> Iterator[Rule]:
    opened = {version: _opened(rule.destinations, version, mine) for version, mine in ours.items()}
    if not any(opened.values()):
        return
    sources = _sources(rule.sources, peers)
    for version, places in opened.items():
        if sources is None or sources[version]:
            for destinations, ports in places.items():
                yield Rule(
                    version=version,
                    sources=None if sources is None else sources[version],
                    protocols=rule.protocols or DEFAULT_PROTOCOLS,
                    ports=_ports(ports),
                    destinations=None if destinations == ours[version] else destinations,
                )


def condense(rules: Iterable[Rule]) -> list[Rule]:
    """Fewer rules that let in the same: who may do the same is one rule's, what the same may do, too."""
    by_ends = _joined(
        rules,
        lambda rule: (rule.version, rule.protocols, rule.ports, rule.destinations),
        lambda rule, same: replace(rule, sources=_union(item.sources for item in same)),
    )
    return _joined(
        by_ends,
        lambda rule: (rule.version, rule.protocols, rule.sources, rule.destinations),
        lambda rule, same: replace(rule, ports=_ports([span for item in same for span in item.ports])),
    )


def _ports(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Merged; but only what was meant to be all ports becomes that, as that means other protocols, too."""
    merged = merge(spans)
    if merged != (ALL_PORTS,) or ALL_PORTS in spans:
        return merged
    middle = ALL_PORTS[1] // 2
    return (ALL_PORTS[0], middle), (middle + 1, ALL_PORTS[1])


def _joined(
    rules: Iterable[Rule], key: Callable[[Rule], object], join: Callable[[Rule, list[Rule]], Rule]
) -> list[Rule]:
    groups: dict[object, list[Rule]] = {}
    for rule in rules:
        groups.setdefault(key(rule), []).append(rule)
    return [join(same[0], same) if len(same) > 1 else same[0] for same in groups.values()]


def _union(sources: Iterable[tuple[Span, ...] | None]) -> tuple[Span, ...] | None:
    spans: list[Span] = []
    for item in sources:
        if item is None:
            return None
        spans += item
    return merge(spans)


def _bounded(rules: list[Rule]) -> list[Rule]:
    """Raises :class:`SetupError` for what would keep the kernel busy for minutes."""
    spans = sum(len(rule.sources or ()) + len(rule.ports) + len(rule.destinations or ()) for rule in rules)
    if len(rules) > MAX_RULES or spans > MAX_SPANS:
        raise SetupError(
            f"the server's access rules are too many for this node: {len(rules)} with {spans} ranges, where "
            f"{MAX_RULES} with {MAX_SPANS} are bearable; nobody gets in until the policy says it with fewer"
        )
    return rules


def everybody(netmap: NetMap) -> Mapping[int, tuple[Span, ...]]:
    """Who can send at all, by IP version: peers, and what lies behind those whose routes are used."""
    behind = {text for peer in netmap.peers.values() for text in peer.allowed_ips or () if _leads_on(peer)}
    found = [span for span in map(parse_span, behind) if span is not None]
    return {
        version: subtract(
            [
                *(span_of(whole) for whole in TAILNET_RANGES if whole.version == version),
                *(span for kind, span in found if kind == version),
            ],
            [span_of(hole) for hole in UNUSED_RANGES if hole.version == version],
        )
        for version in (4, 6)
    }


def _leads_on(peer: Node) -> bool:
    return peer.allowed_ips is not None and peer.allowed_ips != peer.addresses


def is_wide_open(
    own: Iterable[IPAddress], rules: Iterable[Rule], senders: Mapping[int, tuple[Span, ...]]
) -> bool:
    """Whether all TCP and UDP of whoever can send (:func:`everybody`) comes in anyway."""
    wide = {
        rule.version
        for rule in rules
        if {TCP, UDP} <= set(rule.protocols) and ALL_PORTS in rule.ports and rule.destinations is None
        if rule.sources is None or not subtract(senders[rule.version], rule.sources)
    }
    return {address.version for address in own} <= wide


def capability_names(netmap: NetMap) -> frozenset[str]:
    """The capabilities that rules name their sources by: what these rules are depends on the peers, too."""
    return frozenset(
        text.removeprefix(CAPABILITY_SOURCE)
        for rule in netmap.filter_rules or ()
        for text in rule.sources
        if text.startswith(CAPABILITY_SOURCE)
    )


def bearers(peers: Mapping[int, Node], names: Iterable[str]) -> Mapping[str, Sequence[str]]:
    """The addresses of those peers that have each capability."""
    return {
        name: [address for peer in peers.values() if name in peer.cap_map for address in peer.addresses]
        for name in names
    }


def own_addresses(node: Node) -> list[IPAddress]:
    return list(tailnet_addresses(node.addresses))


def _opened(
    destinations: Iterable[PortRange], version: int, ours: Sequence[Span]
) -> dict[tuple[Span, ...], list[Span]]:
    """The ports that a rule opens, by what of ours it opens them on."""
    opened: dict[tuple[Span, ...], list[Span]] = {}
    for item in destinations:
        if not 0 <= item.first <= item.last <= ALL_PORTS[1]:
            continue
        if item.ip == "*":
            met = tuple(ours)
        else:
            span = parse_span(item.ip)
            met = merge(intersect(span[1], ours)) if span is not None and span[0] == version else ()
        if met:
            opened.setdefault(met, []).append((item.first, item.last))
    return opened


def _covers(text: str, address: IPAddress) -> bool:
    if text == "*":
        return True
    span = parse_span(text)
    return span is not None and span[0] == address.version and span[1][0] <= int(address) <= span[1][1]


def comes_from(rule: FilterRule, address: IPAddress, peers: Mapping[int, Node]) -> bool:
    """Whether a rule is about what ``address`` sends."""
    spans = _sources(rule.sources, peers)
    return spans is None or holds(spans[address.version], int(address))


def leads_to(rule: FilterRule, address: IPAddress, port: int) -> bool:
    """Whether a rule opens a port of ``address``, for whoever it is about."""
    return any(item.first <= port <= item.last and _covers(item.ip, address) for item in rule.destinations)


def _sources(texts: tuple[str, ...], peers: Mapping[int, Node]) -> Mapping[int, tuple[Span, ...]] | None:
    """Whom they mean, by IP version; ``None``: anybody."""
    if "*" in texts:
        return None
    if not any(text.startswith(CAPABILITY_SOURCE) for text in texts):
        return _spans_of(texts) if len(texts) > MAX_REMEMBERED else _remembered_spans(texts)
    expanded = [
        item
        for text in texts
        for item in (_with_capability(text, peers) if text.startswith(CAPABILITY_SOURCE) else (text,))
    ]
    return _spans_of(expanded)


def _spans_of(texts: Iterable[str]) -> Mapping[int, tuple[Span, ...]]:
    spans: dict[int, list[Span]] = {4: [], 6: []}
    for version, span in filter(None, map(parse_span, texts)):
        spans[version].append(span)
    return {version: merge(found) for version, found in spans.items()}


@lru_cache(REMEMBERED_LISTS)
def _remembered_spans(texts: tuple[str, ...]) -> Mapping[int, tuple[Span, ...]]:
    """Rules are asked about again and again: for each peer, and with each netmap."""
    return _spans_of(texts)


def _with_capability(text: str, peers: Mapping[int, Node]) -> Sequence[str]:
    name = text.removeprefix(CAPABILITY_SOURCE)
    return bearers(peers, [name])[name]
