"""The engine's law: what a node was told, applied by the client's own code, is what it would be told now."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controlplane.netmap.engine import Engine
from controlplane.netmap.policy.default import default_policy
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.snapshot import TAGGED_USER_ID, NodeSnapshot, Standing, TailnetSnapshot
from controlplane.netmap.visibility import is_offered
from tests.controlplane.snapshots import (
    PEOPLE,
    START,
    SetNode,
    SetShared,
    derp_map,
    disco_key,
    histories,
    moment,
    node,
    node_key,
    tailnet,
    tailnets,
    user,
)
from tests.examples import examples
from wire.codec import decode_object
from wire.delta import apply
from wire.netmap import MapResponse, NetMap

CHECKOUT = Path(__file__).resolve().parents[2]
NOW = datetime(2030, 6, 1, tzinfo=UTC)
NEW_START_WHILE_OFFLINE = SetNode(2, (("disco_key", disco_key(3)), ("online", False)))


def told(message: bytes) -> MapResponse:
    return MapResponse.from_json(decode_object(message))


def full(engine: Engine, viewer: int) -> NetMap:
    return apply(None, told(engine.full_map(viewer, NOW)))


def comparable(netmap: NetMap) -> NetMap:
    """A netmap without the profiles that nobody in it needs: those only ever add up."""
    needed = {netmap.node.user, *(peer.user for peer in netmap.peers.values())}
    profiles = {key: value for key, value in netmap.user_profiles.items() if key in needed}
    return replace(netmap, user_profiles=profiles)


def check_history(start: TailnetSnapshot, history: list[Any]) -> None:
    """Follow a history with every node's map, and compare after each step."""
    engine = Engine(start)
    maps = {viewer: full(engine, viewer) for viewer in start.nodes}
    for change in history:
        before = engine.snapshot
        update = engine.update(change.apply(before))
        for viewer, netmap in list(maps.items()):
            message = update.message_for(viewer, NOW)
            if message is not None:
                maps[viewer] = apply(netmap, told(message))
            if viewer not in engine.snapshot.nodes:
                check_farewell(maps.pop(viewer))
        for viewer in engine.snapshot.nodes.keys() - maps.keys():
            maps[viewer] = full(engine, viewer)
        for viewer, netmap in maps.items():
            assert comparable(netmap) == comparable(full(engine, viewer)), viewer


def check_farewell(netmap: NetMap) -> None:
    assert netmap.peers == {}
    assert netmap.filter_rules == ()
    assert netmap.node.key_expiry is not None
    assert netmap.node.key_expiry < NOW


@settings(max_examples=examples(3))
@given(tailnets, histories)
@example(tailnet(node(1), node(2)), [SetShared("name", "Casa")])
@example(
    tailnet(node(1), node(2, online=True)), [SetNode(2, (("disco_key", disco_key(3)), ("online", False)))]
)
@example(tailnet(node(1), node(2, last_seen=moment(1))), [SetNode(2, (("online", True),))])
@example(tailnet(node(2, standing=Standing.PENDING)), [SetShared("users", PEOPLE | {1: user(1, "Ana")})])
@example(tailnet(node(1), node(2)), [SetNode(1, (("standing", Standing.PENDING),))])
@example(
    tailnet(node(1), *(node(i, online=True, online_since=moment(i), routes=("10.0.0.0/8",)) for i in (2, 3))),
    [SetNode(2, (("online", False),)), SetNode(2, (("online", True), ("online_since", moment(9))))],
)
def test_deltas_add_up_to_the_full_map(start: TailnetSnapshot, history: list[Any]) -> None:
    check_history(start, history)


@settings(max_examples=examples(3))
@given(tailnets, histories)
def test_nothing_null_and_no_escape_is_ever_sent(start: TailnetSnapshot, history: list[Any]) -> None:
    engine = Engine(start)
    for change in history:
        update = engine.update(change.apply(engine.snapshot))
        for viewer in engine.snapshot.nodes:
            for message in (update.message_for(viewer, NOW), engine.full_map(viewer, NOW)):
                check_plain(message)


def check_plain(message: bytes | None) -> None:
    if message is None:
        return
    assert b"\\u" not in message
    content = json.loads(message)
    assert not list(nulls(content)), "null is fatal to some clients"
    for peer in content.get("Peers", []) + content.get("PeersChanged", []):
        assert len(peer["Addresses"]) in (1, 2)
    for name in ("Peers", "PeersChanged"):
        ids = [peer["ID"] for peer in content.get(name, [])]
        assert ids == sorted(ids)
        assert content.get(name) != [], "an empty list empties some clients' peers"


