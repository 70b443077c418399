"""Policy routing: what the table should hold, and that the kernel comes to have that, and to lose it."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

import pytest

from client.net.exitroutes import NO_WISH, TABLE, ExitRoutes, LocalRoute, Wish, plan
from client.net.nft import find_nft
from client.prefixes import Network
from tests.client.net.namespace import in_namespace

LAN = LocalRoute(ipaddress.ip_network("192.168.1.0/24"), attached=True)
BEHIND = LocalRoute(ipaddress.ip_network("10.9.7.0/24"), attached=False)
RULES = {
    "5210:\tfrom all fwmark 0x80000/0xff0000 lookup main",
    "5230:\tfrom all fwmark 0x80000/0xff0000 unreachable",
    f"5270:\tfrom all lookup {TABLE}",
}


def nets(*texts: str) -> frozenset[Network]:
    return frozenset(map(ipaddress.ip_network, texts))


def ways(wish: Wish, *local: LocalRoute) -> dict[str, list[str]]:
    """The plan as prefix: kinds of routes."""
    found: dict[str, list[str]] = {}
    for route in sorted(plan(wish, local), key=lambda route: route.way):
        found.setdefault(str(route.to), []).append(route.way.name.lower())
    return found


class TestPlan:
    def test_nobody_wants_anything(self) -> None:
        assert plan(NO_WISH, [LAN]) == frozenset()

    def test_an_exit_node_takes_everything_and_the_switch_stands_beneath(self) -> None:
        assert ways(Wish(exit=True, open=True), LAN) == {
            "0.0.0.0/0": ["tunnel", "nowhere"],
            "::/0": ["tunnel", "nowhere"],
            "100.64.0.0/10": ["tunnel"],
            "fd7a:115c:a1e0::/48": ["tunnel"],
            "fe80::/10": ["main"],
        }

    def test_without_anybody_there_only_the_tailnet_is_reached(self) -> None:
        closed = ways(Wish(exit=True), LAN)
        assert closed["0.0.0.0/0"] == closed["::/0"] == ["nowhere"]
        assert closed["100.64.0.0/10"] == ["tunnel"]

    def test_the_local_network_is_reached_when_allowed_and_only_what_is_attached(self) -> None:
        allowed = ways(Wish(exit=True, open=True, allow_lan=True), LAN, BEHIND)
        assert allowed["192.168.1.0/24"] == ["main"]
        assert "10.9.7.0/24" not in allowed

    @pytest.mark.parametrize("subnet", ["192.168.1.0/24", "192.168.0.0/16"])
    def test_of_equal_prefixes_the_hosts_own_wins_and_the_longer_of_others(self, subnet: str) -> None:
        found = ways(Wish(subnets=nets(subnet, "2001:db8:9::/48")), LAN)
        assert found.pop("192.168.1.0/24") == ["main"]
        assert found == {"2001:db8:9::/48": ["tunnel"]} | ({subnet: ["tunnel"]} if "/16" in subnet else {})

    def test_a_subnet_inside_a_larger_local_network_is_reached(self) -> None:
        assert ways(Wish(subnets=nets("192.168.1.128/25")), LAN) == {"192.168.1.128/25": ["tunnel"]}

    def test_a_static_route_of_the_host_counts_too(self) -> None:
        assert ways(Wish(subnets=nets("10.9.0.0/16")), BEHIND)["10.9.7.0/24"] == ["main"]

    def test_a_router_reaches_its_own_networks_whatever_it_uses(self) -> None:
        own = ways(Wish(exit=True, open=True, served=nets("10.9.7.0/24", "0.0.0.0/0", "::/0")), BEHIND)
        assert own["10.9.7.0/24"] == ["main"]
        assert own["0.0.0.0/0"] == ["tunnel", "nowhere"]


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def rules() -> list[set[str]]:
    return [
        {line.rstrip() for line in ip(version, "rule").splitlines()[1:] if not line.startswith("327")}
        for version in ("-4", "-6")
    ]


def table(version: str) -> set[str]:
    listed = subprocess.run(
        ["ip", version, "route", "show", "table", str(TABLE)], capture_output=True, text=True, check=False
    ).stdout
    return {" ".join(line.split()[:4]) for line in listed.splitlines()}


def listing() -> str:
    return subprocess.run([find_nft(), "list", "ruleset"], capture_output=True, text=True, check=True).stdout


def sysctl(name: str, value: str = "") -> str:
    path = Path("/proc/sys/net", name)
    if value:
        path.write_text(value)
    return path.read_text().strip()


def tunnel() -> None:
    ip("link", "add", "tz", "type", "bridge")
    ip("link", "set", "tz", "up")
    ip("addr", "add", "100.64.0.1/32", "dev", "tz")
    ip("link", "add", "eth7", "type", "bridge")
    ip("link", "set", "eth7", "up")
    ip("addr", "add", "192.168.1.5/24", "dev", "eth7")
    ip("addr", "add", "2001:db8:7::5/64", "dev", "eth7", "nodad")


@pytest.mark.root
class TestInTheKernel:
    EXIT = Wish(exit=True, open=True)

    async def test_the_rules_are_as_meant_in_both_families(self) -> None:
        with in_namespace():
            tunnel()
            await ExitRoutes("tz").apply(self.EXIT)
            assert rules() == [RULES, RULES]

    async def test_the_switch_outlives_the_interface_and_a_new_daemon_removes_all(self) -> None:
        with in_namespace():
            tunnel()
            await ExitRoutes("tz").apply(self.EXIT, port=41641)
            assert "default dev tz proto" in table("-4")
            assert "default dev tz proto" in table("-6")
            ip("link", "del", "tz")
            assert table("-4") == {"unreachable default proto static"}
            assert table("-6") >= {"unreachable default dev lo"}
            with pytest.raises(subprocess.CalledProcessError):
                ip("route", "get", "203.0.113.9")
            assert "eth7" in ip("route", "get", "192.168.1.9", "mark", "0x80000")
            await ExitRoutes("tz").remove()
            assert table("-4") == table("-6") == set()
            assert rules() == [set(), set()]
            assert listing() == ""

    async def test_guarding_closes_what_is_open_and_leaves_what_flows(self) -> None:
        with in_namespace():
            tunnel()
            await ExitRoutes("tz").apply(Wish(exit=True), add_only=True)
            assert table("-4") >= {"unreachable default proto static"}
            assert rules() == [RULES, RULES]
            await ExitRoutes("tz").apply(self.EXIT)
            await ExitRoutes("tz").apply(Wish(exit=True), add_only=True)  # as a daemon that takes over does
            assert "default dev tz proto" in table("-4")

    async def test_it_follows_from_wish_to_wish(self) -> None:
        with in_namespace():
            tunnel()
            routes = ExitRoutes("tz")
            await routes.apply(Wish(subnets=nets("192.168.0.0/16", "2001:db8:7::/48")))
            assert "eth7" in ip("route", "get", "192.168.1.9")
            assert "dev tz" in ip("route", "get", "192.168.2.9")
            assert "eth7" in ip("route", "get", "2001:db8:7::9")
            await routes.apply(Wish(exit=True, open=True, subnets=nets("192.168.1.0/24")))
            assert "dev tz" in ip("route", "get", "192.168.1.9")
            await routes.apply(Wish(exit=True, open=True, allow_lan=True, subnets=nets("192.168.1.0/24")))
            assert "eth7" in ip("route", "get", "192.168.1.9")
            assert "eth7" in ip("route", "get", "2001:db8:7::9")
            assert "dev tz" in ip("route", "get", "2001:db8:8::9")
            await routes.apply(NO_WISH)
            assert table("-4") == table("-6") == set()

    async def test_who_binds_to_an_interface_reaches_its_link_and_nothing_behind_it(self) -> None:
        """As DHCP clients do; the gateway is not asked, whatever the kernel makes of such a packet."""
        with in_namespace():
            tunnel()
            ip("route", "add", "default", "via", "192.168.1.1")
            await ExitRoutes("tz").apply(self.EXIT)
            assert "dev eth7" in ip("route", "get", "192.168.1.1", "oif", "eth7")
            assert "via" not in ip("route", "get", "203.0.113.9", "oif", "eth7")

    async def test_a_host_without_ipv6_is_guarded_in_ipv4(self) -> None:
        with in_namespace():
            for scope in ("all", "default"):
                sysctl(f"ipv6/conf/{scope}/disable_ipv6", "1")
            ip("link", "add", "tz", "type", "bridge")
            ip("link", "set", "tz", "up")
            routes = ExitRoutes("tz")
            await routes.apply(self.EXIT)
            assert "default dev tz proto" in table("-4")
            await routes.remove()

    async def test_the_kernels_setting_is_set_back_by_who_set_it(self) -> None:
        with in_namespace():
            tunnel()
            routes = ExitRoutes("tz")
            await routes.apply(self.EXIT)
            assert sysctl("ipv4/conf/all/src_valid_mark") == "1"
            assert routes.trouble == ""
            await routes.remove()
            assert sysctl("ipv4/conf/all/src_valid_mark") == "0"
