"""A node's life as the state table has it, with real clients, ours and the official one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.conftest import World
from tests.lab.node import Node
from tests.lab.person import Person
from tests.lab.processes import wait_for
from tests.lab.test_paths import flows, introduce
from tests.lab.traffic import reachable, unreachable

pytestmark = pytest.mark.root

KINDS = [
    pytest.param("trenza"),
    pytest.param("official", marks=pytest.mark.needs("tailscaled", "tailscale")),
]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def owner(world: World) -> Person:
    return world.server.person(world.desk)


@pytest.fixture(scope="module")
def witness(lasting_world: World) -> Node:
    """A node of our own that meets all others."""
    node = lasting_world.trenza("witness", lasting_world.easy2)
    lasting_world.join(node)
    lasting_world.keep()
    return node


def joined(world: World, kind: str, name: str, witness: Node) -> Node:
    """A client of a kind, behind an easy NAT, that reaches the witness and is reached by it."""
    make = world.trenza if kind == "trenza" else world.official
    node = make(f"{name}-{kind}", world.easy1)
    world.join(node)
    introduce(node, witness)
    reachable(witness.namespace, node.address())
    return node


def device(world: World, node: Node) -> dict[str, Any]:
    return world.server.nodes()[node.name]


def sign_in_again(world: World, node: Node, person: Person, *options: str) -> None:
    """``up`` without a key, confirmed by a person; waits until the node runs."""
    up = node.up_in_background(world.server.url, *options)
    person.confirm_login(up.url())
    node.wait_state("Running")
    up.ends_well()


def test_an_expired_node_is_cut_off_and_returns_as_itself(
    world: World, kind: str, witness: Node, owner: Person
) -> None:
    node = joined(world, kind, "exp", witness)
    before, addresses = device(world, node), node.addresses()
    owner.act(before["nodeId"], "expire")
    node.wait_state("NeedsLogin")
    unreachable(witness.namespace, addresses[0])
    assert device(world, node)["state"] == "expired"
    sign_in_again(world, node, owner)
    after = device(world, node)
    assert (after["nodeId"], after["addresses"]) == (before["nodeId"], before["addresses"])
    assert after["state"] == "active"
    assert node.addresses() == addresses
    introduce(node, witness)
    flows(node, witness)


def test_a_logged_out_node_is_cut_off_and_returns_as_itself(world: World, kind: str, witness: Node) -> None:
    node = joined(world, kind, "out", witness)
    before, addresses = device(world, node), node.addresses()
    node.cli("logout")
    node.wait_state("NeedsLogin")
    unreachable(witness.namespace, addresses[0])
    assert device(world, node)["state"] == "logged-out"
    node.up(world.server.url, auth_key=world.server.auth_key())
    after = device(world, node)
    assert (after["nodeId"], after["addresses"]) == (before["nodeId"], before["addresses"])
    assert after["nodeKey"] != before["nodeKey"]
    introduce(node, witness)
    flows(node, witness)


def test_the_same_person_signing_in_again_keeps_the_node(
    world: World, kind: str, witness: Node, owner: Person
) -> None:
    node = joined(world, kind, "same", witness)
    before = device(world, node)
    up = node.up_in_background(world.server.url, "--force-reauth")
    owner.confirm_login(up.url())
    up.ends_well()
    wait_for("the new key is in", lambda: device(world, node)["nodeKey"] != before["nodeKey"])
    after = device(world, node)
    assert (after["nodeId"], after["addresses"]) == (before["nodeId"], before["addresses"])
    node.wait_state("Running")
    introduce(node, witness)
    flows(node, witness)


def test_another_person_signing_in_makes_another_node(
    world: World, kind: str, witness: Node, owner: Person
) -> None:
    node = joined(world, kind, "other", witness)
    before, addresses = device(world, node), node.addresses()
    member = world.server.person(world.desk, f"member-{kind}@example.com")
    up = node.up_in_background(world.server.url, "--force-reauth")
    member.confirm_login(up.url())
    node.wait_state("NeedsMachineAuth")
    second = next(
        one
        for one in world.server.nodes().values()
        if one["machineKey"] == before["machineKey"] and one["nodeId"] != before["nodeId"]
    )
    assert set(second["addresses"]).isdisjoint(before["addresses"])
    owner.approve(second["nodeId"])
    node.wait_state("Running")
    up.ends_well()
    assert set(node.addresses()) == set(second["addresses"])
    reachable(witness.namespace, node.address())
    unreachable(witness.namespace, addresses[0])


def test_a_deleted_node_is_cut_off_and_returns_as_a_new_one(
    world: World, kind: str, witness: Node, owner: Person
) -> None:
    node = joined(world, kind, "del", witness)
    before, addresses = device(world, node), node.addresses()
    owner.act(before["nodeId"], "delete")
    node.wait_state("NeedsLogin")
    wait_for("the witness forgets it", lambda: not witness.knows(node.name))
    unreachable(witness.namespace, addresses[0])
    assert node.name not in world.server.nodes()
    node.up(world.server.url, auth_key=world.server.auth_key())
    after = device(world, node)
    assert after["nodeId"] != before["nodeId"]
    introduce(node, witness)
    flows(node, witness)


def test_a_machine_that_lost_power_returns_as_itself(world: World, kind: str, witness: Node) -> None:
    node = joined(world, kind, "pow", witness)
    before, addresses = device(world, node), node.addresses()
    node.namespace.kill_all()
    witness.sees(node.name, online=False)
    node.start()
    node.wait_state("Running")
    assert node.addresses() == addresses
    after = device(world, node)
    assert (after["nodeId"], after["nodeKey"]) == (before["nodeId"], before["nodeKey"])
    introduce(node, witness)
    flows(node, witness)


def test_down_leaves_the_tailnet_without_losing_the_place(world: World, kind: str, witness: Node) -> None:
    node = joined(world, kind, "down", witness)
    addresses = node.addresses()
    node.cli("down")
    node.wait_state("Stopped")
    witness.sees(node.name, online=False)
    unreachable(witness.namespace, addresses[0])
    node.cli("up", *node.up_options(world.server.url))
    node.wait_state("Running")
    assert node.addresses() == addresses
    introduce(node, witness)
    flows(node, witness)