def nulls(content: Any, path: str = "") -> Any:
    """Where null stands, but for capabilities without arguments, whose value it is."""
    if content is None:
        yield path
    elif isinstance(content, dict):
        for name, value in content.items():
            if name != "CapMap":
                yield from nulls(value, f"{path}.{name}")
    elif isinstance(content, list):
        for value in content:
            yield from nulls(value, f"{path}[]")


@given(tailnets, histories)
def test_a_change_that_changes_nothing_sends_nothing(start: TailnetSnapshot, history: list[Any]) -> None:
    engine = Engine(start)
    for change in history:
        engine.update(change.apply(engine.snapshot))
    copy = replace(
        engine.snapshot, nodes={key: replace(value) for key, value in engine.snapshot.nodes.items()}
    )
    update = engine.update(copy)
    assert update.is_empty
    assert all(update.message_for(viewer, NOW) is None for viewer in engine.snapshot.nodes)


@given(tailnets, histories)
def test_one_step_over_a_whole_history_gives_the_full_map(start: TailnetSnapshot, history: list[Any]) -> None:
    engine = Engine(start)
    begun = engine.state
    maps = {viewer: full(engine, viewer) for viewer in start.nodes}
    for change in history:
        engine.update(change.apply(engine.snapshot))
    update = engine.since(begun)
    for viewer in start.nodes.keys() & engine.snapshot.nodes.keys():
        message = update.message_for(viewer, NOW)
        netmap = apply(maps[viewer], told(message)) if message is not None else maps[viewer]
        assert comparable(netmap) == comparable(full(engine, viewer))


@settings(max_examples=examples(3))
@given(tailnets, histories)
def test_a_whole_map_is_that_of_an_engine_without_a_past(start: TailnetSnapshot, history: list[Any]) -> None:
    engine = Engine(start)
    for change in history:
        engine.update(change.apply(engine.snapshot))
        fresh = Engine(engine.snapshot)
        for viewer in engine.snapshot.nodes:
            assert full(engine, viewer) == full(fresh, viewer)


# --- visibility ------------------------------------------------------------------------------------------


@given(tailnets, histories)
def test_nobody_is_told_of_a_node_that_may_not_be_seen(start: TailnetSnapshot, history: list[Any]) -> None:
    """Pending and logged-out nodes are in no message to others, and such nodes get nobody."""
    engine = Engine(start)
    for change in history:
        update = engine.update(change.apply(engine.snapshot))
        hidden = {
            one.id
            for one in engine.snapshot.nodes.values()
            if one.standing in (Standing.PENDING, Standing.LOGGED_OUT)
        }
        for viewer in engine.snapshot.nodes:
            assert not hidden & set(full(engine, viewer).peers)
            if (message := update.message_for(viewer, NOW)) is not None:
                said = told(message)
                mentioned = {peer.id for peer in (*(said.peers or ()), *said.peers_changed)}
                mentioned |= {patch.node_id for patch in said.peers_changed_patch}
                assert not hidden & mentioned
                assert viewer not in mentioned
                if viewer in hidden:
                    assert not mentioned


def test_a_pending_node_has_an_address_and_a_map_of_nobody() -> None:
    engine = Engine(tailnet(node(1), node(2, standing=Standing.PENDING)))
    pending = full(engine, 2)
    assert pending.peers == {}
    assert pending.filter_rules == ()
    assert pending.node.machine_authorized is False
    assert pending.node.addresses == ("100.64.0.2/32", "fd7a:115c:a1e0::2/128")
    assert full(engine, 1).peers == {}


def test_approval_shows_both_to_each_other_at_once() -> None:
    engine = Engine(tailnet(node(1), node(2, standing=Standing.PENDING)))
    update = engine.with_nodes({2: node(2)})
    to_peer = json.loads(update.message_for(1, NOW) or b"")
    assert [peer["ID"] for peer in to_peer["PeersChanged"]] == [2]
    to_approved = json.loads(update.message_for(2, NOW) or b"")
    assert to_approved["Node"]["MachineAuthorized"] is True
    assert [peer["ID"] for peer in to_approved["Peers"]] == [1]


def test_a_node_without_a_disco_key_is_held_back_until_its_first_report() -> None:
    engine = Engine(tailnet(node(1), node(2, disco_key="")))
    assert full(engine, 1).peers == {}
    update = engine.with_nodes({2: node(2)})
    assert set(apply(full(engine, 1), told(update.message_for(1, NOW) or b"{}")).peers) == {2}


