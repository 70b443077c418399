"""The tunnel's filter: what the netmap's rules come to for this node, and that nft takes them whole."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import SetupError
from client.net.firewall import NEWCOMER_SECONDS, Firewall, ruleset, whole
from client.net.forwarding import Gateway
from client.net.nft import find_nft
from client.net.rules import (
    MAX_RULES,
    Rule,
    comes_from,
    condense,
    everybody,
    is_wide_open,
    leads_to,
    own_addresses,
    reduce_rules,
)
from client.net.spans import merge
from tests.client.fakes import ALLOW_ALL, netmap, node
from tests.client.net.namespace import in_namespace
from wire.netmap import FilterRule, NetMap, PortRange

OWN4 = "100.64.0.1"
ALL = ((0, 65535),)
spans = st.lists(st.tuples(st.integers(0, 300), st.integers(0, 300)).map(lambda pair: tuple(sorted(pair))))


def rules_of(*rules: FilterRule, **members: Any) -> list[Rule]:
    return reduce_rules(netmap(node(2), **members, packet_filters={"base": rules}))


def numbers(first: str, last: str) -> tuple[int, int]:
    import ipaddress

    return int(ipaddress.ip_address(first)), int(ipaddress.ip_address(last))


class TestReducing:
    def test_everything_for_everybody_concerns_both_versions(self) -> None:
        assert [(rule.version, rule.sources, rule.ports) for rule in rules_of(ALLOW_ALL)] == [
            (4, None, ALL),
            (6, None, ALL),
        ]

    def test_no_filter_ever_sent_lets_nobody_in(self) -> None:
        assert reduce_rules(netmap(packet_filters=None)) == []

    def test_destinations_that_are_not_ours_are_left_out(self) -> None:
        rule = FilterRule(
            sources=("*",), destinations=(PortRange(ip="100.64.0.9"), PortRange(ip="10.0.0.0/8"))
        )
        assert rules_of(rule) == []

    @pytest.mark.parametrize("ip", ["*", OWN4, "100.64.0.0/10", "100.64.0.0-100.64.0.5"])
    def test_every_form_of_a_destination_is_understood(self, ip: str) -> None:
        rule = FilterRule(sources=("100.64.0.2",), destinations=(PortRange(ip=ip, first=22, last=22),))
        assert [item.ports for item in rules_of(rule)] == [((22, 22),)]

    def test_sources_are_merged_for_each_version(self) -> None:
        texts = ("100.64.0.0/30", "100.64.0.2", "100.64.0.4-100.64.0.6", "fd7a:115c:a1e0::/120")
        four, six = rules_of(FilterRule(sources=texts, destinations=ALLOW_ALL.destinations))
        assert four.sources == (numbers("100.64.0.0", "100.64.0.6"),)
        assert six.sources == (numbers("fd7a:115c:a1e0::", "fd7a:115c:a1e0::ff"),)

    def test_a_source_by_capability_is_the_peers_that_have_it(self) -> None:
        rule = FilterRule(sources=("cap:printer",), destinations=ALLOW_ALL.destinations)
        with_cap, without = node(2, cap_map={"printer": None}), node(3)
        shown = NetMap(node=node(1), peers={2: with_cap, 3: without}, packet_filters={"base": (rule,)})
        assert reduce_rules(shown)[0].sources == (numbers("100.64.0.2", "100.64.0.2"),)

    @pytest.mark.parametrize(
        "text", ["100.64.0.1/8", "nonsense", "1-2-3", "100.64.0.9-100.64.0.1", "::-1.2.3.4"]
    )
    def test_malformed_sources_open_nothing(self, text: str) -> None:
        assert rules_of(FilterRule(sources=(text,), destinations=ALLOW_ALL.destinations)) == []

    def test_ports_that_are_none_open_nothing(self) -> None:
        wrong = (PortRange(ip="*", first=9, last=3), PortRange(ip="*", first=-1, last=70000))
        assert rules_of(FilterRule(sources=("*",), destinations=wrong)) == []

    def test_ports_that_only_together_are_all_open_no_other_protocol(self) -> None:
        halves = (PortRange(ip="*", first=0, last=999), PortRange(ip="*", first=1000, last=65535))
        in_one = rules_of(FilterRule(sources=("100.64.0.2",), destinations=halves, protocols=(6, 47)))
        in_two = rules_of(
            *[FilterRule(sources=("100.64.0.2",), destinations=(half,), protocols=(6, 47)) for half in halves]
        )
        for (rule,) in (in_one, in_two):
            assert merge(rule.ports) == ALL
            assert ALL[0] not in rule.ports

    def test_a_thousand_rules_for_the_same_become_one(self) -> None:
        rules = [
            FilterRule(
                sources=(f"100.64.{number // 250}.{number % 250}",), destinations=ALLOW_ALL.destinations
            )
            for number in range(1000)
        ]
        (rule,) = rules_of(*rules)
        assert sum(last - first + 1 for first, last in rule.sources or ()) == 1000

    def test_more_than_a_kernel_can_take_is_refused_with_what_to_do(self) -> None:
        rules = [
            FilterRule(
                sources=(str(ip_address(0x64400000 + 2 * number)),),
                destinations=(PortRange(ip="*", first=number + 1, last=number + 1),),
            )
            for number in range(MAX_RULES + 1)
        ]
        with pytest.raises(SetupError, match="policy"):
            rules_of(*rules)


rules_in_words = st.builds(
    Rule,
    version=st.sampled_from((4, 6)),
    sources=st.none() | st.lists(st.sampled_from([(1, 2), (2, 3), (5, 5)]), min_size=1).map(merge),
    protocols=st.sampled_from(((6,), (17, 47))),
    ports=st.sampled_from((ALL, ((1, 9),), ((0, 9),), ((10, 65535),), ((5, 20), (30, 30)))),
    destinations=st.sampled_from((None, ((1, 1),))),
)


@given(st.lists(rules_in_words, max_size=8))
def test_condensed_rules_let_in_the_same(rules: list[Rule]) -> None:
    def lets_in(among: list[Rule], version: int, source: int, protocol: int, port: int) -> set[Any]:
        return {
            rule.destinations
            for rule in among
            if rule.version == version and protocol in rule.protocols
            if rule.sources is None or any(first <= source <= last for first, last in rule.sources)
            if (ALL[0] in rule.ports if protocol == 47 else any(a <= port <= b for a, b in rule.ports))
        }

    fewer = condense(rules)
    assert len(fewer) <= len(rules)
    for version in (4, 6):
        for source in range(7):
            for protocol, port in ((6, 0), (6, 9), (6, 10), (17, 30), (17, 40), (47, 0)):
                same = (version, source, protocol, port)
                assert lets_in(fewer, *same) == lets_in(rules, *same)


@given(spans)
def test_merged_spans_are_disjoint_and_hold_the_same_numbers(pairs: list[tuple[int, int]]) -> None:
    merged = merge(pairs)
    covered = {number for first, last in pairs for number in range(first, last + 1)}
    assert {number for first, last in merged for number in range(first, last + 1)} == covered
    assert all(left[1] + 1 < right[0] for left, right in pairwise(merged))


class TestRendering:
    def rendered(self, *rules: Rule) -> list[dict[str, Any]]:
        own = own_addresses(node(1))
        tracks = not is_wide_open(own, rules, everybody(netmap(node(2))))
        items = ruleset("trenza0", own, rules, tracks=tracks)
        return [item["add"]["rule"] for item in items if "rule" in item.get("add", {})]

    def verdicts(self, chain: str, *rules: Rule) -> list[str]:
        return [next(iter(rule["expr"][-1])) for rule in self.rendered(*rules) if rule["chain"] == chain]

    def test_without_rules_only_answers_come_in(self) -> None:
        rendered = self.rendered()
        accepting = [
            rule for rule in rendered if rule["chain"] == "from_tunnel" and "accept" in rule["expr"][-1]
        ]
        assert [rule["expr"][0]["match"]["left"] for rule in accepting] == [
            {"ct": {"key": "state"}},
            {"meta": {"key": "iifname"}},  # for an hour after connections were tracked by nobody
            {"payload": {"protocol": "icmp", "field": "type"}},
            {"payload": {"protocol": "icmpv6", "field": "type"}},
        ]

    def test_the_last_word_on_the_tunnel_is_drop(self) -> None:
        assert self.verdicts("from_tunnel")[-1] == "drop"
        assert self.verdicts("forward") == ["drop", "drop"]

    def test_where_the_host_forwards_its_containers_get_their_answers(self) -> None:
        items = ruleset("trenza0", own_addresses(node(1)), [], gateway=Gateway(forwards=True))
        rules = [item["add"]["rule"] for item in items if "rule" in item.get("add", {})]
        verdicts = [next(iter(rule["expr"][-1])) for rule in rules if rule["chain"] == "forward"]
        assert verdicts == ["drop", "accept", "drop"]

    def test_connections_are_tracked_only_where_a_rule_keeps_something_out(self) -> None:
        everything = rules_of(ALLOW_ALL)
        only_tcp = [replace(rule, protocols=(6,)) for rule in everything]
        only_low = [replace(rule, ports=((0, 1023),)) for rule in everything]
        for rules, tracked in (
            (everything, False),
            (only_tcp, True),
            (only_low, True),
            (everything[:1], True),
        ):
            assert ('"ct"' in json.dumps(self.rendered(*rules))) == tracked
        from_some = replace(everything[0], sources=((1, 2),))
        assert '"ct"' in json.dumps(self.rendered(from_some, everything[1]))

    def test_who_is_in_the_tailnet_is_everybody_but_for_what_routers_lead_to(self) -> None:
        tailnet = ("100.64.0.0-100.115.91.255", "100.115.94.0-100.127.255.255", "fd7a:115c:a1e0::/48")
        rules = rules_of(FilterRule(sources=tailnet, destinations=ALLOW_ALL.destinations))
        own, router = own_addresses(node(1)), replace(node(2), allowed_ips=("100.64.0.2/32", "10.1.0.0/16"))
        assert is_wide_open(own, rules, everybody(netmap(node(2))))
        assert not is_wide_open(own, rules, everybody(netmap(node(2), router)))
        with_routes = FilterRule(sources=(*tailnet, "10.0.0.0/8"), destinations=ALLOW_ALL.destinations)
        assert is_wide_open(own, rules_of(with_routes), everybody(netmap(router)))
        assert not is_wide_open(own, rules_of(FilterRule(sources=tailnet[:1])), everybody(netmap(router)))

    def test_the_packets_of_protocol_99_go_first(self) -> None:
        first = next(rule for rule in self.rendered() if rule["chain"] == "from_tunnel")
        assert first["expr"][0]["match"]["right"] == {"set": [99]}
        assert first["expr"][-1] == {"drop": None}

    def test_the_table_is_replaced_in_one_transaction(self) -> None:
        verbs = [next(iter(item)) for item in whole([])[:3]]
        assert verbs == ["add", "delete", "add"]

    def test_a_door_is_open_on_its_own_address_and_port_alone(self) -> None:
        own = own_addresses(node(1))
        items = ruleset("trenza0", own, [], [(own[1], 40123)])
        rules = [item["add"]["rule"]["expr"] for item in items if "rule" in item.get("add", {})]
        (opened,) = [expression for expression in rules if "40123" in json.dumps(expression)]
        assert [match["match"]["right"] for match in opened[:-1]] == [str(own[1]), 40123]
        assert opened[-1] == {"accept": None}

    def test_other_protocols_need_all_ports(self) -> None:
        gre = Rule(version=4, sources=None, protocols=(47,), ports=((1, 2),))
        open_gre = Rule(version=4, sources=None, protocols=(47,), ports=ALL)
        assert not [rule for rule in self.rendered(gre) if rule["chain"] == "ip4_47"]
        assert [rule["expr"] for rule in self.rendered(open_gre) if rule["chain"] == "ip4_47"] == [
            [{"accept": None}]
        ]

    def test_nothing_of_a_server_is_rendered_as_text(self) -> None:
        """A hostile netmap can only make numbers, addresses and fixed words."""
        hostile = FilterRule(
            sources=('"; flush ruleset; #', "100.64.0.2"),
            destinations=(PortRange(ip="*"), PortRange(ip="}} add table x")),
            protocols=(6, 99, 300, -1),
        )
        shown = netmap(node(2), packet_filters={"a; b": (hostile,)})
        text = json.dumps(ruleset("trenza0", own_addresses(shown.node), reduce_rules(shown)))
        assert "flush" not in text
        assert "add table x" not in text
        assert "300" not in text


async def test_the_doors_stay_open_with_shields_up() -> None:
    told: list[str] = []

    async def remember(content: Any) -> None:
        told.append(json.dumps(content))

    rule = FilterRule(sources=("*",), destinations=(PortRange(ip="*", first=50321, last=50321),))
    firewall, shown = Firewall("trenza0", load=remember), netmap(node(2), packet_filters={"base": (rule,)})
    firewall.doors = frozenset({(own_addresses(shown.node)[0], 40123)})
    await firewall.apply(shown, shields_up=False)
    await firewall.apply(shown, shields_up=True)
    assert ["40123" in text for text in told] == [True, True]
    assert ["50321" in text for text in told] == [True, False]


async def test_a_peer_that_gains_a_capability_gets_in_and_other_news_change_nothing() -> None:
    told: list[str] = []

    async def remember(content: Any) -> None:
        told.append(json.dumps(content))

    rule = FilterRule(sources=("cap:printer",), destinations=ALLOW_ALL.destinations)
    firewall, filters = Firewall("trenza0", load=remember), {"base": (rule,)}
    for peer in (node(2), node(2, online=True), node(2, cap_map={"printer": None}), node(2)):
        await firewall.apply(netmap(peer, packet_filters=filters), shields_up=False)
    assert ["100.64.0.2" in text for text in told] == [False, True, False]


def test_a_rule_says_whom_and_where_it_is_about() -> None:
    rule = FilterRule(
        sources=("100.64.0.2", "cap:printer"), destinations=(PortRange(ip="0.0.0.0/0", first=53, last=53),)
    )
    peers = {3: node(3, cap_map={"printer": None}), 4: node(4)}
    about = [comes_from(rule, own_addresses(node(number))[0], peers) for number in (2, 3, 4)]
    assert about == [True, True, False]
    internet = ip_address("0.0.0.0")
    assert leads_to(rule, internet, 53)
    assert not leads_to(rule, internet, 80)
    assert not leads_to(rule, ip_address("2000::"), 53)


class TestRefusals:
    """What nft does when it does not do what it is told to."""

    async def refused(self, *refused: int) -> tuple[Firewall, list[str]]:
        """A filter that lets everybody in, and what nft is then given; it refuses some of that by number."""
        given_to_nft: list[str] = []

        async def load(content: Any) -> None:
            given_to_nft.append(json.dumps(content))
            if len(given_to_nft) - 1 in refused:
                raise SetupError("nft did not answer")

        firewall = Firewall("trenza0", load=load)
        await firewall.apply(netmap(node(2)), shields_up=False)
        return firewall, given_to_nft

    async def test_a_change_that_it_refuses_is_made_from_scratch(self) -> None:
        firewall, told = await self.refused(1)
        await firewall.apply(netmap(node(2), packet_filters={"base": ()}), shields_up=False)
        assert len(told) == 3
        assert '"delete": {"table"' not in told[1]
        assert '"delete": {"table"' in told[2]

    async def test_rules_that_it_refuses_close_the_node_and_are_tried_again(self) -> None:
        firewall, told = await self.refused(1, 2)
        ssh = FilterRule(sources=("100.64.0.2",), destinations=(PortRange(ip="*", first=22, last=22),))
        only_ssh = netmap(node(2), packet_filters={"base": (ssh,)})
        with pytest.raises(SetupError):
            await firewall.apply(only_ssh, shields_up=False)
        assert ["100.64.0.2" in text for text in told[1:]] == [True, True, False]
        await firewall.apply(only_ssh, shields_up=False)
        await firewall.apply(only_ssh, shields_up=False)
        assert len(told) == 5
        assert "100.64.0.2" in told[4]

    async def test_rules_that_are_too_many_close_the_node(self) -> None:
        firewall, told = await self.refused()
        many = tuple(
            FilterRule(
                sources=(str(ip_address(0x64400000 + 2 * number)),),
                destinations=(PortRange(ip="*", first=number + 1, last=number + 1),),
            )
            for number in range(MAX_RULES + 1)
        )
        with pytest.raises(SetupError):
            await firewall.apply(netmap(node(2), packet_filters={"base": many}), shields_up=False)
        assert len(told) == 2
        assert '"dport"' not in told[1]


@pytest.mark.root
class TestInTheKernel:
    RULES = (
        ALLOW_ALL,
        FilterRule(
            sources=("100.64.0.0/12", "100.64.0.5", "fd7a:115c:a1e0::2"),
            destinations=(PortRange(ip=OWN4, first=22, last=22), PortRange(ip=OWN4, first=80, last=90)),
            protocols=(6, 47),
        ),
        FilterRule(
            sources=("100.64.0.9-100.64.0.20",), destinations=(PortRange(ip="*"),), protocols=(47, 99)
        ),
    )

    async def test_nft_takes_every_kind_of_rule_and_replaces_them(self) -> None:
        with in_namespace():
            firewall = Firewall("trenza0")
            shown = netmap(node(2), packet_filters={"base": self.RULES})
            await firewall.apply(shown, shields_up=False)
            text = listing()
            assert "@th,96,8 != 0x1 accept" in text
            assert 'iifname "trenza0" jump from_tunnel' in text
            assert "th dport { 22, 80-90 } accept" in text
            await firewall.apply(shown, shields_up=True)
            closed = listing()
            assert "dport" not in closed
            assert closed.count(" accept") == 4 + 2  # answers, and the policies of two chains
            await firewall.remove()
            assert listing() == ""

    async def test_the_kernel_tracks_nothing_where_everything_is_let_in(self) -> None:
        with in_namespace():
            firewall, shown = Firewall("trenza0"), netmap(node(2))
            await firewall.apply(shown, shields_up=False)
            assert tracked_by_a_ping() == 0
            await firewall.apply(shown, shields_up=True)
            assert tracked_by_a_ping() > 0

    async def test_a_change_leaves_the_chains_where_they_are(self) -> None:
        def handles() -> list[str]:
            """Of the chains that packets come to first, and that of the other address."""
            lines = listing("-a").splitlines()
            return [line for line in lines if re.search(r"chain (input|forward|from_tunnel|onward) ", line)]

        with in_namespace():
            firewall, gateway = Firewall("trenza0"), Gateway(frozenset({ip_network("10.1.0.0/16")}))
            await firewall.apply(netmap(node(2)), shields_up=False)
            before = handles()
            await firewall.apply(netmap(node(2), packet_filters={"base": self.RULES[1:]}), shields_up=False)
            assert handles() == before
            await firewall.apply(netmap(node(2)), shields_up=False, gateway=gateway)
            assert [line for line in handles() if line not in before] == [
                line for line in handles() if "chain onward" in line
            ]
            await firewall.apply(netmap(node(2)), shields_up=True)
            assert handles() == before

    async def test_connections_that_nobody_tracked_are_known_for_an_hour(self) -> None:
        known = re.compile(rf'elements = {{ "trenza0" timeout {NEWCOMER_SECONDS // 3600}h')
        with in_namespace():
            firewall = Firewall("trenza0")
            await firewall.apply(netmap(node(2)), shields_up=True)
            assert not known.search(listing())
            await firewall.apply(netmap(node(2)), shields_up=False)
            assert not known.search(listing())
            await firewall.apply(netmap(node(2)), shields_up=True)
            assert known.search(listing())

    async def test_a_table_that_is_gone_is_made_by_the_next_change_or_at_once(self) -> None:
        with in_namespace():
            firewall = Firewall("trenza0")
            await firewall.apply(netmap(node(2)), shields_up=False)
            assert not await firewall.restore()
            flush()
            assert await firewall.restore()
            assert "jump from_tunnel" in listing()
            flush()
            await firewall.apply(netmap(node(2)), shields_up=True)
            assert "jump from_tunnel" in listing()
            await firewall.remove()
            assert not await firewall.restore()
            assert listing() == ""

    async def test_removing_what_is_not_there_is_no_error(self) -> None:
        with in_namespace():
            await Firewall("trenza0").remove()


def listing(*options: str) -> str:
    command = [find_nft(), *options, "list", "ruleset"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def flush() -> None:
    """As a service of the host's does that loads its own rules."""
    subprocess.run([find_nft(), "flush", "ruleset"], check=True)


def tracked_by_a_ping() -> int:
    """How many connections the kernel has in mind, after one of our own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ping", "-c", "1", "-W", "5", "127.0.0.1"], check=True, stdout=subprocess.DEVNULL)
    return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
