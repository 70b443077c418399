"""What rules mean for nodes: who sees whom, what filters say, which routes are used."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from controlplane.netmap.policy.default import default_policy
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot
from tests.controlplane.policy.tailnets import (
    ANN,
    BOB,
    EVE,
    EXIT,
    PEOPLE,
    apply,
    grants,
    node,
    peers,
    reached,
    sources,
    tags,
)

ANNS, ANNS_OTHER, BOBS, EVES = (node(1, user=ANN), node(2, user=ANN), node(3, user=BOB), node(4, user=EVE))
WEB, DB = node(5, tags=["tag:web"]), node(6, tags=["tag:db"])
ROUTER = node(7, tags=["tag:edge"], routes=("10.1.0.0/16",))
STANDBY = node(8, tags=["tag:edge", "tag:spare"], routes=("10.1.0.0/16",))
EXIT_NODE = node(9, tags=["tag:exit"], routes=EXIT)
ALL = (ANNS, ANNS_OTHER, BOBS, EVES, WEB, DB, ROUTER, STANDBY, EXIT_NODE)
EVERY_TAG = tags("web", "db", "edge", "spare", "exit")
GROUPS = {"group:dev": ["bob@corp.example", "EVE@guest.example"], "group:none": []}
HOSTS = {"office": "10.1.0.0/16", "web-host": "100.64.1.5"}


def act(*rules: dict[str, Any], among: tuple[NodeSnapshot, ...] = ALL, **sections: Any) -> Any:
    defaults = {"tagOwners": EVERY_TAG, "groups": GROUPS, "hosts": HOSTS}
    return apply(grants(*rules, **defaults | sections), *among)


@pytest.mark.parametrize(
    ("source", "numbers"),
    [
        ("*", {1, 2, 3, 4, 6, 7, 8, 9}),
        ("ann@corp.example", {1, 2}),
        ("Ann@Corp.Example", {1, 2}),
        ("nobody@corp.example", set()),
        ("user:*@corp.example", {1, 2, 3}),
        ("group:dev", {3, 4}),
        ("group:none", set()),
        ("tag:db", {6}),
        ("autogroup:member", {1, 2, 3, 4}),
        ("autogroup:members", {1, 2, 3, 4}),
        ("autogroup:tagged", {6, 7, 8, 9}),
        ("autogroup:admin", {1, 2}),
        ("autogroup:owner", {1, 2}),
        ("autogroup:auditor", {4}),
        ("autogroup:it-admin", set()),
        ("100.64.1.3", {3}),
        ("100.64.1.1-100.64.1.2", {1, 2}),
        ("10.1.2.0/24", {7, 8}),  # what comes from a subnet comes through its routers
        ("office", {7, 8}),
        ("autogroup:danger-all", {1, 2, 3, 4, 6, 7, 8, 9}),
    ],
)
def test_sources_and_targets_see_each_other(source: str, numbers: set[int]) -> None:
    checked = act({"src": [source], "dst": ["tag:web"]})
    assert peers(checked, WEB.id) == numbers
    for number in {one.id for one in ALL} - {WEB.id}:
        assert peers(checked, number) == ({WEB.id} if number in numbers else set())


@pytest.mark.parametrize(
    ("target", "numbers"),
    [
        ("*", {1, 2, 3, 4, 5, 7, 8, 9}),
        ("tag:web", {5}),
        ("group:dev", {3, 4}),
        ("web-host", {5}),
        ("100.64.1.0/30", {1, 2, 3}),
        ("office", {7, 8}),
        ("10.1.9.9", {7, 8}),
        ("10.9.0.0/16", set()),
        ("8.8.8.8", set()),  # an exit node is no way to single addresses
        ("autogroup:internet", {9}),
        ("autogroup:tagged", {5, 7, 8, 9}),
    ],
)
def test_targets_may_be_anything_that_sources_may(target: str, numbers: set[int]) -> None:
    assert peers(act({"src": ["tag:db"], "dst": [target]}), DB.id) == numbers


def test_a_filter_names_both_addresses_of_the_node_itself() -> None:
    checked = act({"src": ["bob@corp.example"], "dst": ["tag:web", "tag:db"], "ip": ["tcp:22", "tcp:80-443"]})
    assert reached(checked, WEB.id) == {
        (source, f"{to}:{ports}")
        for source in ("100.64.1.3", "fd7a:115c:a1e0::3")
        for to in ("100.64.1.5", "fd7a:115c:a1e0::5")
        for ports in ("22-22", "80-443")
    }
    assert [rule["IPProto"] for rule in checked.evaluation.filter_of(WEB.id)] == [[6]]
    assert checked.evaluation.filter_of(BOBS.id) == []


def test_a_router_filters_for_what_it_carries_in_the_words_of_the_file() -> None:
    checked = act({"src": ["tag:db"], "dst": ["10.1.4.0/24", "10.9.0.0/16", "8.8.8.8"], "ip": ["53"]})
    assert {to for _, to in reached(checked, ROUTER.id)} == {"10.1.4.0/24:53-53"}
    assert checked.evaluation.filter_of(EXIT_NODE.id) == []


def test_the_wildcard_stands_for_nodes_and_approved_subnets() -> None:
    checked = act({"src": ["*"], "dst": ["tag:web"]})
    assert sources(checked, WEB.id) == {
        "10.1.0.0/16",
        "100.64.0.0-100.115.91.255",
        "100.115.94.0-100.127.255.255",
        "fd7a:115c:a1e0::/48",
    }
    assert sources(act({"src": ["autogroup:danger-all"], "dst": ["tag:web"]}), WEB.id) == {"*"}


def test_neighbouring_addresses_are_one_range() -> None:
    checked = act({"src": ["autogroup:member"], "dst": ["tag:web"]})
    assert sources(checked, WEB.id) == {
        "100.64.1.1-100.64.1.4",
        "fd7a:115c:a1e0::1-fd7a:115c:a1e0::4",
    }


def test_own_devices_reach_each_other_and_no_others() -> None:
    checked = act({"src": ["autogroup:member"], "dst": ["autogroup:self"]})
    assert peers(checked, ANNS.id) == {ANNS_OTHER.id}
    assert sources(checked, ANNS.id) == {"100.64.1.1-100.64.1.2", "fd7a:115c:a1e0::1-fd7a:115c:a1e0::2"}
    assert peers(checked, BOBS.id) == set()
    assert sources(checked, WEB.id) == set()


def test_an_acl_has_ports_with_each_target() -> None:
    policy = {
        "acls": [
            {"action": "accept", "src": ["tag:db"], "dst": ["tag:web:22,80-90", "*:443"]},
            {"action": "accept", "proto": "udp", "users": ["tag:db"], "ports": ["web-host:53"]},
        ],
        "tagOwners": EVERY_TAG,
        "hosts": HOSTS,
    }
    checked = apply(policy, *ALL)
    assert {to for _, to in reached(checked, WEB.id) if ":" in to and "fd7a" not in to} == {
        "100.64.1.5:22-22",
        "100.64.1.5:80-90",
        "*:443-443",
        "100.64.1.5:53-53",
    }
    assert [rule.get("IPProto") for rule in checked.evaluation.filter_of(WEB.id)] == [None, [17]]


def test_a_file_without_rules_closes_nothing_an_empty_list_everything() -> None:
    assert peers(apply({}, ANNS, WEB), ANNS.id) == {WEB.id}
    assert peers(apply({"grants": []}, ANNS, WEB), ANNS.id) == set()
    assert peers(apply({"acls": []}, ANNS, WEB), ANNS.id) == set()


def test_the_default_policy_lets_everyone_reach_everyone() -> None:
    snapshot = TailnetSnapshot(
        id=1, name="", suffix="", version=1, users=PEOPLE, nodes={one.id: one for one in ALL}
    )
    assert snapshot.policy is default_policy()
    evaluation = Evaluation.of(snapshot.policy, snapshot)
    assert set(evaluation.world.ids(evaluation.peers_of(ANNS.id))) == {2, 3, 4, 5, 6, 7, 8, 9}
    assert evaluation.routes_for(ANNS.id, EXIT_NODE.id) == EXIT
    assert evaluation.ssh_of(ANNS.id)
    assert not evaluation.ssh_of(WEB.id)


# -- applications


def test_capabilities_are_granted_on_the_node_and_answered_to_the_source() -> None:
    app = {"tailscale.com/cap/drive": [{"shares": ["docs"], "access": "ro"}], "corp.example/cap/x": []}
    checked = act({"src": ["bob@corp.example"], "dst": ["tag:web"], "app": app})
    own = ["100.64.1.5/32", "fd7a:115c:a1e0::5/128"]
    assert checked.evaluation.filter_of(WEB.id) == [
        {"SrcIPs": ["100.64.1.3", "fd7a:115c:a1e0::3"], "CapGrant": [{"Dsts": own, "CapMap": app}]}
    ]
    assert checked.evaluation.filter_of(BOBS.id) == [
        {
            "SrcIPs": ["100.64.1.5", "fd7a:115c:a1e0::5"],
            "CapGrant": [
                {
                    "Dsts": ["100.64.1.3/32", "fd7a:115c:a1e0::3/128"],
                    "CapMap": {"tailscale.com/cap/drive-sharer": None},
                }
            ],
        }
    ]


def test_capabilities_stay_within_a_person_for_own_devices() -> None:
    app = {"tailscale.com/cap/drive": [{}]}
    checked = act({"src": ["autogroup:member"], "dst": ["autogroup:self"], "app": app})
    for rule in checked.evaluation.filter_of(ANNS.id):
        assert rule["SrcIPs"] == ["100.64.1.1-100.64.1.2", "fd7a:115c:a1e0::1-fd7a:115c:a1e0::2"]
    assert len(checked.evaluation.filter_of(ANNS.id)) == 2
    assert checked.evaluation.filter_of(WEB.id) == []


def test_nothing_behind_a_router_has_capabilities() -> None:
    checked = act({"src": ["tag:db"], "dst": ["office"], "app": {"corp.example/cap/x": [{}]}})
    assert checked.evaluation.filter_of(ROUTER.id) == []
    assert peers(checked, DB.id) == {ROUTER.id, STANDBY.id}


# -- routes


def routes(checked: Any, viewer: NodeSnapshot) -> dict[int, tuple[str, ...]]:
    evaluation = checked.evaluation
    found = {one: evaluation.routes_for(viewer.id, one) for one in evaluation.world.nodes}
    return {number: prefixes for number, prefixes in found.items() if prefixes}


def test_only_who_may_reach_a_subnet_routes_it() -> None:
    checked = act({"src": ["tag:db"], "dst": ["office"]}, {"src": ["tag:web"], "dst": ["tag:edge"]})
    assert routes(checked, DB) == {ROUTER.id: ("10.1.0.0/16",)}
    assert peers(checked, WEB.id) == {ROUTER.id, STANDBY.id}
    assert routes(checked, WEB) == {}


def test_who_is_reached_from_a_subnet_routes_answers_to_it() -> None:
    assert routes(act({"src": ["office"], "dst": ["tag:web"]}), WEB) == {ROUTER.id: ("10.1.0.0/16",)}


def test_routers_of_one_subnet_know_its_carrier_if_they_see_it() -> None:
    assert routes(act({"src": ["tag:spare"], "dst": ["tag:edge"]}), STANDBY) == {ROUTER.id: ("10.1.0.0/16",)}
    assert routes(act({"src": ["tag:db"], "dst": ["office"]}), STANDBY) == {}


def test_via_names_the_routers_and_comes_before_the_election() -> None:
    checked = act(
        {"src": ["tag:db"], "dst": ["office"], "via": ["tag:spare"]},
        {"src": ["tag:db", "tag:web"], "dst": ["office"]},
    )
    assert routes(checked, DB) == {STANDBY.id: ("10.1.0.0/16",)}
    assert routes(checked, WEB) == {ROUTER.id: ("10.1.0.0/16",)}


def test_via_routers_that_carry_nothing_reach_nobody() -> None:
    checked = act({"src": ["tag:db"], "dst": ["office"], "via": ["tag:exit"]})
    assert peers(checked, DB.id) == set()


def test_exit_nodes_need_the_internet_or_everything() -> None:
    for target in ("autogroup:internet", "*"):
        assert routes(act({"src": ["tag:db"], "dst": [target]}), DB)[EXIT_NODE.id] == EXIT
    assert EXIT_NODE.id not in routes(act({"src": ["tag:db"], "dst": ["tag:exit", "office"]}), DB)


def test_the_internet_is_nothing_private() -> None:
    checked = act({"src": ["tag:db"], "dst": ["autogroup:internet"], "ip": ["*"]})
    allowed = {to.rpartition(":")[0] for _, to in reached(checked, EXIT_NODE.id)}
    assert "11.0.0.0-100.63.255.255" in allowed
    assert "2000::/3" in allowed
    assert not any(text.startswith(("10.", "192.168.", "fd")) for text in allowed)


def test_via_chooses_the_exit_node() -> None:
    other = node(10, tags=["tag:spare"], routes=EXIT)
    rule = {"src": ["tag:db"], "dst": ["autogroup:internet"], "via": ["tag:spare"]}
    assert routes(act(rule, among=(*ALL, other)), DB) == {other.id: EXIT}


def test_one_default_route_makes_no_exit_node() -> None:
    half = replace(EXIT_NODE, routes=EXIT[:1])
    assert routes(act({"src": ["tag:db"], "dst": ["*"]}, among=(DB, half)), DB) == {}


# -- names


def test_ip_sets_add_and_remove() -> None:
    sets = {
        "ipset:small": ["100.64.1.5", "add host:office"],
        "ipset:all": ["ipset:small", "add 100.64.1.6", "remove 100.64.1.5"],
        "ipset:net": ["autogroup:internet", "remove 8.8.8.0/24"],
    }
    checked = act({"src": ["tag:exit"], "dst": ["ipset:all"]}, ipsets=sets)
    assert peers(checked, EXIT_NODE.id) == {DB.id, ROUTER.id, STANDBY.id}
    checked = act({"src": ["tag:db"], "dst": ["ipset:net"]}, ipsets=sets)
    assert routes(checked, DB) == {EXIT_NODE.id: EXIT}
    allowed = {to.rpartition(":")[0] for _, to in reached(checked, EXIT_NODE.id)}
    assert "8.8.9.0-9.255.255.255" in allowed


def test_groups_of_the_provider_count_beside_those_of_the_file() -> None:
    users = {**PEOPLE, EVE: replace(PEOPLE[EVE], groups=("group:ops",))}
    policy = grants({"src": ["group:ops"], "dst": ["tag:web"]}, tagOwners=EVERY_TAG)
    assert peers(apply(policy, *ALL, users=users), WEB.id) == {EVES.id}


def test_a_posture_lets_in_the_devices_that_meet_it() -> None:
    good = replace(BOBS, attributes={"node:os": "linux"})
    checked = act(
        {"src": ["*"], "dst": ["tag:web"], "srcPosture": ["posture:linux"]},
        among=(ANNS, good, WEB),
        postures={"posture:linux": ["node:os == 'linux'"]},
    )
    assert peers(checked, WEB.id) == {good.id}
    assert sources(checked, WEB.id) == {"100.64.1.3", "fd7a:115c:a1e0::3"}


def test_devices_that_wait_or_left_take_no_part() -> None:
    waiting = replace(BOBS, standing=Standing.PENDING)
    gone = replace(EVES, standing=Standing.LOGGED_OUT)
    checked = act({"src": ["autogroup:member"], "dst": ["*"]}, among=(ANNS, waiting, gone, WEB))
    assert sources(checked, WEB.id) == {"100.64.1.1", "fd7a:115c:a1e0::1"}
    assert peers(checked, waiting.id) == set()
    assert checked.evaluation.filter_of(gone.id) == []


def test_unchanged_filters_stay_the_same_objects() -> None:
    checked = act({"src": ["tag:db"], "dst": ["tag:web"]}, {"src": ["group:dev"], "dst": ["tag:edge"]})
    snapshot = TailnetSnapshot(
        id=1, name="", suffix="", version=2, users=PEOPLE, nodes=dict(checked.evaluation.world.nodes)
    )
    before = {one.id: checked.evaluation.filter_of(one.id) for one in ALL}
    joined = replace(snapshot, nodes={**snapshot.nodes, 10: node(10, tags=["tag:db"])})
    following = checked.evaluation.updated(joined, {10})
    assert following.filter_of(WEB.id) != before[WEB.id]
    assert following.filter_of(ROUTER.id) is before[ROUTER.id]


def test_numbers_of_nodes_that_come_and_go_stay_few() -> None:
    evaluation = Evaluation.of(
        parse_policy("{}"), TailnetSnapshot(id=1, name="", suffix="", version=1, users=PEOPLE)
    )
    for number in range(1, 200):
        snapshot = TailnetSnapshot(
            id=1,
            name="",
            suffix="",
            version=number,
            users=PEOPLE,
            nodes={number: node(number, user=ANN)},
        )
        evaluation = evaluation.updated(snapshot, {number - 1, number})
    assert len(evaluation.world.slots) < 100


def test_a_device_of_nobody_is_nobodys_own() -> None:
    lost = node(10), node(11)
    policy = {"acls": [{"action": "accept", "src": ["*"], "dst": ["autogroup:self:*"]}]}
    checked = apply(policy, *lost, ANNS, ANNS_OTHER)
    assert peers(checked, 10) == set()
    assert peers(checked, ANNS.id) == {ANNS_OTHER.id}


def test_a_posture_tells_own_devices_apart() -> None:
    good = replace(ANNS, attributes={"node:os": "linux"})
    checked = act(
        {"src": ["ann@corp.example"], "dst": ["autogroup:self"], "srcPosture": ["posture:linux"]},
        among=(good, ANNS_OTHER, BOBS),
        postures={"posture:linux": ["node:os == 'linux'"]},
    )
    assert sources(checked, ANNS_OTHER.id) == {"100.64.1.1", "fd7a:115c:a1e0::1"}
    assert peers(checked, ANNS_OTHER.id) == {ANNS.id}
    assert peers(checked, BOBS.id) == set()
