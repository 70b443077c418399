"""The packet filter on what comes out of the tunnel: an nftables table of our own, default drop.

It stands before the interface comes up and is replaced in one transaction whenever the netmap's rules change.
What leaves through the tunnel is not filtered. Semantics: tailscale wgengine/filter:

* TCP and UDP are judged by the rules' ports, and replies to own flows pass. Where the rules let all of both
  in anyway, connections are not tracked: the kernel would do so for every packet of this host, at about a
  seventh of WireGuard's throughput,
* ICMP errors and echo replies always pass, other ICMP when any rule joins source and destination,
* other protocols need a rule for their number and all ports; where nothing is tracked, of SCTP only what
  begins an association does,
* IP protocol 99 (what some clients send each other inside the tunnel) is dropped without a word.

Everything that is rendered here has been parsed to numbers first: no text of a server reaches nft.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from client.net.forwarding import NO_GATEWAY, Gateway
from client.net.nft import (
    ACCEPT,
    DROP,
    Expression,
    Load,
    address_set,
    key_of,
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
    TCP,
    UDP,
    WITH_PORTS,
    Rule,
    by_capability,
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

Door = tuple[IPAddress, int]  # one of this node's own addresses, and a TCP port of it


# --- rendering -------------------------------------------------------------------------------------------


def ruleset(
    interface: str,
    own: Sequence[IPAddress],
    rules: Sequence[Rule],
    doors: Iterable[Door] = (),
    gateway: Gateway = NO_GATEWAY,
) -> dict[str, Any]:
    """libnftables JSON that replaces the table in one transaction; ``doors`` are open to every peer."""
    tunnel, wide = match(meta("iifname"), interface), is_wide_open(own, rules)
    body: list[Expression] = [
        {"add": {"table": TABLE}},
        {"delete": {"table": TABLE}},
        {"add": {"table": TABLE}},
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
        *([] if wide else [_rule("from_tunnel", _answers(), ACCEPT)]),
        *[rendered for rule in rules for rendered in _render(rule)],
        _rule("from_tunnel", match(payload("icmp", "type"), {"set": ICMP_ALWAYS}), ACCEPT),
        _rule("from_tunnel", match(payload("icmpv6", "type"), {"set": ICMP6_ALWAYS}), ACCEPT),
        *[
            _rule("from_tunnel", sent_to(address), match(payload("tcp", "dport"), port), ACCEPT)
            for address, port in sorted(doors, key=str)
        ],
        *([_SCTP_ANSWERS] if wide else []),
        _rule("from_tunnel", DROP),
        *_masquerade(interface, gateway),
    ]
    return {"nftables": body}


def is_wide_open(own: Iterable[IPAddress], rules: Iterable[Rule]) -> bool:
    """Whether all TCP and UDP comes in from everybody anyway."""
    wide = {
        rule.version
        for rule in rules
        if rule.sources is None and rule.destinations is None
        if {TCP, UDP} <= set(rule.protocols) and ALL_PORTS in rule.ports
    }
    return {address.version for address in own} <= wide


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


def _render(rule: Rule) -> list[Expression]:
    """A rule's own protocols and ports (most is of these), and the ICMP that any rule lets through."""
    family = "ip" if rule.version == 4 else "ip6"
    ends = [match(meta("nfproto"), "ipv4" if rule.version == 4 else "ipv6")]
    for side, spans in (("saddr", rule.sources), ("daddr", rule.destinations)):
        if spans is not None:
            ends.append(match(payload(family, side), address_set(spans, rule.version)))
    rendered = []
    with_ports = sorted(WITH_PORTS & set(rule.protocols))
    if with_ports:
        ports = [] if ALL_PORTS in rule.ports else [match(payload("th", "dport"), port_set(rule.ports))]
        rendered.append(_rule("from_tunnel", *ends, protocols(with_ports), *ports, ACCEPT))
    rendered.append(_rule("from_tunnel", *ends, protocols([ICMP if rule.version == 4 else ICMP6]), ACCEPT))
    others = sorted({number for number in rule.protocols if _is_other(number)})
    if others and ALL_PORTS in rule.ports:
        rendered.append(_rule("from_tunnel", *ends, protocols(others), ACCEPT))
    return rendered


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


# --- applying --------------------------------------------------------------------------------------------


class Firewall:
    """The table on this host (in this network namespace), or wherever ``load`` puts it.

    ``doors`` are the ports that every peer may reach whatever the rules say: what listens there asks who
    comes. They are in force from the next :meth:`apply` on, and with shields up, too.
    """

    def __init__(self, interface: str, *, load: Load = run_nft) -> None:
        self.doors: frozenset[Door] = frozenset()
        self._interface = interface
        self._load = load
        self._applied: dict[str, Any] | None = None
        self._basis: object = None  # what the rules were made of: most netmaps change none of it

    async def apply(self, netmap: NetMap, *, shields_up: bool, gateway: Gateway = NO_GATEWAY) -> None:
        """Put the netmap's rules in force; ``shields_up``: none of them. Raises :class:`SetupError`."""
        basis = (netmap.packet_filters, netmap.node.addresses, shields_up, self.doors, gateway)
        if self._applied is not None and basis == self._basis and not by_capability(netmap):
            return
        rules = [] if shields_up else reduce_rules(netmap, gateway)
        wanted = ruleset(self._interface, own_addresses(netmap.node), rules, self.doors, gateway)
        if wanted != self._applied:
            await self._load(wanted)
            self._applied = wanted
        self._basis = basis  # only now: what nft refused is tried again

    async def remove(self) -> None:
        self._applied = None
        await self._load({"nftables": [{"add": {"table": TABLE}}, {"delete": {"table": TABLE}}]})
