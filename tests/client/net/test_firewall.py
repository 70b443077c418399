"""The tunnel's filter: what the netmap's rules come to for this node, and that nft takes them whole."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.errors import SetupError
from client.net.firewall import Firewall, ruleset
from client.net.forwarding import Gateway
from client.net.nft import find_nft
from client.net.rules import Rule, comes_from, leads_to, own_addresses, reduce_rules
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


@given(spans)
def test_merged_spans_are_disjoint_and_hold_the_same_numbers(pairs: list[tuple[int, int]]) -> None:
    merged = merge(pairs)
    covered = {number for first, last in pairs for number in range(first, last + 1)}
    assert {number for first, last in merged for number in range(first, last + 1)} == covered
    assert all(left[1] + 1 < right[0] for left, right in pairwise(merged))


class TestRendering:
    def rendered(self, *rules: Rule) -> list[dict[str, Any]]:
        items = ruleset("trenza0", own_addresses(node(1)), rules)["nftables"]
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
            {"payload": {"protocol": "icmp", "field": "type"}},
            {"payload": {"protocol": "icmpv6", "field": "type"}},
        ]

    def test_the_last_word_on_the_tunnel_is_drop(self) -> None:
        assert self.verdicts("from_tunnel")[-1] == "drop"
        assert self.verdicts("forward") == ["drop", "drop"]

    def test_where_the_host_forwards_its_containers_get_their_answers(self) -> None:
        items = ruleset("trenza0", own_addresses(node(1)), [], gateway=Gateway(forwards=True))["nftables"]
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

    def test_the_packets_of_protocol_99_go_first(self) -> None:
        first = next(rule for rule in self.rendered() if rule["chain"] == "from_tunnel")
        assert first["expr"][0]["match"]["right"] == {"set": [99]}
        assert first["expr"][-1] == {"drop": None}

    def test_the_table_is_replaced_in_one_transaction(self) -> None:
        verbs = [next(iter(item)) for item in ruleset("trenza0", [], [])["nftables"][:3]]
        assert verbs == ["add", "delete", "add"]

    def test_a_door_is_open_on_its_own_address_and_port_alone(self) -> None:
        own = own_addresses(node(1))
        items = ruleset("trenza0", own, [], [(own[1], 40123)])["nftables"]
        rules = [item["add"]["rule"]["expr"] for item in items if "rule" in item.get("add", {})]
        (opened,) = [expression for expression in rules if "40123" in json.dumps(expression)]
        assert [match["match"]["right"] for match in opened[:-1]] == [str(own[1]), 40123]
        assert opened[-1] == {"accept": None}

    def test_other_protocols_need_all_ports(self) -> None:
        gre = Rule(version=4, sources=None, protocols=(47,), ports=((1, 2),))
        open_gre = Rule(version=4, sources=None, protocols=(47,), ports=ALL)
        before = len(self.rendered(gre))
        assert len(self.rendered(open_gre)) == before + 1

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


async def test_rules_that_nft_refused_are_tried_again() -> None:
    given_to_nft: list[bool] = []

    async def refusing_at_first(content: Any) -> None:
        given_to_nft.append(True)
        if len(given_to_nft) == 2:
            raise SetupError("nft did not answer")

    firewall, closed = (
        Firewall("trenza0", load=refusing_at_first),
        netmap(node(2), packet_filters={"base": ()}),
    )
    await firewall.apply(netmap(node(2)), shields_up=False)
    with pytest.raises(SetupError):
        await firewall.apply(closed, shields_up=False)
    await firewall.apply(closed, shields_up=False)
    await firewall.apply(closed, shields_up=False)
    assert len(given_to_nft) == 3


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
            assert "tcp dport { 22, 80-90 } accept" in text
            await firewall.apply(shown, shields_up=True)
            closed = listing()
            assert "dport" not in closed
            assert closed.count(" accept") == 3 + 2  # answers, and the policies of two chains
            await firewall.remove()
            assert listing() == ""

    async def test_the_kernel_tracks_nothing_where_everything_is_let_in(self) -> None:
        with in_namespace():
            firewall, shown = Firewall("trenza0"), netmap(node(2))
            await firewall.apply(shown, shields_up=False)
            assert tracked_by_a_ping() == 0
            await firewall.apply(shown, shields_up=True)
            assert tracked_by_a_ping() > 0

    async def test_removing_what_is_not_there_is_no_error(self) -> None:
        with in_namespace():
            await Firewall("trenza0").remove()


def listing() -> str:
    done = subprocess.run([find_nft(), "list", "ruleset"], capture_output=True, text=True, check=True)
    return done.stdout


def tracked_by_a_ping() -> int:
    """How many connections the kernel has in mind, after one of our own."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ping", "-c", "1", "-W", "5", "127.0.0.1"], check=True, stdout=subprocess.DEVNULL)
    return int(Path("/proc/sys/net/netfilter/nf_conntrack_count").read_text())
