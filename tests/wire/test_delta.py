"""The laws by which a client's netmap follows its stream."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import NODE_KEY
from tests.wire.strategies import filter_rules, netmaps, nodes, peer_changes, user_profiles
from wire.delta import apply, patched
from wire.errors import MessageError
from wire.netmap import FilterRule, MapResponse, NetMap, Node, PeerChange, UserProfile

NOW = datetime(2030, 1, 1, tzinfo=UTC)
small_ids = st.integers(1, 9)
peers = st.lists(nodes(small_ids), max_size=5).map(
    lambda found: tuple({node.id: node for node in found}.values())
)
SELF = Node(id=100, stable_id="n", name="self.home.example.", key=NODE_KEY)


def diff(old: NetMap, new: NetMap) -> MapResponse:
    """The plainest delta from one map to the next."""
    changed = tuple(node for node in new.peers.values() if old.peers.get(node.id) != node)
    removed = tuple(sorted(old.peers.keys() - new.peers.keys()))
    node = new.node if new.node != old.node else None
    return MapResponse(node=node, peers_changed=changed, peers_removed=removed)


@given(netmaps(), netmaps())
def test_applying_the_difference_gives_the_new_map(old: NetMap, new: NetMap) -> None:
    assert apply(old, diff(old, new)) == new


@given(netmaps())
def test_an_empty_message_changes_nothing(netmap: NetMap) -> None:
    assert apply(netmap, MapResponse(keep_alive=True)) == netmap


@given(netmaps(), peers)
def test_a_message_applied_twice_is_applied_once(netmap: NetMap, changed: tuple[Node, ...]) -> None:
    message = MapResponse(peers_changed=changed, peers_removed=(1, 2), online_change={3: True})
    once = apply(netmap, message)
    assert apply(once, message) == once


@given(netmaps(), peers, peers)
def test_peers_replace_all_and_silence_the_deltas_beside_them(
    netmap: NetMap, whole: tuple[Node, ...], changed: tuple[Node, ...]
) -> None:
    message = MapResponse(peers=whole or None, peers_changed=changed, peers_removed=(1, 2, 3))
    after = apply(netmap, message)
    if whole:
        assert after.peers == {node.id: node for node in whole}
    else:
        assert set(after.peers) == (set(netmap.peers) - {1, 2, 3}) | {node.id for node in changed}


@given(netmaps(), peers)
def test_peers_stay_sorted_by_id(netmap: NetMap, changed: tuple[Node, ...]) -> None:
    after = apply(netmap, MapResponse(peers_changed=changed))
    assert list(after.peers) == sorted(after.peers)


@given(nodes(small_ids), peer_changes(small_ids))
def test_a_patch_changes_what_it_names_and_nothing_else(node: Node, change: PeerChange) -> None:
    after = patched(node, change)
    assert after.home_derp == (change.derp_region or node.home_derp)
    assert after.cap == (change.cap or node.cap)
    for name in ("cap_map", "endpoints", "key", "disco_key", "online", "last_seen"):
        told = getattr(change, name)
        assert getattr(after, name) == (getattr(node, name) if told is None else told)
    if change.clears_key_expiry:
        assert after.key_expiry is None
    else:
        assert after.key_expiry == (change.key_expiry or node.key_expiry)
    assert replace(after, **{name: getattr(node, name) for name in Node.__dataclass_fields__}) == node


@given(netmaps(), st.lists(peer_changes(small_ids), max_size=4).map(tuple))
def test_patches_of_unknown_peers_are_ignored(netmap: NetMap, patches: tuple[PeerChange, ...]) -> None:
    assert apply(netmap, MapResponse(peers_changed_patch=patches)).peers.keys() == netmap.peers.keys()


@given(nodes(small_ids), st.booleans(), st.booleans())
def test_a_patch_overrides_the_online_changes_beside_it(node: Node, one: bool, other: bool) -> None:
    netmap = NetMap(node=SELF, peers={node.id: node})
    message = MapResponse(
        online_change={node.id: one}, peers_changed_patch=(PeerChange(node_id=node.id, online=other),)
    )
    assert apply(netmap, message).peers[node.id].online is other


@given(nodes(small_ids))
def test_seen_is_now_or_never(node: Node) -> None:
    netmap = NetMap(node=SELF, peers={node.id: node})
    seen = MapResponse(peer_seen_change={node.id: True, 999: True})
    assert apply(netmap, seen, NOW).peers[node.id].last_seen == NOW
    assert apply(netmap, seen).peers[node.id].last_seen == node.last_seen
    assert apply(netmap, MapResponse(peer_seen_change={node.id: False})).peers[node.id].last_seen is None


@given(netmaps(), st.lists(user_profiles(), max_size=4).map(tuple))
def test_profiles_add_up(netmap: NetMap, profiles: tuple[UserProfile, ...]) -> None:
    after = apply(netmap, MapResponse(user_profiles=profiles)).user_profiles
    assert after == dict(netmap.user_profiles) | {profile.id: profile for profile in profiles}


@given(filter_rules())
def test_named_filters_are_set_deleted_and_cleared(rule: FilterRule) -> None:
    netmap = NetMap(node=SELF, packet_filters={"a": (rule,), "b": ()})
    assert apply(netmap, MapResponse(packet_filters={"a": None})).packet_filters == {"b": ()}
    assert apply(netmap, MapResponse(packet_filters={"c": (rule,)})).packet_filters == {
        "a": (rule,),
        "b": (),
        "c": (rule,),
    }
    assert apply(netmap, MapResponse(packet_filters={"*": None, "c": ()})).packet_filters == {"c": ()}
    assert apply(netmap, MapResponse()).packet_filters == netmap.packet_filters


def test_the_first_message_must_hold_this_node() -> None:
    with pytest.raises(MessageError):
        apply(None, MapResponse(peers=(SELF,)))
    assert apply(None, MapResponse(node=SELF)) == NetMap(node=SELF)
