"""What a router serves, whom its filter lets through to there, and the kernel's leave."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path
from typing import Any

import pytest

from client.errors import SetupError
from client.net import forwarding
from client.net.firewall import Firewall, ruleset
from client.net.forwarding import NO_GATEWAY, Gateway, allow_forwarding, dropping_chains, gateway_of
from client.net.nft import find_nft
from client.net.rules import own_addresses, reduce_rules
from client.prefixes import EXIT_ROUTES
from tests.client.fakes import ALLOW_ALL, netmap, node
from tests.client.net.namespace import in_namespace
from wire.netmap import FilterRule, NetMap, PortRange

SUBNETS = ("10.9.0.0/16", "2001:db8:9::/48")
EXITS = tuple(map(str, EXIT_ROUTES))


def approved(*routes: str) -> NetMap:
    """A netmap in which this node's routes are approved, and its peer may do everything."""
    own = node(1)
    return netmap(node(2), own=node(1, allowed_ips=(*own.addresses, *routes)))


def gateway(*routes: str, masquerade: bool = True, attached: tuple[str, ...] = ()) -> Gateway:
    return gateway_of(
        approved(*routes).node,
        routes,
        masquerade=masquerade,
        attached=[ipaddress.ip_network(text) for text in attached],
    )


def serves(some: Gateway, text: str) -> bool:
    address = ipaddress.ip_address(text)
    return any(first <= int(address) <= last for first, last in some.spans(address.version))


class TestServing:
    def test_what_is_offered_and_approved_is_served(self) -> None:
        own = approved("10.9.0.0/16").node
        made = gateway_of(own, SUBNETS, masquerade=True, attached=())
        assert serves(made, "10.9.1.1")
        assert not serves(made, "2001:db8:9::1")
        assert gateway_of(own, (), masquerade=True, attached=()) is NO_GATEWAY

    @pytest.mark.parametrize("text", ["203.0.113.9", "8.8.8.8", "2001:4860:4860::8888"])
    def test_an_exit_node_is_a_way_to_the_internet(self, text: str) -> None:
        assert serves(gateway(*EXITS), text)

    @pytest.mark.parametrize(
        "text",
        [
            *("192.168.1.1", "10.1.2.3", "127.0.0.1", "169.254.169.254", "100.64.0.9", "224.0.0.251"),
            *("fd00::1", "fe80::1", "::1", "ff02::fb", "fd7a:115c:a1e0::9", "198.51.100.7"),
        ],
    )
    def test_but_not_into_the_networks_it_stands_in(self, text: str) -> None:
        assert not serves(gateway(*EXITS, attached=("198.51.100.0/24",)), text)

    def test_a_subnet_that_is_offered_too_is_served(self) -> None:
        both = gateway(*EXITS, "192.168.1.0/24", attached=("192.168.1.0/24",))
        assert serves(both, "192.168.1.1")
        assert not serves(both, "192.168.2.1")

    def test_the_internet_never_sees_the_tailnets_addresses(self) -> None:
        plain = gateway(*EXITS, *SUBNETS, masquerade=False)
        assert plain.plain_spans(4) == (
            (int(ipaddress.ip_address("10.9.0.0")), int(ipaddress.ip_address("10.9.255.255"))),
        )
        assert gateway(*EXITS, *SUBNETS).plain_spans(4) == ()


class TestFilter:
    def test_a_rule_opens_what_it_names_of_what_is_served(self) -> None:
        web = FilterRule(
            sources=("100.64.0.2",),
            destinations=(PortRange(ip="10.9.1.0/24", first=80, last=80), PortRange(ip="10.1.0.0/16")),
        )
        shown = netmap(node(2), packet_filters={"base": (web,)})
        (rule,) = reduce_rules(shown, gateway(*SUBNETS))
        assert rule.ports == ((80, 80),)
        assert rule.destinations == (
            (int(ipaddress.ip_address("10.9.1.0")), int(ipaddress.ip_address("10.9.1.255"))),
        )
        assert reduce_rules(shown) == []

    def test_a_rule_for_the_node_itself_opens_no_network(self) -> None:
        ssh = FilterRule(sources=("*",), destinations=(PortRange(ip="100.64.0.1", first=22, last=22),))
        shown = netmap(node(2), packet_filters={"base": (ssh,)})
        own = int(ipaddress.ip_address("100.64.0.1"))
        assert [rule.destinations for rule in reduce_rules(shown, gateway(*SUBNETS))] == [((own, own),)]

    def test_everything_for_everybody_needs_no_list_of_destinations(self) -> None:
        shown = netmap(node(2), packet_filters={"base": (ALLOW_ALL,)})
        assert [rule.destinations for rule in reduce_rules(shown, gateway(*SUBNETS))] == [None, None]


@pytest.mark.root
class TestInTheKernel:
    @pytest.mark.parametrize("masquerade", [True, False])
    async def test_nft_takes_a_routers_table(self, masquerade: bool) -> None:
        with in_namespace():
            made = gateway(*EXITS, *SUBNETS, masquerade=masquerade)
            firewall = Firewall("trenza0")
            await firewall.apply(approved(*EXITS, *SUBNETS), shields_up=False, gateway=made)
            text = listing()
            assert 'iifname "trenza0" oifname != "trenza0" masquerade' in text
            assert ("ip daddr 10.9.0.0-10.9.255.255 accept" in text) is not masquerade
            assert text.count("jump from_tunnel") == 2
            await firewall.apply(approved(), shields_up=False)
            assert "masquerade" not in listing()

    async def test_a_firewall_that_drops_all_is_found_until_it_is_told_of_us(self) -> None:
        with in_namespace():
            await Firewall("trenza0").apply(approved(*EXITS), shields_up=False, gateway=gateway(*EXITS))
            assert await dropping_chains("trenza0") == []
            nft("add table ip filter")
            nft("add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
            assert await dropping_chains("trenza0") == ["ip filter FORWARD"]
            nft("add rule ip filter FORWARD iifname trenza0 accept")
            assert await dropping_chains("trenza0") == []

    def test_forwarding_is_turned_on_and_routers_are_still_heard(self) -> None:
        with in_namespace():
            ip("link", "add", "eth7", "type", "bridge")
            advertisements = Path("/proc/sys/net/ipv6/conf/eth7/accept_ra")
            advertisements.write_text("1")
            allow_forwarding((4, 6))
            assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
            assert Path("/proc/sys/net/ipv6/conf/all/forwarding").read_text().strip() == "1"
            assert advertisements.read_text().strip() == "2"


def test_a_kernel_setting_that_is_out_of_reach_is_named(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(forwarding, "SYSCTL", tmp_path / "net")
    with pytest.raises(SetupError, match=r"sysctl -w net.ipv4.ip_forward=1"):
        allow_forwarding((4,))


def test_the_table_is_rendered_the_same_way_twice() -> None:
    """Sets of networks have no order: two renderings must compare equal all the same."""
    shown = approved(*SUBNETS, *EXITS)
    one, other = (
        ruleset("trenza0", own_addresses(shown.node), reduce_rules(shown, some), (), some)
        for some in (gateway(*SUBNETS, *EXITS), gateway(*EXITS, *reversed(SUBNETS)))
    )
    assert one == other


def listing() -> str:
    return subprocess.run([find_nft(), "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def nft(command: str) -> None:
    subprocess.run([find_nft(), command], check=True)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)
