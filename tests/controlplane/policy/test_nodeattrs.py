"""``nodeAttrs``: what is added to whose capabilities, which addresses new devices get, what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.nodeattrs import Capabilities, pool_for
from controlplane.netmap.policy.ranges import number
from controlplane.netmap.policy.subjects import of_login, of_tags
from controlplane.netmap.snapshot import NodeSnapshot
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
    world_of,
)

MORE = f""", "groups": {{"group:two": ["{MAYA}", "{OTTO}"]}}, "hosts": {{"front": "100.64.0.5"}}"""


def given(*entries: dict[str, Any], more: str = "") -> Capabilities:
    return Capabilities.of(world_of(f'"nodeAttrs": {json.dumps(entries)} {MORE} {more}'))


def who_has(name: str, capabilities: Capabilities) -> set[int]:
    return {node_id for node_id in NODES if name in capabilities.of_node(node_id)}


@pytest.mark.parametrize(
    ("target", "devices"),
    [
        ("*", set(NODES)),
        ("tag:web", {WEB, RUNNER}),
        (MAYA, {LAPTOP, DESKTOP}),
        ("group:two", {LAPTOP, DESKTOP, TABLET}),
        ("group:oncall", {PHONE}),
        ("user:*@acme.test", {LAPTOP, DESKTOP, PHONE}),
        ("autogroup:member", {LAPTOP, DESKTOP, PHONE, TABLET}),
        ("autogroup:tagged", {WEB, DATABASE, RUNNER}),
        ("autogroup:admin", {LAPTOP, DESKTOP, TABLET}),
        ("100.64.0.4/31", {TABLET, WEB}),
        ("100.64.0.6", {DATABASE}),
        ("front", {WEB}),
    ],
)
def test_targets_of_every_kind(target: str, devices: set[int]) -> None:
    assert who_has("magicdns-aaaa", given({"target": [target], "attr": ["magicdns-aaaa"]})) == devices


def test_entries_add_up_and_values_of_one_capability_too() -> None:
    capabilities = given(
        {"target": ["tag:web"], "attr": ["nextdns:abc", "nextdns:no-device-info"]},
        {"target": ["*"], "app": {"acme.test/cap/cache": [{"size": 1}]}},
        {"target": ["tag:web"], "app": {"acme.test/cap/cache": [{"size": 2}], "acme.test/cap/log": []}},
    )
    assert capabilities.of_node(WEB) == {
        "nextdns:abc": None,
        "nextdns:no-device-info": None,
        "acme.test/cap/cache": [{"size": 1}, {"size": 2}],
        "acme.test/cap/log": [],
    }
    assert capabilities.of_node(PHONE) == {"acme.test/cap/cache": [{"size": 1}]}
    assert capabilities.of_node(99) == {}


def test_prefix_does_not_mean_the_routers_that_lead_there() -> None:
    nodes = NODES | {WEB: replace(NODES[WEB], routes=("10.0.0.0/8",))}
    world = world_of('"nodeAttrs": [{"target": ["10.1.0.0/16"], "attr": ["x"]}]', nodes)
    assert Capabilities.of(world).of_node(WEB) == {}


def test_funnel_brings_what_a_client_asks_for() -> None:
    assert given({"target": [NOOR], "attr": ["funnel"]}).of_node(PHONE) == {
        "funnel": None,
        "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000": None,
        "https://tailscale.com/cap/warn-funnel-no-https": None,
    }


def test_options_of_the_whole_tailnet() -> None:
    everywhere = given(more=', "randomizeClientPort": true, "oneCGNATRoute": "mac-never"')
    assert everywhere.of_node(WEB) == {"randomize-client-port": None}
    mac = replace(NODES[LAPTOP], attributes={"node:os": "macos"})
    world = world_of('"oneCGNATRoute": "mac-always"', NODES | {LAPTOP: mac})
    assert Capabilities.of(world).of_node(LAPTOP) == {"one-cgnat?v=true": None}


def test_device_that_changes_gets_what_a_new_world_says() -> None:
    before = given({"target": ["tag:web"], "attr": ["x"]}, {"target": ["tag:db"], "attr": ["y"]})
    web = before.of_node(WEB)
    nodes: dict[int, NodeSnapshot] = {**NODES, WEB: replace(NODES[WEB], tags=("tag:db",))}
    assert before.of_node(RUNNER) is web
    after = before.updated(before.world.changed(nodes, USERS, [WEB]), [WEB])
    assert after.of_node(WEB) == {"y": None}
    assert after.of_node(RUNNER) is web


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"target": ["%nothing%"], "attr": ["x"]}, '"%nothing%": invalid address'),
        ({"target": ["tag:gone"], "attr": ["x"]}, 'tag not found: "tag:gone"'),
        ({"target": ["autogroup:self"], "attr": ["x"]}, '"autogroup:self" is not allowed in target'),
        ({"target": ["*"], "attr": [""]}, "attr values cannot be empty"),
        ({"target": ["*"], "app": {"cache": []}}, "capability name must have the form {domain}/{path}"),
        ({"target": ["*"], "app": {"acme.test/cache": {}}}, 'app["acme.test/cache"] must be a list'),
        ({"target": ["*"], "attrs": ["x"]}, 'unknown field "attrs"'),
        (
            {"target": ["*"], "ipPool": ["100.100.100.0/25"]},
            "IPPool(100.100.100.0/25): network within reserved range",
        ),
        ({"target": ["*"], "ipPool": ["10.0.0.0/8"]}, "IPPool(10.0.0.0/8): network not within 100.64.0.0/10"),
        ({"target": ["*"], "ipPool": ["fd7a::/64"]}, "IPPool(fd7a::/64): network not within 100.64.0.0/10"),
        ({"target": ["*"], "ipPool": ["many"]}, "IPPool(many): invalid network"),
    ],
)
def test_entry_that_is_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError) as refused:
        given(entry)
    assert refused.value.message == message


def test_entry_may_have_no_targets() -> None:
    assert who_has("x", given({"target": [], "attr": ["x"]}, {"attr": ["x"]})) == set()


def test_pool_is_that_of_the_first_entry_that_fits() -> None:
    policy = given(
        {"target": ["tag:web"], "attr": ["x"]},
        {"target": ["tag:web", "autogroup:owner"], "ipPool": ["100.90.0.0/16", "100.95.0.0/24"]},
        {"target": ["*"], "ipPool": ["100.100.0.0/16"]},
    ).world.policy
    assert pool_for(policy, of_tags(["tag:web"])).texts() == ["100.90.0.0/16", "100.95.0.0/24"]
    assert pool_for(policy, of_login(MAYA, USERS.values())).texts() == ["100.90.0.0/16", "100.95.0.0/24"]
    others = pool_for(policy, of_login(NOOR, USERS.values()))
    assert others.contains(number("100.100.7.1"))
    assert not others.contains(number("100.100.100.100"))


def test_without_a_pool_every_address_will_do() -> None:
    assert not pool_for(given().world.policy, of_tags(["tag:web"]))