def test_an_expired_node_stays_visible_and_sees_nobody() -> None:
    engine = Engine(tailnet(node(1), node(2)))
    update = engine.with_nodes({2: node(2, standing=Standing.EXPIRED, key_expiry=START)})
    (peer,) = json.loads(update.message_for(1, NOW) or b"")["PeersChanged"]
    assert peer["Expired"] is True
    assert json.loads(update.message_for(2, NOW) or b"")["PeersRemoved"] == [1]


@pytest.mark.parametrize(
    ("values", "patch"),
    [
        ({"endpoints": ("192.0.2.1:1",)}, {"Endpoints": ["192.0.2.1:1"]}),
        ({"endpoints": ()}, {"Endpoints": []}),
        ({"home_derp": 901}, {"DERPRegion": 901}),
        ({"disco_key": disco_key(9)}, {"DiscoKey": disco_key(9)}),
        ({"node_key": node_key(99)}, {"Key": node_key(99), "KeyExpiry": "0001-01-01T00:00:00Z"}),
        ({"key_expiry": START}, {"KeyExpiry": "2030-01-01T00:00:00Z"}),
        ({"online": False, "last_seen": START}, {"Online": False, "LastSeen": "2030-01-01T00:00:00Z"}),
    ],
)
def test_a_small_change_is_a_patch(values: dict[str, Any], patch: dict[str, Any]) -> None:
    before = node(2, online=True, home_derp=900, endpoints=("192.0.2.9:9",))
    engine = Engine(tailnet(node(1), before))
    update = engine.with_nodes({2: replace(before, **values)})
    said = json.loads(update.message_for(1, NOW) or b"")
    assert said == {"PeersChangedPatch": [{"NodeID": 2} | patch]}


def test_viewers_of_one_view_share_one_message() -> None:
    nodes = [node(node_id, online=True) for node_id in range(1, 7)]
    engine = Engine(tailnet(*nodes))
    update = engine.with_nodes({1: replace(nodes[0], home_derp=900)})
    messages = {id(update.message_for(viewer, NOW)) for viewer in range(2, 7)}
    assert len(messages) == 1


def test_a_viewer_hears_nothing_of_its_own_volatile_facts() -> None:
    engine = Engine(tailnet(node(1), node(2)))
    update = engine.with_nodes({1: node(1, online=True)})
    assert update.message_for(1, NOW) is None
    assert update.message_for(2, NOW) is not None


def test_a_change_that_peers_are_not_shown_is_no_news_to_them() -> None:
    engine = Engine(tailnet(node(1), node(2, hostinfo={"OS": "linux"})))
    told_more = node(2, hostinfo={"OS": "linux", "NetInfo": {"DERPLatency": {"900-v4": 0.02}}})
    assert engine.with_nodes({2: told_more}).message_for(1, NOW) is None


def test_who_may_send_files_is_told_where_they_are_taken() -> None:
    """What official clients ask for: the capability of their own node, and each peer's PeerAPI."""
    services = [{"Proto": "peerapi4", "Port": 40001}, {"Proto": "peerapi6", "Port": 40002}]
    engine = Engine(tailnet(node(1), node(2)))
    update = engine.with_nodes({2: node(2, hostinfo={"OS": "linux", "Services": services})})
    (peer,) = json.loads(update.message_for(1, NOW) or b"")["PeersChanged"]
    assert peer["Hostinfo"]["Services"] == services
    whole = json.loads(engine.full_map(1, NOW))
    assert "https://tailscale.com/cap/file-sharing" in whole["Node"]["CapMap"]
    assert whole["Peers"][0]["Hostinfo"]["Services"] == services


def test_a_switch_that_was_written_as_text_reaches_peers_as_a_switch() -> None:
    engine = Engine(tailnet(node(1), node(2, hostinfo={"shieldsup": "true"})))
    (peer,) = json.loads(engine.full_map(1, NOW))["Peers"]
    assert peer["Hostinfo"]["ShieldsUp"] is True


def test_a_new_relay_port_reaches_everyone_and_nothing_else_does() -> None:
    engine = Engine(tailnet(node(1), node(2)))
    update = engine.update(replace(engine.snapshot, derp_map=derp_map(4443)))
    assert set(json.loads(update.message_for(1, NOW) or b"")) == {"DERPMap"}


