"""The packet filter on what comes out of the tunnel: an nftables table of our own, default drop.

It stands before the interface comes up, and every change of the netmap's rules is one transaction that leaves
the chains where they are: no packet finds them missing. What another program removes is put back as soon as
the kernel tells of it. What leaves through the tunnel is not filtered. Semantics: tailscale wgengine/filter:

* TCP and UDP are judged by the rules' ports, and replies to own flows pass. Where the rules let all of both
  in anyway, connections are not tracked: the kernel would do so for every packet of this host, at about a
  seventh of WireGuard's throughput,
* connections that run when the rules change go on. Those that nothing tracked until then are taken for what
  they say they are for an hour: of TCP only what begins a connection (SYN) is judged,
* ICMP errors and echo replies always pass, other ICMP when any rule joins source and destination,
* other protocols need a rule for their number and all ports; where nothing is tracked, of SCTP only what
  begins an association does,
* IP protocol 99 (what some clients send each other inside the tunnel) is dropped without a word.

Everything that is rendered here has been parsed to numbers first: no text of a server reaches nft.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from client.errors import SetupError
from client.net.forwarding import NO_GATEWAY, Gateway
from client.net.nft import (
    ACCEPT,
    DROP,
    Expression,
    Load,
    address_set,
    key_of,
    list_nft,
    match,
    meta,
    payload,
    port_set,
    protocols,
    run_nft,
    sent_to,
)
from client.net.rules import (
    ALL_PORTS,
    ICMP,
    ICMP6,
    SCTP,
    WITH_PORTS,
    Rule,
    bearers,
    capability_names,
    condense,
    everybody,
    is_wide_open,
    own_addresses,
    reduce_rules,
)
from client.net.serviceaddresses import SERVICE
from client.net.spans import Span, merge
from client.prefixes import IPAddress
from wire.netmap import NetMap

TABLE = {"family": "inet", "name": "trenza"}
INTERFACE_MESSAGES = 99  # IP protocol of TSMP
ICMP_ALWAYS = ["echo-reply", "destination-unreachable", "time-exceeded", "parameter-problem"]
ICMP6_ALWAYS = [*ICMP_ALWAYS, "packet-too-big"]
SCTP_CHUNK: Expression = {"payload": {"base": "th", "offset": 96, "len": 8}}  # the first one's type
SCTP_INIT = 1  # it begins an association, and stands alone (RFC 9260, §6.10)
NEWCOMERS = "untracked"  # holds the interface while connections run that nothing has tracked yet
NEWCOMER_SECONDS = 3600
REMOVED: list[Expression] = [{"add": {"table": TABLE}}, {"delete": {"table": TABLE}}]

Door = tuple[IPAddress, int]  # one of this node's own addresses, and a TCP port of it


# --- rendering -------------------------------------------------------------------------------------------


def ruleset(
    interface: str,
    own: Sequence[IPAddress],
    rules: Sequence[Rule],
    doors: Iterable[Door] = (),
    gateway: Gateway = NO_GATEWAY,
    *,
    tracks: bool = True,
) -> list[Expression]:
    """The table's chains and rules in libnftables' JSON; ``doors`` are open to every peer."""
    tunnel = match(meta("iifname"), interface)
    return [
        _chain("from_tunnel"),
        _chain("input", hook="input"),
        _chain("forward", hook="forward"),
        _rule("input", tunnel, {"jump": {"target": "from_tunnel"}}),
        *_only_through_the_tunnel((*own, *SERVICE)),
        # From peer to peer there is a tunnel already. What a container here asked for comes back to it.
        _rule("forward", tunnel, match(meta("oifname"), interface), DROP),
        *([_rule("forward", tunnel, _answers(), ACCEPT)] if gateway.forwards else []),
        _rule("forward", tunnel, {"jump": {"target": "from_tunnel"}} if gateway.routes else DROP),
        _rule("from_tunnel", protocols([INTERFACE_MESSAGES]), DROP),
        *_only_to(own, gateway),
        *([_rule("from_tunnel", _answers(), ACCEPT), _GOING_ON] if tracks else []),
        *_sorted_by_protocol(rules),
        _rule("from_tunnel", match(payload("icmp", "type"), {"set": ICMP_ALWAYS}), ACCEPT),
        _rule("from_tunnel", match(payload("icmpv6", "type"), {"set": ICMP6_ALWAYS}), ACCEPT),
        *[
            _rule("from_tunnel", sent_to(address), match(payload("tcp", "dport"), port), ACCEPT)
            for address, port in sorted(doors, key=str)
        ],
        *([] if tracks else [_SCTP_ANSWERS]),
        _rule("from_tunnel", DROP),
        *_masquerade(interface, gateway),
    ]


def whole(table: Sequence[Expression]) -> list[Expression]:
    """What makes the table anew."""
    return [*REMOVED, {"add": {"table": TABLE}}, _NEWCOMERS, *table]


def change(table: Sequence[Expression], before: Sequence[Expression]) -> list[Expression]:
    """What puts other rules into the chains, which never cease to be in force.

    Whoever judges a packet meanwhile does so by the former rules or by the new ones. When the table is gone,
    nft refuses it.
    """
    gone = [item for item in _chains(before) if item not in _chains(table)]
    return [{"flush": {"table": TABLE}}, *({"delete": item["add"]} for item in gone), *table]


def _chains(table: Sequence[Expression]) -> list[Expression]:
    return [item for item in table if "chain" in item["add"]]


def _only_through_the_tunnel(addresses: Iterable[IPAddress]) -> list[Expression]:
    """Nobody beside the tunnel may speak to the tunnel's addresses."""
    rules = []
    for version, family in ((4, "ip"), (6, "ip6")):
        spans = merge((int(one), int(one)) for one in addresses if one.version == version)
        mine = match(payload(family, "daddr"), address_set(spans, version))
        rules.append(_rule("input", mine, match(meta("iifname"), "lo", "!="), DROP))
    return rules


