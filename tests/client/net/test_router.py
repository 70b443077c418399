"""Addresses and routes: what a netmap asks for, and that an interface comes to have exactly that."""

from __future__ import annotations

import socket
import subprocess

import pytest

from client.errors import SetupError
from client.net.router import Router, layout, same_layout
from client.net.rules import own_addresses
from tests.client.fakes import netmap, node
from tests.client.net.namespace import in_namespace
from wire.netmap import NetMap


def texts(networks: object) -> set[str]:
    return {str(network) for network in networks}  # type: ignore[attr-defined]


def test_a_node_has_its_addresses_and_routes_to_its_peers() -> None:
    wanted = layout(netmap(node(2)))
    assert texts(wanted.addresses) == {"100.64.0.1/32", "fd7a:115c:a1e0::1/128"}
    assert texts(wanted.routes) == {"100.64.0.2/32", "fd7a:115c:a1e0::2/128"}


def test_prefixes_outside_the_tailnet_are_not_routed() -> None:
    router = node(2, allowed_ips=("100.64.0.2/32", "10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32"))
    assert texts(layout(netmap(router)).routes) == {"100.64.0.2/32"}


def test_a_malformed_prefix_costs_no_other_peer() -> None:
    wanted = layout(netmap(node(2, allowed_ips=("nonsense", "100.64.0.2/8")), node(3)))
    assert texts(wanted.routes) == {"100.64.0.3/32", "fd7a:115c:a1e0::3/128"}


@pytest.mark.parametrize(
    "other",
    [
        netmap(),
        netmap(node(3)),
        netmap(node(2), node(3)),
        netmap(node(2), own=node(9)),
        netmap(node(2, allowed_ips=("100.64.0.2/32", "100.64.0.7/32"))),
        netmap(node(2, online=True, endpoints=("192.0.2.1:1",))),
    ],
)
def test_the_quick_comparison_says_what_the_slow_one_says(other: NetMap) -> None:
    shown = netmap(node(2))
    assert same_layout(shown, other) is (layout(shown) == layout(other))


def test_a_server_cannot_give_us_an_address_of_somebody_else() -> None:
    own = node(1, addresses=("192.168.1.1/32", "0.0.0.0/0", "nonsense", "100.64.0.1/32"))
    assert texts(layout(netmap(own=own)).addresses) == {"100.64.0.1/32"}


def ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


@pytest.mark.root
class TestInTheKernel:
    async def test_the_interface_follows_the_netmap(self) -> None:
        with in_namespace():
            ip("link", "add", "tz", "type", "bridge")
            router = Router("tz")
            await router.apply(layout(netmap(node(2), node(3))))
            assert "mtu 1280" in ip("link", "show", "tz")
            assert {"100.64.0.2", "100.64.0.3"} <= set(ip("-4", "route").split())
            moved = netmap(node(4), own=node(9))
            await router.apply(layout(moved))
            await router.apply(layout(moved))
            assert ip("-4", "-br", "addr", "show", "tz").split()[2:] == ["100.64.0.9/32"]
            routes = ip("-4", "route") + ip("-6", "route")
            assert "100.64.0.4 dev tz" in routes
            assert "fd7a:115c:a1e0::4 dev tz" in routes
            assert "100.64.0.2" not in routes

    async def test_its_addresses_can_be_listened_on_at_once(self) -> None:
        with in_namespace():
            ip("link", "add", "tz", "type", "bridge")
            shown = netmap(node(2))
            await Router("tz").apply(layout(shown))
            for address in own_addresses(shown.node):
                family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
                with socket.socket(family) as sock:
                    sock.bind((str(address), 0))

    async def test_an_interface_that_is_gone_is_one_line(self) -> None:
        with in_namespace(), pytest.raises(SetupError, match="tz is gone"):
            await Router("tz").apply(layout(netmap()))
