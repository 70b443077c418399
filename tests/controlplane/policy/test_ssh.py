"""Who may be whom by SSH: the rules that each device gets, in their order, and how old a sign-in may be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.ssh import (
    ACCEPTED,
    DEFAULT_CHECK_SECONDS,
    HELD,
    SSHRules,
    Verdict,
    check_domains,
)
from controlplane.netmap.policy.world import World
from controlplane.netmap.snapshot import NodeSnapshot, Standing
from tests.controlplane.policy.places import (
    DATABASE,
    DESKTOP,
    LAPTOP,
    MAYA,
    NODES,
    NOOR,
    OTTO,
    PHONE,
    RUNNER,
    TABLET,
    USERS,
    WEB,
    node,
    world_of,
)


def ssh(*rules: Mapping[str, Any], more: str = "") -> World:
    return world_of(f'"ssh": {json.dumps(rules)} {more}')


def rule(**fields: Any) -> dict[str, Any]:
    return {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:web"], "users": ["root"]} | fields


def told(rules: SSHRules, node_id: int) -> list[tuple[set[int], dict[str, str], bool]]:
    """Each rule of a node: the devices it is about, who they may be, and whether it lets them in at once."""
    found = []
    for wire in rules.of_node(node_id):
        addresses = {principal["nodeIP"] for principal in wire["principals"]}
        sources = {one.id for one in NODES.values() if {one.ipv4, one.ipv6} <= addresses}
        assert len(addresses) == 2 * len(sources)
        found.append((sources, wire["sshUsers"], wire["action"] == ACCEPTED))
    return found


POSTURE = """, "postures": {"posture:mac": ["node:os == 'macos'"]}"""
PEOPLE = {LAPTOP, DESKTOP, PHONE, TABLET}


def test_rule_goes_to_the_devices_of_its_targets_only() -> None:
    rules = SSHRules.of(ssh(rule()))
    assert told(rules, WEB) == told(rules, RUNNER) == [(PEOPLE, {"root": "root"}, True)]
    assert all(rules.of_node(other) == [] for other in (LAPTOP, PHONE, DATABASE, 99))


def test_self_is_each_persons_own_devices_and_no_tagged_one() -> None:
    rules = SSHRules.of(ssh(rule(dst=["autogroup:self"])))
    assert told(rules, LAPTOP) == told(rules, DESKTOP) == [({LAPTOP, DESKTOP}, {"root": "root"}, True)]
    assert told(rules, PHONE) == [({PHONE}, {"root": "root"}, True)]
    assert rules.of_node(WEB) == []


def test_person_as_target_is_reached_from_their_own_devices() -> None:
    rules = SSHRules.of(ssh(rule(src=[MAYA], dst=[MAYA])))
    assert told(rules, DESKTOP) == [({LAPTOP, DESKTOP}, {"root": "root"}, True)]
    assert rules.of_node(PHONE) == []


@pytest.mark.parametrize(
    ("sources", "devices"),
    [
        ([NOOR], {PHONE}),
        (["NOOR@ACME.test"], {PHONE}),
        (["group:admins"], {LAPTOP, DESKTOP, TABLET}),
        (["group:oncall"], {PHONE}),
        (["autogroup:owner"], {LAPTOP, DESKTOP}),
        (["autogroup:admin"], {LAPTOP, DESKTOP, TABLET}),
        (["user:*@partner.test"], {TABLET}),
        (["tag:db", NOOR], {DATABASE, PHONE}),
        (["autogroup:tagged"], {WEB, DATABASE, RUNNER}),
    ],
)
def test_sources_of_every_kind(sources: list[str], devices: set[int]) -> None:
    groups = f', "groups": {{"group:admins": ["{MAYA}", "{OTTO}"]}}'
    rules = SSHRules.of(ssh(rule(src=sources), more=groups))
    assert told(rules, WEB) == [(devices, {"root": "root"}, True)]


def test_rule_without_sources_or_with_nobody_in_them_is_told_to_nobody() -> None:
    rules = SSHRules.of(
        ssh(rule(src=[]), rule(src=["group:nobody"]), more=', "groups": {"group:nobody": []}')
    )
    assert all(rules.of_node(node_id) == [] for node_id in NODES)


@pytest.mark.parametrize(
    ("users", "mapped"),
    [
        (["root"], {"root": "root"}),
        (["deploy"], {"deploy": "deploy", "root": ""}),
        (["autogroup:nonroot"], {"*": "=", "root": ""}),
        (["autogroup:nonroot", "root"], {"*": "=", "root": "root"}),
        (["localpart:"], {"localpart:": "localpart:", "root": ""}),
    ],
)
def test_users_as_on_the_wire(users: list[str], mapped: dict[str, str]) -> None:
    rules = SSHRules.of(ssh(rule(users=users)))
    assert [users for _, users, _ in told(rules, WEB)] == [mapped]


def test_localpart_takes_a_rule_apart_by_owner_and_reaches_their_own_devices() -> None:
    rules = SSHRules.of(ssh(rule(users=["localpart:*@acme.test", "deploy"])))
    plain = {"deploy": "deploy", "root": ""}
    mayas = [({LAPTOP, DESKTOP}, plain, True), ({LAPTOP, DESKTOP}, {"maya": "maya"}, True)]
    noors = [({PHONE}, plain, True), ({PHONE}, {"noor": "noor"}, True)]
    ottos = [({TABLET}, plain, True)]  # of another domain
    assert told(rules, WEB) == mayas + noors + ottos
    assert told(rules, DESKTOP) == mayas
    assert told(rules, TABLET) == ottos
    assert rules.of_node(DATABASE) == []


def test_localpart_means_nothing_to_tagged_sources() -> None:
    rules = SSHRules.of(ssh(rule(src=["tag:db"], users=["localpart:*@acme.test"])))
    assert told(rules, WEB) == told(rules, DATABASE) == [({DATABASE}, {"root": ""}, True)]


def test_checks_come_first_and_else_the_order_of_the_file_counts() -> None:
    rules = SSHRules.of(
        ssh(
            rule(users=["a"]),
            rule(action="check", users=["b"]),
            rule(users=["c"]),
            rule(action="check", users=["d"]),
        )
    )
    assert ["".join(users)[0] for _, users, _ in told(rules, WEB)] == ["b", "d", "a", "c"]
    assert [accepted for _, _, accepted in told(rules, WEB)] == [False, False, True, True]
    assert rules.of_node(WEB)[0]["action"] is HELD


def test_environment_is_told_as_written() -> None:
    rules = SSHRules.of(ssh(rule(acceptEnv=["LANG", "LC_*"]), rule()))
    assert [wire.get("acceptEnv") for wire in rules.of_node(WEB)] == [["LANG", "LC_*"], None]


def test_source_has_to_meet_the_posture() -> None:
    postures = """, "postures": {"posture:mac": ["node:os == 'macos'"], "posture:any": ["node:os IS SET"]}"""
    rules = SSHRules.of(
        ssh(rule(srcPosture=["posture:mac"]), rule(srcPosture=["posture:any"]), more=postures)
    )
    assert [sources for sources, _, _ in told(rules, WEB)] == [{LAPTOP}, {LAPTOP, DESKTOP}]


@pytest.mark.parametrize("domain", ["elsewhere.test", "*", "gmail.com"])
@pytest.mark.parametrize("fields", [{"users": ["localpart:*@{}"]}, {"src": ["user:*@{}"]}])
def test_domain_of_nobody_is_refused(domain: str, fields: dict[str, list[str]]) -> None:
    fields = {name: [value.format(domain) for value in values] for name, values in fields.items()}
    world = ssh(rule(**fields))
    with pytest.raises(PolicyError, match="is not associated with this Tailnet and cannot be used in user:"):
        check_domains(world.policy, USERS)


def test_domain_of_somebody_is_taken() -> None:
    world = ssh(rule(src=["user:*@Acme.test"], users=["localpart:*@partner.test"]))
    check_domains(world.policy, USERS)


@pytest.mark.parametrize(
    ("period", "seconds"), [(None, DEFAULT_CHECK_SECONDS), ("always", 0), ("1h", 3600), ("45s", 45)]
)
def test_verdict_says_how_old_a_check_may_be(period: str | None, seconds: int) -> None:
    rules = SSHRules.of(
        ssh(rule(action="check", checkPeriod=period, src=[MAYA]), rule(users=["autogroup:nonroot"]))
    )
    assert rules.verdict(LAPTOP, WEB, "root") == Verdict(seconds)
    assert rules.verdict(LAPTOP, WEB, "deploy") == Verdict(None)
    assert rules.verdict(PHONE, WEB, "root") is None
    assert rules.verdict(LAPTOP, DATABASE, "root") is None
    assert rules.verdict(LAPTOP, 99, "root") is None
    assert rules.verdict(99, WEB, "root") is None


CHANGING = [
    rule(users=["localpart:*@acme.test", "deploy"]),
    rule(action="check", dst=["autogroup:self"]),
    rule(src=["autogroup:tagged", "group:oncall"], dst=["tag:db"], acceptEnv=["LANG"]),
    rule(src=[MAYA], dst=[MAYA], users=["autogroup:nonroot"], srcPosture=["posture:mac"]),
]
MAC = """, "postures": {"posture:mac": ["node:os == 'macos'"]}"""
CHANGES = st.tuples(
    st.integers(1, 10),
    st.sampled_from(["gone", "tagged", "retagged", "owned", "other owner", "moved", "mac", "renamed"]),
)


def changed(nodes: Mapping[int, NodeSnapshot], node_id: int, how: str) -> dict[int, NodeSnapshot]:
    following = dict(nodes)
    if how == "gone":
        following.pop(node_id, None)
        return following
    old = nodes.get(node_id) or node(node_id, "fresh", 2)
    following[node_id] = {
        "tagged": lambda: replace(old, tags=("tag:web",)),
        "retagged": lambda: replace(old, tags=("tag:db", "tag:ci")),
        "owned": lambda: replace(old, tags=(), user_id=1),
        "other owner": lambda: replace(old, tags=(), user_id=3),
        "moved": lambda: replace(old, ipv4=f"100.64.9.{node_id}", ipv6=f"fd7a:115c:a1e0::9{node_id:x}"),
        "mac": lambda: replace(old, attributes={"node:os": "macos"}),
        "renamed": lambda: replace(old, name="other.acme.test."),
    }[how]()
    return following


@given(st.lists(CHANGES, max_size=12))
def test_rules_that_follow_changes_are_those_of_the_new_world(history: list[tuple[int, str]]) -> None:
    world = ssh(*CHANGING, more=MAC)
    rules, nodes = SSHRules.of(world), dict(NODES)
    for node_id, how in history:
        nodes = changed(nodes, node_id, how)
        world = world.changed(nodes, USERS, [node_id])
        for some in list(nodes)[::2]:
            rules.of_node(some)
        rules = rules.updated(world, [node_id])
        anew = SSHRules.of(World.of(world.policy, nodes, USERS))
        for one in nodes:
            assert rules.of_node(one) == anew.of_node(one)
            assert all(rules.verdict(two, one, "maya") == anew.verdict(two, one, "maya") for two in nodes)


def test_what_a_change_does_not_concern_stays_the_same_object() -> None:
    world = ssh(rule(), rule(src=["tag:ci"], dst=["tag:db"]))
    rules = SSHRules.of(world)
    web, database = rules.of_node(WEB), rules.of_node(DATABASE)
    nodes = {**NODES, 8: node(8, "fresh", 2)}
    following = rules.updated(world.changed(nodes, USERS, [8]), [8])
    assert following.of_node(DATABASE) is database
    assert following.of_node(WEB) != web
    renamed = {**nodes, PHONE: replace(nodes[PHONE], name="other.acme.test.")}
    last = following.updated(following.world.changed(renamed, USERS, [PHONE]), [PHONE])
    assert last.of_node(WEB) is following.of_node(WEB)


def test_a_device_that_waited_has_todays_rules_when_it_is_let_in() -> None:
    """What changed while it took no part counts, though nothing of the device itself is different."""
    world = ssh(rule(dst=["autogroup:self"], srcPosture=["posture:mac"]), more=POSTURE)
    waits = dict(world.nodes) | {DESKTOP: replace(NODES[DESKTOP], standing=Standing.PENDING)}
    first = SSHRules.of(World.of(world.policy, waits, USERS))
    assert first.of_node(DESKTOP) == []
    moved = waits | {LAPTOP: replace(NODES[LAPTOP], ipv4="100.64.0.99")}
    second = first.updated(World.of(world.policy, moved, USERS), [LAPTOP])
    second.of_node(DESKTOP)
    here = moved | {DESKTOP: NODES[DESKTOP]}
    third = second.updated(World.of(world.policy, here, USERS), [DESKTOP])
    (wire,) = third.of_node(DESKTOP)
    assert {"nodeIP": "100.64.0.99"} in wire["principals"]
