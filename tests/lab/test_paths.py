"""Trenza's client finds its paths: through the relay first, directly where the NATs allow it."""

from __future__ import annotations

import pytest

from tests.lab.conftest import World
from tests.lab.node import Node
from tests.lab.processes import wait_for
from tests.lab.traffic import ping, reachable

pytestmark = pytest.mark.root


def introduce(first: Node, second: Node) -> None:
    """Wait until both see each other and know each other's home relay."""
    for one, other in ((first, second), (second, first)):
        one.sees(other.name)
        one.knows_relay(other.name)


def flows(first: Node, second: Node) -> None:
    """Nothing is lost between the two, either way, over IPv4 and IPv6."""
    for source, target in ((first, second), (second, first)):
        for address in target.addresses():
            reachable(source.namespace, address)
            assert ping(source.namespace, address, count=5).lost == 0


def test_two_behind_easy_nats_go_from_relay_to_direct(world: World) -> None:
    ada, ben = world.trenza("ada", world.easy1), world.trenza("ben", world.easy2)
    world.join(ada)
    world.join(ben)
    introduce(ada, ben)
    answers = ada.ping("ben", "--until-direct", "-c", "20")
    assert answers[0].derp == "trenza"
    assert answers[-1].direct.startswith(world.easy2.namespace.address4)
    assert ben.direct("ada").startswith(world.easy1.namespace.address4)
    flows(ada, ben)


def test_one_without_udp_stays_on_the_relay(world: World) -> None:
    cem, dan = world.trenza("cem", world.blocked), world.trenza("dan", world.easy1)
    world.join(cem)
    world.join(dan)
    introduce(cem, dan)
    assert [answer.derp for answer in dan.ping("cem", "-c", "3", check=False)] == ["trenza"] * 3
    flows(cem, dan)
    assert not dan.peer("cem")["CurAddr"]
    assert dan.peer("cem")["RelayReason"]


def test_a_hard_nat_keeps_to_the_relay_and_loses_nothing(world: World) -> None:
    eva, fil = world.trenza("eva", world.hard), world.trenza("fil", world.easy1)
    world.join(eva)
    world.join(fil)
    introduce(eva, fil)
    assert {answer.derp for answer in fil.ping("eva", "-c", "4", check=False)} == {"trenza"}
    flows(eva, fil)
    for node, peer, whose in (
        (eva, "fil", "this network's NAT"),
        (fil, "eva", "the NAT of the peer's network"),
    ):
        wait_for(
            f"{node.name} says whose NAT is hard",
            lambda node=node, peer=peer, whose=whose: node.peer(peer)["RelayReason"].startswith(
                f"{whose} is hard"
            ),
        )


def test_two_on_one_lan_use_their_local_addresses(world: World) -> None:
    gil, hal = world.trenza("gil", world.easy1), world.trenza("hal", world.easy1)
    world.join(gil)
    world.join(hal)
    introduce(gil, hal)
    gil.ping("hal", "--until-direct", "-c", "20")
    assert gil.direct("hal").startswith(f"{hal.namespace.address4}:")
    flows(gil, hal)


def test_ipv6_is_used_where_both_have_it(world: World) -> None:
    """Behind NATs that never meet over IPv4 the stateful IPv6 filters are passed."""
    ian, jan = world.trenza("ian", world.six1), world.trenza("jan", world.six2)
    world.join(ian)
    world.join(jan)
    introduce(ian, jan)
    ian.ping("jan", "--until-direct", "-c", "20")
    assert ian.direct("jan").startswith(f"[{jan.namespace.address6}]:")
    flows(ian, jan)


def test_the_upgrade_carrier_serves_as_well(world: World) -> None:
    kim, lea = world.trenza("kim", world.easy1, "--carrier=upgrade"), world.trenza("lea", world.easy2)
    world.join(kim)
    world.join(lea)
    assert kim.status()["Control"]["Carrier"] == "upgrade"
    assert lea.status()["Control"]["Carrier"] == "websocket"
    introduce(kim, lea)
    flows(kim, lea)


@pytest.mark.needs("tailscaled", "tailscale")
def test_official_and_own_clients_reach_each_other_by_relay_then_directly(world: World) -> None:
    max_, nia = world.trenza("max", world.easy1), world.official("nia", world.easy2)
    world.join(max_)
    world.join(nia)
    introduce(max_, nia)
    answers = nia.ping("max", "--until-direct", "-c", "20")
    assert answers[0].derp == "trenza"
    assert answers[-1].direct.startswith(world.easy1.namespace.address4)
    flows(max_, nia)
    oto = world.official("oto", world.easy2)
    world.join(oto)
    introduce(max_, oto)
    answers = max_.ping("oto", "--until-direct", "-c", "20")
    assert answers[0].derp == "trenza"
    assert answers[-1].direct.startswith(world.easy2.namespace.address4)
    flows(max_, oto)


@pytest.mark.needs("tailscaled", "tailscale")
def test_official_and_own_clients_talk_through_the_relay_where_udp_is_blocked(world: World) -> None:
    pia, quin = world.trenza("pia", world.blocked), world.official("quin", world.easy1)
    world.join(pia)
    world.join(quin)
    introduce(pia, quin)
    flows(pia, quin)
    assert not quin.peer("pia")["CurAddr"]