def _answers() -> Expression:
    return match(key_of("ct", "state"), {"set": ["established", "related"]}, "in")


def _sorted_by_protocol(rules: Sequence[Rule]) -> list[Expression]:
    """A chain for each kind of packet, so that one passes by few rules, and each rule needs few sets."""
    kinds: dict[tuple[int, tuple[int, ...]], list[list[Expression]]] = {}
    for rule in rules:
        for numbers, condition in _kinds(rule):
            kinds.setdefault((rule.version, numbers), []).append([*_ends(rule), *condition, ACCEPT])
    for rule in condense(
        replace(rule, protocols=(), ports=()) for rule in rules
    ):  # any rule lets ICMP through
        number = ICMP if rule.version == 4 else ICMP6
        kinds.setdefault((rule.version, (number,)), []).append([*_ends(rule), ACCEPT])
    rendered = []
    for (version, numbers), bodies in kinds.items():
        name = "_".join(map(str, (f"ip{version}", *numbers)))
        family = match(meta("nfproto"), "ipv4" if version == 4 else "ipv6")
        rendered += [
            _chain(name),
            *(_rule(name, *body) for body in bodies),
            _rule("from_tunnel", family, protocols(numbers), {"jump": {"target": name}}),
        ]
    return rendered


def _kinds(rule: Rule) -> Iterator[tuple[tuple[int, ...], list[Expression]]]:
    """The protocols of a rule, and what it asks of their ports."""
    if with_ports := sorted(WITH_PORTS & set(rule.protocols)):
        ports = [] if ALL_PORTS in rule.ports else [match(payload("th", "dport"), port_set(rule.ports))]
        yield tuple(with_ports), ports
    others = sorted({number for number in rule.protocols if _is_other(number)})
    if others and ALL_PORTS in rule.ports:
        yield tuple(others), []


def _ends(rule: Rule) -> list[Expression]:
    family = "ip" if rule.version == 4 else "ip6"
    return [
        match(payload(family, side), address_set(spans, rule.version))
        for side, spans in (("saddr", rule.sources), ("daddr", rule.destinations))
        if spans is not None
    ]


def _is_other(number: int) -> bool:
    return 0 <= number <= 255 and number not in WITH_PORTS | {ICMP, ICMP6, INTERFACE_MESSAGES}


def _only_to(own: Sequence[IPAddress], gateway: Gateway) -> list[Expression]:
    """What comes out of the tunnel is for this node's addresses in it and for the networks it serves."""
    rules = []
    for version, family in ((4, "ip"), (6, "ip6")):
        mine = [int(address) for address in own if address.version == version]
        spans = merge([*((number, number) for number in mine), *gateway.spans(version)])
        condition = [match(payload(family, "daddr"), address_set(spans, version), "!=")] if spans else []
        nfproto = match(meta("nfproto"), "ipv4" if version == 4 else "ipv6")
        rules.append(_rule("from_tunnel", nfproto, *condition, DROP))
    return rules


def _masquerade(interface: str, gateway: Gateway) -> list[Expression]:
    """What goes on from the tunnel bears this host's address, where nobody wants to see the tailnet's."""
    if not gateway.routes:
        return []
    ways = [match(meta("iifname"), interface), match(meta("oifname"), interface, "!=")]
    rules = [_chain("onward", hook="postrouting", kind="nat", prio=100)]
    for version, family in ((4, "ip"), (6, "ip6")):
        plain: Sequence[Span] = gateway.plain_spans(version)
        if plain:
            rules.append(
                _rule("onward", *ways, match(payload(family, "daddr"), address_set(plain, version)), ACCEPT)
            )
    return [*rules, _rule("onward", *ways, {"masquerade": None})]


