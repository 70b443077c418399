"""The packet filter on what comes out of the tunnel: an nftables table of our own, default drop.

It stands before the interface comes up and is replaced in one transaction whenever the netmap's rules change.
What leaves through the tunnel is not filtered. Semantics: tailscale wgengine/filter:

* replies to own flows pass (conntrack), TCP and UDP are judged by the rules' ports,
* ICMP errors and echo replies always pass, other ICMP when any rule joins source and destination,
* other protocols need a rule for their number and all ports,
* IP protocol 99 (what some clients send each other inside the tunnel) is dropped without a word.

Everything that is rendered here has been parsed to numbers first: no text of a server reaches nft.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from client.errors import SetupError
from client.prefixes import MAX_CACHED, IPAddress, tailnet_addresses
from wire.netmap import FilterRule, NetMap, Node, PortRange

TABLE = {"family": "inet", "name": "trenza"}
INTERFACE_MESSAGES = 99  # IP protocol of TSMP
ICMP, TCP, UDP, ICMP6, SCTP = 1, 6, 17, 58, 132
DEFAULT_PROTOCOLS = (TCP, UDP, ICMP, ICMP6)
WITH_PORTS = {TCP, UDP, SCTP}
ALL_PORTS = (0, 65535)
CAPABILITY_SOURCE = "cap:"
NFT_SECONDS = 30.0
ICMP_ALWAYS = ["echo-reply", "destination-unreachable", "time-exceeded", "parameter-problem"]
ICMP6_ALWAYS = [*ICMP_ALWAYS, "packet-too-big"]

Span = tuple[int, int]  # first and last, as numbers
Door = tuple[IPAddress, int]  # one of this node's own addresses, and a TCP port of it


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule reduced to this node: what may come in of one IP version. ``sources`` ``None`` = anybody."""

    version: int
    sources: tuple[Span, ...] | None
    protocols: tuple[int, ...]
    ports: tuple[Span, ...]


# --- reducing the netmap's rules -------------------------------------------------------------------------


def reduce_rules(netmap: NetMap) -> list[Rule]:
    """The netmap's rules as they concern this node's own addresses; malformed entries are skipped."""
    own = own_addresses(netmap.node)
    reduced: list[Rule] = []
    for rule in netmap.filter_rules or ():
        for version in (4, 6):
            ports = _ports(rule.destinations, [address for address in own if address.version == version])
            sources = _sources(rule.sources, version, netmap.peers)
            if ports and sources != ():
                protocols = rule.protocols or DEFAULT_PROTOCOLS
                reduced.append(Rule(version=version, sources=sources, protocols=protocols, ports=ports))
    return reduced


def by_capability(netmap: NetMap) -> bool:
    """Whether the rules depend on the peers, and not only on the rules' own addresses."""
    rules = netmap.filter_rules or ()
    return any(text.startswith(CAPABILITY_SOURCE) for rule in rules for text in rule.sources)


def own_addresses(node: Node) -> list[IPAddress]:
    return list(tailnet_addresses(node.addresses))


def _ports(destinations: Iterable[PortRange], own: Sequence[IPAddress]) -> tuple[Span, ...]:
    """The ports that a rule opens on this node's addresses."""
    spans = [
        (item.first, item.last)
        for item in destinations
        if 0 <= item.first <= item.last <= ALL_PORTS[1] and any(_covers(item.ip, address) for address in own)
    ]
    return merge(spans)


def _covers(text: str, address: IPAddress) -> bool:
    if text == "*":
        return True
    span = _span(text)
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
        found = (_span(item) for item in expanded)
        spans += [span for item in found if item is not None and item[0] == version for span in [item[1]]]
    return merge(spans)


def _with_capability(text: str, peers: Mapping[int, Node]) -> list[str]:
    name = text.removeprefix(CAPABILITY_SOURCE)
    return [address for peer in peers.values() if name in peer.cap_map for address in peer.addresses]


