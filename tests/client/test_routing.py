"""Whose prefixes are used: the exit node's, accepted subnets', and nobody else's."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from client.prefs import Prefs
from client.routing import (
    APPROVED_ROUTES,
    accepted_subnets,
    allowed_ips,
    awaiting_approval,
    awaiting_words,
    exit_node,
    exit_trouble,
    in_use,
    resolved,
)
from tests.client.fakes import netmap, node
from wire.netmap import NetMap, Node

OWN = {number: (f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number:x}/128") for number in range(9)}
EXITS = ("0.0.0.0/0", "::/0")


def router(number: int, *routes: str, **members: Any) -> Node:
    return node(number, allowed_ips=(*OWN[number], *routes), **({"online": True} | members))


def used(shown: NetMap, number: int, **prefs: Any) -> set[str]:
    """What of a peer's prefixes is used, besides its own addresses."""
    return set(in_use(shown, Prefs(**prefs)).peers[number].routed_prefixes) - set(OWN[number])


def test_without_any_wish_a_peer_is_its_own_addresses() -> None:
    shown = netmap(router(2, "10.9.0.0/16", *EXITS), node(3))
    assert used(shown, 2) == set()
    assert in_use(shown, Prefs()).peers[3] is shown.peers[3]


def test_a_netmap_that_needs_no_change_stays_the_same_object() -> None:
    shown = netmap(node(2), node(3))
    assert in_use(shown, Prefs(accept_routes=True, exit_node_id="n9")) is shown


def test_only_the_chosen_exit_node_leads_everywhere() -> None:
    shown = netmap(router(2, *EXITS), router(3, *EXITS))
    assert used(shown, 2, exit_node_id="n2") == set(EXITS)
    assert used(shown, 3, exit_node_id="n2") == set()
    assert used(shown, 2, exit_node_ip="100.64.0.2") == set(EXITS)
    assert used(shown, 2, accept_routes=True) == set()


def test_an_exit_node_can_pass_for_nobody_in_the_tailnet() -> None:
    shown = in_use(netmap(router(2, *EXITS)), Prefs(exit_node_id="n2"))
    allowed = [ipaddress.ip_network(text) for text in allowed_ips(shown.peers[2])]

    def lead_there(text: str) -> bool:
        return any(ipaddress.ip_address(text) in network for network in allowed)

    assert all(map(lead_there, ("203.0.113.9", "10.0.0.1", "100.63.255.255", "100.128.0.0", "2001:db8::9")))
    assert all(map(lead_there, ("100.64.0.2", "fd7a:115c:a1e0::2", "fd7a:115c:a1e1::")))
    assert not any(map(lead_there, ("100.64.0.3", "100.127.255.255", "fd7a:115c:a1e0::3")))


def test_half_an_exit_node_is_none() -> None:
    assert used(netmap(router(2, "0.0.0.0/0")), 2, exit_node_id="n2") == set()


def test_accepted_subnets_are_networks_and_nothing_odd() -> None:
    odd = ("127.0.0.0/8", "224.0.0.0/4", "fe80::/10", "nonsense", "10.0.0.1/8", "fe80::1%eth0/128")
    shown = netmap(router(2, "10.9.0.0/16", "2001:db8:9::/48", *odd))
    assert used(shown, 2, accept_routes=True) == {"10.9.0.0/16", "2001:db8:9::/48"}
    assert set(map(str, accepted_subnets(in_use(shown, Prefs(accept_routes=True))))) == {
        "10.9.0.0/16",
        "2001:db8:9::/48",
    }


@pytest.mark.parametrize(
    ("second", "third", "leads"),
    [
        ({}, {}, 2),
        ({}, {"primary_routes": ("10.9.0.0/16",)}, 3),
        ({"online": False}, {}, 3),
        ({"primary_routes": ("10.9.0.0/16",), "online": False}, {}, 2),
    ],
)
def test_a_subnet_that_two_lead_to_is_taken_from_one(second: Any, third: Any, leads: int) -> None:
    shown = netmap(router(2, "10.9.0.0/16", **second), router(3, "10.9.0.0/16", "10.9.1.0/24", **third))
    found = {number for number in (2, 3) if "10.9.0.0/16" in used(shown, number, accept_routes=True)}
    assert found == {leads}
    assert "10.9.1.0/24" in used(shown, 3, accept_routes=True)


def test_an_address_becomes_the_nodes_id_once_it_is_known() -> None:
    prefs = Prefs(exit_node_ip="fd7a:115c:a1e0::2", exit_node_by_admin=True)
    assert resolved(netmap(node(3)), prefs) is prefs
    known = resolved(netmap(node(2)), prefs)
    assert (known.exit_node_id, known.exit_node_ip) == ("n2", "")


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        (router(3, *EXITS), "not in this tailnet"),
        (router(2), "not approved"),
        (router(2, *EXITS, online=False), "is offline"),
        (router(2, *EXITS, expired=True), "has expired"),
    ],
)
def test_why_nothing_gets_out_is_said(peer: Node, words: str) -> None:
    assert words in exit_trouble(netmap(peer), Prefs(exit_node_id="n2"))


def test_nothing_is_wrong_with_an_exit_node_that_is_there() -> None:
    shown = netmap(router(2, *EXITS))
    assert exit_trouble(shown, Prefs(exit_node_id="n2")) == exit_trouble(shown, Prefs()) == ""
    assert exit_node(shown, Prefs()) is None


def test_what_the_server_has_not_approved_awaits_it() -> None:
    prefs = Prefs(advertise_routes=(*EXITS, "10.9.0.0/16", "10.8.0.0/16"))
    own = router(1, "10.9.0.0/16")
    assert awaiting_approval(own, prefs) == ("0.0.0.0/0", "::/0", "10.8.0.0/16")
    standby = router(1, cap_map={APPROVED_ROUTES: [*EXITS, "10.9.0.0/16", 7]})
    assert awaiting_approval(standby, prefs) == ("10.8.0.0/16",)
    assert awaiting_words(("0.0.0.0/0", "::/0", "10.8.0.0/16")) == "being an exit node, 10.8.0.0/16"
