"""Nodes, peers, filters and DNS as JSON: round trips, the reference's message, hostile JSON."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import NODE_KEY, RECORDINGS
from tests.wire.strategies import any_case, filter_rules, json_values, nodes, peer_changes, user_profiles
from wire.codec import decode_object, encode_json
from wire.errors import MessageError, WireError
from wire.netmap import (
    DNSConfig,
    FilterRule,
    MapResponse,
    NetMap,
    Node,
    PeerChange,
    PortRange,
    Resolver,
    UserProfile,
)

ADDRESSES = ["1.1.1.1", "[::1]:53", "https://dns.example/q"]
SUFFIXES = ["a.example", "b.example"]
resolvers = st.builds(
    Resolver,
    address=st.sampled_from(ADDRESSES),
    use_with_exit_node=st.booleans(),
)
dns_configs = st.builds(
    DNSConfig,
    resolvers=st.lists(resolvers, max_size=2).map(tuple),
    routes=st.dictionaries(st.sampled_from(SUFFIXES), st.lists(resolvers, max_size=2).map(tuple)),
    fallback_resolvers=st.lists(resolvers, max_size=2).map(tuple),
    domains=st.lists(st.sampled_from(["a.example"]), max_size=1).map(tuple),
    proxied=st.booleans(),
)


def over_the_wire(content: dict[str, Any]) -> dict[str, Any]:
    return decode_object(encode_json(content))


@given(nodes())
def test_nodes_round_trip(node: Node) -> None:
    assert Node.from_json(over_the_wire(node.to_json())) == node


@given(nodes(), st.integers(0, 2**32))
def test_a_node_is_read_in_any_case(node: Node, seed: int) -> None:
    assert Node.from_json(any_case(over_the_wire(node.to_json()), seed)) == node


@given(nodes())
def test_a_node_never_sends_null(node: Node) -> None:
    assert None not in node.to_json().values()


@given(peer_changes())
def test_peer_changes_round_trip(change: PeerChange) -> None:
    assert PeerChange.from_json(over_the_wire(change.to_json())) == change


@given(filter_rules())
def test_filter_rules_round_trip(rule: FilterRule) -> None:
    assert FilterRule.from_json(over_the_wire(rule.to_json())) == rule


@given(user_profiles())
def test_profiles_round_trip(profile: UserProfile) -> None:
    assert UserProfile.from_json(over_the_wire(profile.to_json())) == profile


@given(dns_configs)
def test_dns_round_trips(config: DNSConfig) -> None:
    assert DNSConfig.from_json(over_the_wire(config.to_json())) == config


def test_a_dns_route_without_resolvers_is_kept() -> None:
    assert DNSConfig(routes={"a.example": ()}).to_json()["Routes"] == {"a.example": []}
    assert DNSConfig.from_json({"Routes": {"a.example": None}}).routes == {"a.example": ()}


def test_the_references_map_response_is_read() -> None:
    message = MapResponse.from_json(RECORDINGS["map_response"])
    node = message.node
    assert node is not None
    assert (node.id, node.stable_id, node.name, node.key) == (5, "nABC", "box.home.example.", NODE_KEY)
    assert node.key_expiry == datetime(2030, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
    assert (node.home_derp, node.online, node.last_seen, node.machine_authorized) == (900, True, None, True)
    assert (node.hostname, node.routed_prefixes, node.cap_map) == ("box", ("100.64.0.1/32",), {"https": None})
    assert message.peers == (node,)
    assert message.peers_removed == (4,)
    assert message.peers_changed_patch == (PeerChange(node_id=5, derp_region=901, online=True),)
    assert (message.online_change, message.peer_seen_change) == ({5: True}, {5: False})
    allow_all = FilterRule(sources=("*",), destinations=(PortRange(ip="*", first=0, last=65535),))
    assert message.packet_filters == {"base": (allow_all,), "x": None}
    assert message.user_profiles == (UserProfile(id=3, login_name="ana@x", display_name="Ana"),)
    assert message.health == ("bad",)


def test_absent_and_null_members_are_unchanged() -> None:
    names = [
        "Node",
        "DERPMap",
        "Peers",
        "PeersChanged",
        "DNSConfig",
        "PacketFilters",
        "Health",
        "SSHPolicy",
        "PingRequest",
    ]
    assert MapResponse.from_json(dict.fromkeys(names)) == MapResponse.from_json({}) == MapResponse()
    assert MapResponse.from_json({"Peers": []}).peers is None


def test_the_older_filter_is_the_one_named_base() -> None:
    assert MapResponse.from_json({"PacketFilter": []}).packet_filters == {"base": ()}


def test_the_legacy_home_relay_is_read() -> None:
    assert Node.from_json({"ID": 1, "DERP": "127.3.3.40:7"}).home_derp == 7
    assert Node.from_json({"ID": 1, "DERP": "127.3.3.40:7", "HomeDERP": 8}).home_derp == 8


@pytest.mark.parametrize(
    "content",
    [
        {"Node": {}},
        {"Node": {"ID": 0}},
        {"Node": {"ID": 1, "DERP": "127.3.3.40:²"}},
        {"Node": {"ID": 1, "DERP": "127.3.3.40:" + "9" * 5000}},
        {"Peers": [5]},
        {"Peers": {"a": 1}},
        {"PeersRemoved": ["5"]},
        {"PeersChangedPatch": [{"NodeID": "5"}]},
        {"OnlineChange": {"x": True}},
        {"OnlineChange": {"²": True}},
        {"OnlineChange": {"5": 1}},
        {"PacketFilters": {"base": 5}},
        {"PacketFilters": {"base": [5]}},
        {"PacketFilter": [{"IPProto": 6}]},
        {"PacketFilter": [{"DstPorts": [{"Ports": 5}]}]},
        {"DNSConfig": {"Routes": {"a": 5}}},
        {"DNSConfig": {"Routes": {"a": [5]}}},
        {"DERPMap": {"Regions": {"x": {"RegionID": 1}}}},
        {"UserProfiles": [5]},
        {"ControlTime": "now"},
    ],
)
def test_what_is_no_map_message_is_a_declared_error(content: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        MapResponse.from_json(content)


MEMBERS = [
    "Node",
    "DERPMap",
    "Peers",
    "PeersChanged",
    "PeersRemoved",
    "PeersChangedPatch",
    "OnlineChange",
    "PeerSeenChange",
    "DNSConfig",
    "PacketFilter",
    "PacketFilters",
    "UserProfiles",
    "Health",
    "PingRequest",
    "SSHPolicy",
    "KeepAlive",
]
NODE_MEMBERS = [
    "ID",
    "Key",
    "DERP",
    "Addresses",
    "Hostinfo",
    "KeyExpiry",
    "Online",
    "Routes",
    "Resolvers",
    "SrcIPs",
]


@given(
    json_values
    | st.dictionaries(
        st.sampled_from(MEMBERS),
        json_values
        | st.dictionaries(st.sampled_from(NODE_MEMBERS), json_values, max_size=4)
        | st.lists(st.dictionaries(st.sampled_from(NODE_MEMBERS), json_values, max_size=4), max_size=2),
        max_size=5,
    )
)
def test_hostile_json_is_a_message_or_a_declared_error(content: Any) -> None:
    for kind in (MapResponse, Node, PeerChange, FilterRule, DNSConfig, UserProfile):
        with contextlib.suppress(WireError):
            kind.from_json(content)


def test_rules_of_all_named_filters_count_in_order_of_their_names() -> None:
    node = Node(id=1, stable_id="n", name="a.b.c.", key=NODE_KEY)
    one, two = FilterRule(sources=("1",)), FilterRule(sources=("2",))
    assert NetMap(node=node).filter_rules is None
    assert NetMap(node=node, packet_filters={"z": (two,), "a": (one,)}).filter_rules == (one, two)
    assert NetMap(node=node).magic_dns_suffix == "b.c"