# --- by the policy ---------------------------------------------------------------------------------------


def test_an_edit_of_the_policy_shows_and_hides_peers_and_changes_filters() -> None:
    grant = '{"src": ["user1@example.com"], "dst": ["tag:b"], "ip": ["22"]}'
    to_b = parse_policy(f'{{"grants": [{grant}], "tagOwners": {{"tag:b": []}}}}')
    nodes = node(1, user_id=1), node(2, user_id=2, tags=("tag:b",)), node(3, user_id=3)
    engine = Engine(tailnet(*nodes))
    maps = {viewer: full(engine, viewer) for viewer in (1, 2, 3)}
    update = engine.update(replace(engine.snapshot, policy=to_b))
    said = {viewer: told(update.message_for(viewer, NOW) or b"{}") for viewer in maps}
    assert [said[viewer].peers_removed for viewer in (1, 2, 3)] == [(3,), (3,), (1, 2)]
    now = {viewer: apply(maps[viewer], said[viewer]) for viewer in maps}
    assert [set(now[viewer].peers) for viewer in (1, 2, 3)] == [{2}, {1}, set()]
    assert now[1].filter_rules == ()
    (rule,) = now[2].filter_rules
    assert rule.sources == ("100.64.0.1", "fd7a:115c:a1e0::1")
    back = engine.update(replace(engine.snapshot, policy=default_policy()))
    again = {viewer: apply(now[viewer], told(back.message_for(viewer, NOW) or b"{}")) for viewer in maps}
    assert {viewer: set(one.peers) for viewer, one in again.items()} == {1: {2, 3}, 2: {1, 3}, 3: {1, 2}}


def test_who_cannot_be_shown_to_others_hears_of_their_own_new_name() -> None:
    hidden = node(2, user_id=1, name="bad name.")
    engine = Engine(tailnet(node(1, user_id=2), node(3, user_id=3), hidden))
    assert 1 in full(engine, 2).user_profiles
    assert 1 not in full(engine, 1).user_profiles, "its owner is none of those who are seen"
    update = engine.update(replace(engine.snapshot, users=PEOPLE | {1: user(1, "Ana")}))
    assert update.message_for(1, NOW) is None
    (mine, _) = json.loads(update.message_for(2, NOW) or b"")["UserProfiles"]
    assert mine["DisplayName"] == "Ana"


def test_only_profiles_of_those_who_are_seen_are_told() -> None:
    own = parse_policy('{"grants": [{"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"]}]}')
    engine = Engine(tailnet(node(1, user_id=1), node(3, user_id=1), node(2, user_id=2), policy=own))
    people = set(full(engine, 1).user_profiles)
    assert people == {1, TAGGED_USER_ID}


# --- who carries a subnet --------------------------------------------------------------------------------

LAN, EXIT = "10.0.0.0/8", ("0.0.0.0/0", "::/0")


def router(node_id: int, since: int | None = 1, **values: Any) -> NodeSnapshot:
    """An approved router of one subnet, online since the minute ``since`` (``None`` = offline)."""
    online_since = None if since is None else moment(since)
    return node(
        node_id, **{"routes": (LAN,), "online": since is not None, "online_since": online_since} | values
    )


def carriers(engine: Engine, prefix: str = LAN) -> list[int]:
    """To whom a node without routes would send a prefix, by its whole map."""
    peers = json.loads(engine.full_map(1, NOW)).get("Peers", [])
    carried = [peer["ID"] for peer in peers if prefix in peer["AllowedIPs"]]
    assert prefix in EXIT or carried == [
        peer["ID"] for peer in peers if prefix in peer.get("PrimaryRoutes", [])
    ]
    return carried


def test_an_exit_node_is_offered_both_default_routes_and_a_subnet_leads_to_one_node() -> None:
    routes = {"routes": ("0.0.0.0/0", LAN, "::/0")}
    engine = Engine(tailnet(node(1), router(2, **routes), router(3, **routes)))
    allowed = [peer["AllowedIPs"][2:] for peer in json.loads(engine.full_map(1, NOW))["Peers"]]
    assert allowed == [[LAN, "0.0.0.0/0", "::/0"], ["0.0.0.0/0", "::/0"]]
    half = Engine(tailnet(node(1), router(2, routes=("0.0.0.0/0",))))
    assert carriers(half, "0.0.0.0/0") == [], "one family alone would let the other one leave as before"


