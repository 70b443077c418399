"""The netmap's packet filter reduced to this node: which rules concern it, as numbers. Pure.

A rule is about this node's own addresses and, on a router, about the networks that it serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from client.net.forwarding import NO_GATEWAY, Gateway
from client.net.spans import Span, intersect, merge, parse_span
from client.prefixes import IPAddress, tailnet_addresses
from wire.netmap import FilterRule, NetMap, Node, PortRange

ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132
DEFAULT_PROTOCOLS = (TCP, UDP, ICMP, ICMP6)
WITH_PORTS = {TCP, UDP, SCTP}
ALL_PORTS = (0, 65535)
CAPABILITY_SOURCE = "cap:"


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
    reduced: list[Rule] = []
    for version in (4, 6):
        ours = merge(
            [
                *((int(address), int(address)) for address in own if address.version == version),
                *gateway.spans(version),
            ]
        )
        for rule in netmap.filter_rules or ():
            sources = _sources(rule.sources, version, netmap.peers)
            if sources == ():
                continue
            for destinations, ports in _opened(rule.destinations, version, ours).items():
                reduced.append(
                    Rule(
                        version=version,
                        sources=sources,
                        protocols=rule.protocols or DEFAULT_PROTOCOLS,
                        ports=merge(ports),
                        destinations=None if destinations == ours else destinations,
                    )
                )
    return reduced


def by_capability(netmap: NetMap) -> bool:
    """Whether the rules depend on the peers, and not only on the rules' own addresses."""
    rules = netmap.filter_rules or ()
    return any(text.startswith(CAPABILITY_SOURCE) for rule in rules for text in rule.sources)


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
    spans = _sources(rule.sources, address.version, peers)
    return spans is None or any(first <= int(address) <= last for first, last in spans)


def leads_to(rule: FilterRule, address: IPAddress, port: int) -> bool:
    """Whether a rule opens a port of ``address``, for whoever it is about."""
    return any(item.first <= port <= item.last and _covers(item.ip, address) for item in rule.destinations)


def _sources(texts: Sequence[str], version: int, peers: Mapping[int, Node]) -> tuple[Span, ...] | None:
    if "*" in texts:
        return None
    spans: list[Span] = []
    for text in texts:
        expanded = _with_capability(text, peers) if text.startswith(CAPABILITY_SOURCE) else [text]
        found = (parse_span(item) for item in expanded)
        spans += [span for item in found if item is not None and item[0] == version for span in [item[1]]]
    return merge(spans)


def _with_capability(text: str, peers: Mapping[int, Node]) -> list[str]:
    name = text.removeprefix(CAPABILITY_SOURCE)
    return [address for peer in peers.values() if name in peer.cap_map for address in peer.addresses]