@lru_cache(MAX_CACHED)
def _span(text: str) -> tuple[int, Span] | None:
    """IP version and (first, last) of an address, a prefix without host bits or ``a-b``; else ``None``."""
    try:
        if "-" in text:
            first, last = (ipaddress.ip_address(part) for part in text.split("-", 1))
            ordered = first.version == last.version and int(first) <= int(last)
            return (first.version, (int(first), int(last))) if ordered else None
        network = ipaddress.ip_network(text)
    except ValueError:
        return None
    return network.version, (int(network.network_address), int(network.broadcast_address))


def merge(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Sorted and disjoint: nftables refuses sets whose members overlap."""
    merged: list[Span] = []
    for first, last in sorted(spans):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


# --- rendering -------------------------------------------------------------------------------------------

Expression = dict[str, Any]
DROP: Expression = {"drop": None}
ACCEPT: Expression = {"accept": None}


def ruleset(
    interface: str, own: Sequence[IPAddress], rules: Sequence[Rule], doors: Iterable[Door] = ()
) -> dict[str, Any]:
    """libnftables JSON that replaces the table in one transaction; ``doors`` are open to every peer."""
    tunnel = _match(_meta("iifname"), interface)
    elsewhere = [_match(_meta("iifname"), {"set": ["lo", interface]}, "!=")]
    body: list[Expression] = [
        {"add": {"table": TABLE}},
        {"delete": {"table": TABLE}},
        {"add": {"table": TABLE}},
        _chain("from_tunnel"),
        _chain("input", hook="input"),
        _chain("forward", hook="forward"),
        # Nobody beside the tunnel may speak to the tunnel's addresses.
        *[_rule("input", *elsewhere, _to(address), DROP) for address in own],
        _rule("input", tunnel, {"jump": {"target": "from_tunnel"}}),
        _rule("forward", tunnel, DROP),  # this node serves no routes
        _rule("from_tunnel", _protocol([INTERFACE_MESSAGES]), DROP),
        *_only_to(own),
        _rule("from_tunnel", _match(_key("ct", "state"), {"set": ["established", "related"]}, "in"), ACCEPT),
        _rule("from_tunnel", _match(_payload("icmp", "type"), {"set": ICMP_ALWAYS}), ACCEPT),
        _rule("from_tunnel", _match(_payload("icmpv6", "type"), {"set": ICMP6_ALWAYS}), ACCEPT),
        *[
            _rule("from_tunnel", _to(address), _match(_payload("tcp", "dport"), port), ACCEPT)
            for address, port in sorted(doors, key=str)
        ],
        *[rendered for rule in rules for rendered in _render(rule)],
        _rule("from_tunnel", DROP),
    ]
    return {"nftables": body}


def _render(rule: Rule) -> list[Expression]:
    """A rule's own protocols and ports, and the ICMP that any rule lets through."""
    source = [_match(_meta("nfproto"), "ipv4" if rule.version == 4 else "ipv6")]
    if rule.sources is not None:
        family = "ip" if rule.version == 4 else "ip6"
        source.append(_match(_payload(family, "saddr"), _addresses(rule.sources, rule.version)))
    rendered = [_rule("from_tunnel", *source, _protocol([ICMP if rule.version == 4 else ICMP6]), ACCEPT)]
    with_ports = sorted(WITH_PORTS & set(rule.protocols))
    if with_ports:
        ports = [] if ALL_PORTS in rule.ports else [_match(_payload("th", "dport"), _ports_set(rule.ports))]
        rendered.append(_rule("from_tunnel", *source, _protocol(with_ports), *ports, ACCEPT))
    others = sorted({number for number in rule.protocols if _is_other(number)})
    if others and ALL_PORTS in rule.ports:
        rendered.append(_rule("from_tunnel", *source, _protocol(others), ACCEPT))
    return rendered


def _is_other(number: int) -> bool:
    return 0 <= number <= 255 and number not in WITH_PORTS | {ICMP, ICMP6, INTERFACE_MESSAGES}


def _only_to(own: Sequence[IPAddress]) -> list[Expression]:
    """What comes out of the tunnel is for this node's tunnel addresses, never for the host's others."""
    rules = []
    for version, family in ((4, "ip"), (6, "ip6")):
        mine = [str(address) for address in own if address.version == version]
        condition = [_match(_payload(family, "daddr"), {"set": mine}, "!=")] if mine else []
        nfproto = _match(_meta("nfproto"), "ipv4" if version == 4 else "ipv6")
        rules.append(_rule("from_tunnel", nfproto, *condition, DROP))
    return rules


def _chain(name: str, *, hook: str | None = None) -> Expression:
    chain: dict[str, Any] = {"family": "inet", "table": TABLE["name"], "name": name}
    if hook is not None:
        chain |= {"type": "filter", "hook": hook, "prio": -5, "policy": "accept"}
    return {"add": {"chain": chain}}


def _rule(chain: str, *expressions: Expression) -> Expression:
    rule = {"family": "inet", "table": TABLE["name"], "chain": chain, "expr": list(expressions)}
    return {"add": {"rule": rule}}


def _match(left: Expression, right: Any, op: str = "==") -> Expression:
    return {"match": {"op": op, "left": left, "right": right}}


def _meta(key: str) -> Expression:
    return {"meta": {"key": key}}


def _key(kind: str, key: str) -> Expression:
    return {kind: {"key": key}}


def _payload(protocol: str, field: str) -> Expression:
    return {"payload": {"protocol": protocol, "field": field}}


def _protocol(numbers: Sequence[int]) -> Expression:
    return _match(_meta("l4proto"), {"set": list(numbers)})


def _to(address: IPAddress) -> Expression:
    return _match(_payload("ip" if address.version == 4 else "ip6", "daddr"), str(address))


def _addresses(spans: Sequence[Span], version: int) -> Expression:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    texts = [(str(kind(first)), str(kind(last))) for first, last in spans]
    return {"set": [first if first == last else {"range": [first, last]} for first, last in texts]}


def _ports_set(spans: Sequence[Span]) -> Expression:
    return {"set": [first if first == last else {"range": [first, last]} for first, last in spans]}


# --- applying --------------------------------------------------------------------------------------------


class Firewall:
    """The table on this host (in this network namespace).

    ``doors`` are the ports that every peer may reach whatever the rules say: what listens there asks who
    comes. They are in force from the next :meth:`apply` on; with shields up there are none.
    """

    def __init__(self, interface: str) -> None:
        self.doors: frozenset[Door] = frozenset()
        self._interface = interface
        self._applied: dict[str, Any] | None = None
        self._basis: object = None  # what the rules were made of: most netmaps change none of it

    async def apply(self, netmap: NetMap, *, shields_up: bool) -> None:
        """Put the netmap's rules in force; ``shields_up`` lets nobody in. Raises :class:`SetupError`."""
        basis = (netmap.packet_filters, netmap.node.addresses, shields_up, self.doors)
        if self._applied is not None and basis == self._basis and not by_capability(netmap):
            return
        rules = [] if shields_up else reduce_rules(netmap)
        doors = frozenset() if shields_up else self.doors
        wanted = ruleset(self._interface, own_addresses(netmap.node), rules, doors)
        if wanted != self._applied:
            await _nft(wanted)
            self._applied = wanted
        self._basis = basis  # only now: what nft refused is tried again

    async def remove(self) -> None:
        self._applied = None
        await _nft({"nftables": [{"add": {"table": TABLE}}, {"delete": {"table": TABLE}}]})


def find_nft() -> str:
    """The path of nft; raises :class:`SetupError`."""
    places = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    found = shutil.which("nft", path=places)
    if found is None:
        raise SetupError("nft is missing, and without it nothing guards the tunnel: install nftables")
    return found


async def _nft(content: Mapping[str, Any]) -> None:
    process = await asyncio.create_subprocess_exec(
        find_nft(),
        "-j",
        "-f",
        "-",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(NFT_SECONDS):
            _, errors = await process.communicate(json.dumps(content).encode())
    except TimeoutError:
        raise SetupError(f"nft did not answer in {NFT_SECONDS:.0f} s; the tunnel stays as it was") from None
    finally:
        if process.returncode is None:  # nor may it act later, when nobody waits for it any more
            process.kill()
            await process.wait()
    if process.returncode != 0:
        words = errors.decode("utf-8", "replace").strip().splitlines()
        raise SetupError(f"nft refuses the tunnel's filter: {words[0][:200] if words else 'without a word'}")