def test_another_router_takes_over_and_nothing_moves_back() -> None:
    engine = Engine(tailnet(node(1), router(2), router(3, since=5), router(4, since=9)))
    assert carriers(engine) == [2]
    update = engine.with_nodes({2: router(2, since=None, last_seen=moment(20))})
    said = json.loads(update.message_for(1, NOW) or b"")
    assert {peer["ID"]: LAN in peer["AllowedIPs"] for peer in said["PeersChanged"]} == {2: False, 3: True}
    own = json.loads(update.message_for(3, NOW) or b"")["Node"]
    assert own["PrimaryRoutes"] == [LAN], "it hears itself that it carries the subnet now"
    assert carriers(engine) == [3]
    engine.with_nodes({2: router(2, since=21)})
    assert carriers(engine) == [3], "the one that came back waits its turn"
    engine.with_nodes({3: router(3, since=None)})
    assert carriers(engine) == [4]


def test_a_router_that_was_approved_later_waits_its_turn() -> None:
    engine = Engine(tailnet(node(1), router(3, since=5, approved={LAN: moment(6)})))
    engine.with_nodes({2: router(2, since=1, approved={LAN: moment(30)})})
    assert carriers(engine) == [3], "connections through it would break for nothing"
    engine.with_nodes({3: router(3, since=5, routes=())})
    assert carriers(engine) == [2]


@pytest.mark.parametrize(
    "gone",
    [{"standing": Standing.EXPIRED}, {"standing": Standing.PENDING}, {"disco_key": ""}, {"routes": ()}],
    ids=str,
)
def test_a_router_that_peers_cannot_use_carries_nothing(gone: dict[str, Any]) -> None:
    engine = Engine(tailnet(node(1), router(2), router(3, since=5)))
    engine.with_nodes({2: router(2, **gone)})
    assert carriers(engine) == [3]


def test_with_every_router_away_the_subnet_keeps_a_carrier_and_overlapping_ones_their_own() -> None:
    inner = "10.1.0.0/16"
    engine = Engine(tailnet(node(1), router(2, since=None), router(3, since=None, routes=(LAN, inner))))
    assert carriers(engine) == [2]
    assert carriers(engine, inner) == [3]
    engine.with_nodes({3: router(3, since=4, routes=(LAN, inner))})
    assert carriers(engine) == carriers(engine, inner) == [3]


@given(tailnets, histories)
def test_a_subnet_has_one_carrier_whatever_happened_before(
    start: TailnetSnapshot, history: list[Any]
) -> None:
    """Exactly one, online if any is, and the same in an engine that saw nothing of the history."""
    engine = Engine(start)
    for change in history:
        engine.update(change.apply(engine.snapshot))
    nodes = engine.snapshot.nodes
    assert Engine(engine.snapshot).snapshot.nodes == nodes
    usable = [one for one in nodes.values() if one.standing is Standing.ACTIVE and is_offered(one)]
    for prefix in (LAN, "10.1.0.0/16"):
        routers = [one for one in usable if prefix in one.routes]
        serving = [one for one in nodes.values() if prefix in one.primary_routes]
        assert len(serving) == bool(routers)
        assert all(one in routers and one.online == any(r.online for r in routers) for one in serving)
    assert not any(set(one.primary_routes) & set(EXIT) for one in nodes.values())


VIA = parse_policy(
    '{"grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]},'
    ' {"src": ["*"], "dst": ["10.0.0.0/8"], "ip": ["*"], "via": ["tag:b"]}], "tagOwners": {"tag:b": []}}'
)


@pytest.mark.parametrize(
    "gone", [{"online": False, "online_since": None}, {"disco_key": ""}, {"name": "no name"}], ids=str
)
def test_a_router_that_rules_name_is_followed_by_the_next_one_that_they_name(gone: dict[str, Any]) -> None:
    """Its prefix stays with another one for everybody else, so that no other router changes."""
    named = {"tags": ("tag:b",)}
    engine = Engine(tailnet(node(1), router(2), router(3, 5, **named), router(4, 6, **named), policy=VIA))
    netmap = full(engine, 1)
    assert users_of(LAN, netmap) == [3]
    update = engine.with_nodes({3: replace(router(3, 5, **named), **gone)})
    assert users_of(LAN, full(engine, 1)) == [4]
    assert users_of(LAN, apply(netmap, told(update.message_for(1, NOW) or b"{}"))) == [4]


def users_of(prefix: str, netmap: NetMap) -> list[int]:
    return [peer.id for peer in netmap.peers.values() if prefix in (peer.allowed_ips or ())]


