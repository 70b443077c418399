"""Rights of peers, from netmaps that may say anything."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest

from client.cli.whois import capabilities as shown
from client.peerapi.rights import (
    FILE_SEND,
    FILE_TARGET,
    capabilities,
    may_send_files,
    peerapi_places,
    peerapi_ports,
    takes_files,
    why_not_target,
)
from client.status import whois_json
from tests.client.fakes import node
from tests.client.peerapi.tailnet import ANN, BOB, tailnet
from wire.netmap import FilterRule

PEER = ip_address("100.64.0.3")
HERE = {"Dsts": ["100.64.0.1/32"]}
SERVICES = [{"Proto": "peerapi4", "Port": 4001}, {"Proto": "peerapi6", "Port": 4002}]


def granting(*grants: Any, source: str = "100.64.0.3") -> Any:
    rule = FilterRule(sources=(source,), cap_grants=grants)
    return tailnet(packet_filters={"base": (rule,)})


def test_grants_add_up() -> None:
    values = HERE | {"CapMap": {"a": [1], "b": None}}
    granted = capabilities(granting(HERE | {"Caps": ["a", "c"]}, values, HERE | {"capmap": {"a": [2]}}), PEER)
    assert granted == {"a": [1, 2], "b": [], "c": []}


@pytest.mark.parametrize(
    "grant",
    [
        {"Dsts": ["100.64.0.2/32"], "Caps": ["a"]},
        {"Dsts": ["nonsense", 3, None], "Caps": ["a"]},
        {"Dsts": "100.64.0.1/32", "Caps": ["a"]},
        {"Dsts": ["fd7a:115c:a1e0::1/128"], "Caps": ["a"]},
        HERE | {"Caps": [3, None]},
        HERE | {"Caps": "a", "CapMap": ["a"]},
    ],
)
def test_what_is_malformed_or_for_others_grants_nothing(grant: Any) -> None:
    assert capabilities(granting(grant), PEER) == {}


def test_grants_are_for_their_source() -> None:
    assert capabilities(granting(HERE | {"Caps": ["a"]}, source="100.64.0.4"), PEER) == {}


def test_files_go_between_devices_of_one_person() -> None:
    own = node(2, user=ANN, hostinfo={"Services": SERVICES})
    other = node(3, user=BOB, hostinfo={"Services": SERVICES})
    tagged = node(4, user=ANN, tags=("tag:x",), hostinfo={"Services": SERVICES})
    television = node(5, user=ANN, hostinfo={"OS": "tvOS", "Services": SERVICES})
    deaf = node(6, user=ANN)
    netmap = tailnet(own, other, tagged, television, deaf)
    assert [takes_files(netmap, peer) for peer in (own, other, tagged, television, deaf)] == [
        True, False, False, False, False,
    ]  # fmt: skip
    assert [may_send_files(netmap, peer) for peer in (own, other, tagged)] == [True, False, False]
    assert why_not_target(netmap, own) == ""
    assert "different user" in why_not_target(netmap, other)
    assert "not advertising" in why_not_target(netmap, deaf)


def test_rules_may_let_others() -> None:
    other = node(3, user=BOB, hostinfo={"Services": SERVICES})
    rule = FilterRule(sources=("100.64.0.3",), cap_grants=(HERE | {"Caps": [FILE_TARGET, FILE_SEND]},))
    netmap = tailnet(other, packet_filters={"base": (rule,)})
    assert takes_files(netmap, other)
    assert may_send_files(netmap, other)


@pytest.mark.parametrize(
    "services",
    [None, "x", [3], [{"Proto": "peerapi4", "Port": "80"}], [{"Proto": "peerapi4", "Port": 70000}]],
)
def test_services_that_are_none_are_nowhere(services: Any) -> None:
    assert peerapi_ports(node(2, hostinfo={"Services": services})) == {}


def test_ipv4_is_tried_first() -> None:
    peer = node(2, hostinfo={"Services": SERVICES[::-1]})
    assert [port for _, port in peerapi_places(tailnet(peer), peer)] == [4001, 4002]


def test_whois_shows_what_is_granted_here() -> None:
    netmap = granting(HERE | {"CapMap": {"example.com/cap/x": [{"role": "admin"}]}}, HERE | {"Caps": ["y"]})
    found = whois_json(netmap, netmap.peers[3])
    assert found["CapMap"] == {"example.com/cap/x": [{"role": "admin"}], "y": []}
    assert "\n".join(shown(found["CapMap"])) == (
        '  - example.com/cap/x:\n      [\n        {\n          "role": "admin"\n        }\n      ]\n  - y'
    )