def _chain(name: str, *, hook: str | None = None, kind: str = "filter", prio: int = -5) -> Expression:
    chain: dict[str, Any] = {"family": "inet", "table": TABLE["name"], "name": name}
    if hook is not None:
        chain |= {"type": kind, "hook": hook, "prio": prio, "policy": "accept"}
    return {"add": {"chain": chain}}


def _rule(chain: str, *expressions: Expression) -> Expression:
    rule = {"family": "inet", "table": TABLE["name"], "chain": chain, "expr": list(expressions)}
    return {"add": {"rule": rule}}


_SCTP_ANSWERS = _rule("from_tunnel", protocols([SCTP]), match(SCTP_CHUNK, SCTP_INIT, "!="), ACCEPT)
_GOING_ON = _rule(
    "from_tunnel",
    match(meta("iifname"), f"@{NEWCOMERS}"),
    match({"&": [payload("tcp", "flags"), {"|": ["syn", "ack"]}]}, "syn", "!="),
    ACCEPT,
)
_OF_NEWCOMERS = {"family": TABLE["family"], "table": TABLE["name"], "name": NEWCOMERS}
_NEWCOMERS: Expression = {"add": {"set": _OF_NEWCOMERS | {"type": "ifname", "flags": ["timeout"]}}}


def _take_in(interface: str) -> list[Expression]:
    """From now on connections are tracked: those that run are taken in."""
    element: Expression = {"elem": {"val": interface, "timeout": NEWCOMER_SECONDS}}
    return [{"flush": {"set": _OF_NEWCOMERS}}, {"add": {"element": _OF_NEWCOMERS | {"elem": [element]}}}]


# --- applying --------------------------------------------------------------------------------------------


async def _is_there() -> bool:
    return any(item.get("table", {}).items() >= TABLE.items() for item in await list_nft("tables"))


class Firewall:
    """The table on this host (in this network namespace), or wherever ``load`` puts it.

    ``doors`` are the ports that every peer may reach whatever the rules say: what listens there asks who
    comes. They are in force from the next :meth:`apply` on, and with shields up, too.
    """

    def __init__(self, interface: str, *, load: Load = run_nft) -> None:
        self.doors: frozenset[Door] = frozenset()
        self._interface = interface
        self._load = load
        self._applied: list[Expression] | None = None
        self._tracks = True
        self._basis: object = None  # what the rules were made of: most netmaps change none of it
        self._named: tuple[object, frozenset[str]] = (None, frozenset())  # the capabilities in a filter
        self._one_by_one = asyncio.Lock()

    async def apply(self, netmap: NetMap, *, shields_up: bool, gateway: Gateway = NO_GATEWAY) -> None:
        """Put the netmap's rules in force; ``shields_up``: none of them. Raises :class:`SetupError`.

        Where these rules cannot be had, nobody begins anything any more: the former ones may let in whom
        the server has shut out.
        """
        senders, able = everybody(netmap), bearers(netmap.peers, self._capabilities(netmap))
        facts = (netmap.packet_filters, netmap.node.addresses, senders, able)
        basis = (*facts, shields_up, self.doors, gateway)
        if self._applied is not None and basis == self._basis:
            return
        self._basis = None
        own = own_addresses(netmap.node)
        async with self._one_by_one:
            try:
                rules = [] if shields_up else reduce_rules(netmap, gateway)
                await self._put(own, rules, gateway, tracks=not is_wide_open(own, rules, senders))
            except SetupError:
                with contextlib.suppress(SetupError):
                    await self._put(own, [], gateway, tracks=True)
                raise
        self._basis = basis  # only now: what nft refused is tried again

    def _capabilities(self, netmap: NetMap) -> frozenset[str]:
        if self._named[0] is not netmap.packet_filters:
            self._named = (netmap.packet_filters, capability_names(netmap))
        return self._named[1]

    async def _put(
        self, own: Sequence[IPAddress], rules: Sequence[Rule], gateway: Gateway, *, tracks: bool
    ) -> None:
        before = self._applied
        wanted = ruleset(self._interface, own, rules, self.doors, gateway, tracks=tracks)
        if wanted == before:
            return
        taken_in = _take_in(self._interface) if before and tracks and not self._tracks else []
        try:
            await self._send(change(wanted, before) if before else whole(wanted), taken_in)
        except SetupError:
            if before is None:
                raise
            await self._send(whole(wanted), taken_in)  # somebody may have removed the table
        self._applied, self._tracks = wanted, tracks

    async def _send(self, *parts: Sequence[Expression]) -> None:
        await self._load({"nftables": [item for part in parts for item in part]})

    async def restore(self) -> bool:
        """Put the table back as it was, if it is gone by no doing of ours; returns whether it was.

        Of this host's own network only. Raises :class:`SetupError`.
        """
        async with self._one_by_one:
            if self._applied is None or await _is_there():
                return False
            await self._send(whole(self._applied))
            return True

    async def remove(self) -> None:
        async with self._one_by_one:
            self._applied = None
            await self._send(REMOVED)