def test_who_may_not_use_a_subnet_does_not_hear_of_it() -> None:
    to_lan = '{"src": ["user1@example.com"], "dst": ["10.0.0.0/8"], "ip": ["*"]}'
    to_router = '{"src": ["user3@example.com"], "dst": ["user2@example.com"], "ip": ["22"]}'
    policy = parse_policy(f'{{"grants": [{to_lan}, {to_router}]}}')
    engine = Engine(tailnet(node(1, user_id=1), node(3, user_id=3), router(2, user_id=2), policy=policy))
    assert LAN in engine.full_map(1, NOW).decode()
    assert set(full(engine, 3).peers) == {2}
    assert LAN not in engine.full_map(3, NOW).decode()


# --- without IPv4 ----------------------------------------------------------------------------------------

SIX = "fd7a:115c:a1e0::{}/128"
FOUR = "100.64.0.{}/32"


def addresses(engine: Engine, viewer: int) -> dict[int, tuple[str, ...]]:
    """What a node is told of its own and its peers' addresses; each peer leads to its own."""
    netmap = full(engine, viewer)
    assert all(peer.allowed_ips == peer.addresses for peer in netmap.peers.values())
    return {one.id: one.addresses for one in (netmap.node, *netmap.peers.values())}


def test_a_node_whose_ipv4_is_switched_off_has_one_address_for_itself_and_for_others() -> None:
    attributes = '"nodeAttrs": [{"target": ["tag:a"], "attr": ["disable-ipv4"]}]'
    policy = parse_policy(f'{{{attributes}, "tagOwners": {{"tag:a": []}}}}')
    engine = Engine(tailnet(node(1), node(2), policy=policy))
    both = {number: (FOUR.format(number), SIX.format(number)) for number in (1, 2)}
    assert addresses(engine, 1) == addresses(engine, 2) == both
    maps = {viewer: full(engine, viewer) for viewer in (1, 2)}
    update = engine.with_nodes({2: node(2, tags=("tag:a",))})
    alone = both | {2: (SIX.format(2),)}
    assert addresses(engine, 1) == addresses(engine, 2) == alone
    now = {viewer: apply(maps[viewer], told(update.message_for(viewer, NOW) or b"{}")) for viewer in maps}
    assert now[1].peers[2].addresses == now[2].node.addresses == alone[2]
    back = engine.update(replace(engine.snapshot, policy=default_policy()))
    assert addresses(engine, 1) == both
    assert apply(now[2], told(back.message_for(2, NOW) or b"{}")).node.addresses == both[2]


def test_a_tailnet_without_ipv4_stays_so_whatever_is_read_again() -> None:
    policy = parse_policy('{"disableIPv4": true}')
    engine = Engine(tailnet(node(1), node(2), policy=policy))
    assert addresses(engine, 1) == {1: (SIX.format(1),), 2: (SIX.format(2),)}
    assert engine.update(tailnet(node(1), node(2), policy=policy)).is_empty, "rows say nothing of it"
    update = engine.with_nodes({3: node(3)})
    (peer,) = json.loads(update.message_for(1, NOW) or b"")["PeersChanged"]
    assert peer["Addresses"] == [SIX.format(3)]


# --- purity and cost -------------------------------------------------------------------------------------


def test_the_engine_loads_no_django() -> None:
    code = (
        "import sys, controlplane.netmap.engine\n"
        "tops = {name.partition('.')[0] for name in sys.modules}\n"
        "sys.exit(bool(tops & {'django', 'channels', 'accounts', 'nodes', 'uvicorn'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, check=False)
    assert done.returncode == 0


def test_a_fragment_is_made_once_per_state_of_a_node() -> None:
    engine = Engine(tailnet(*(node(node_id) for node_id in range(1, 5))))
    one = engine.fragments.of(engine.snapshot.nodes[2])
    engine.full_map(1, NOW)
    assert engine.fragments.of(engine.snapshot.nodes[2]) is one
    engine.with_nodes({2: node(2, home_derp=900)})
    assert engine.fragments.of(engine.snapshot.nodes[2]) is not one
    engine.with_nodes({2: None})
    assert engine.fragments.held == {1, 3, 4}


@pytest.mark.long
@pytest.mark.timeout(3600)
@settings(max_examples=20_000)
@given(tailnets, st.lists(histories, min_size=1, max_size=3))
def test_long_histories(start: TailnetSnapshot, parts: list[list[Any]]) -> None:
    check_history(start, [change for part in parts for change in part])
