"""Our client on a coordination server and a relay that we did not write."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.headscale import CODE, DOMAIN, Derper, Headscale
from tests.lab.net import Lab
from tests.lab.official import OfficialNode
from tests.lab.processes import wait_for
from tests.lab.traffic import ping, reachable
from tests.lab.trenza import TrenzaNode

pytestmark = [pytest.mark.root, pytest.mark.needs("headscale", "derper")]


@pytest.fixture
def abroad() -> Iterator[tuple[World, Headscale]]:
    """A small internet on which our own server is not running."""
    with Lab() as lab:
        relay = Derper(lab.host("derper")).start()
        server = Headscale(lab.host("headscale"), relay).start()
        world = World(lab)
        try:
            yield world, server
        finally:
            world.clear()


def meet(server: Headscale, *pair: TrenzaNode | OfficialNode) -> None:
    """Both join by key, and see each other."""
    key = server.auth_key()
    for node in pair:
        node.up(server.url, auth_key=key)
    for node, other in (pair, reversed(pair)):
        node.sees(other.name)


def test_two_of_ours_join_by_key_and_go_from_relay_to_direct(abroad: tuple[World, Headscale]) -> None:
    world, server = abroad
    first, second = world.trenza("one", world.easy1), world.trenza("two", world.easy2)
    meet(server, first, second)
    answers = first.ping("two", "--until-direct", "-c", "20")
    assert answers[0].derp in (CODE, "")
    assert answers[-1].direct.startswith(world.easy2.namespace.address4)
    assert first.peer("two")["DNSName"] == f"two.{DOMAIN}."
    for target in second.addresses():
        reachable(first.namespace, target)
        assert ping(first.namespace, target, count=5).lost == 0


def test_one_behind_a_hard_nat_is_reached_through_their_relay(abroad: tuple[World, Headscale]) -> None:
    world, server = abroad
    first, second = world.trenza("three", world.hard), world.trenza("four", world.blocked)
    meet(server, first, second)
    assert first.knows_relay("four") == second.knows_relay("three") == CODE
    answers = first.ping("four", "-c", "3", check=False)
    assert [answer.derp for answer in answers] == [CODE] * 3
    for target in second.addresses():
        reachable(first.namespace, target)


@pytest.mark.needs("tailscaled", "tailscale")
def test_ours_and_an_official_client_meet_there(abroad: tuple[World, Headscale]) -> None:
    world, server = abroad
    ours, theirs = world.trenza("five", world.easy1), world.official("six", world.easy2)
    meet(server, ours, theirs)
    assert ours.ping("six", "--until-direct", "-c", "20")[-1].direct
    for target in theirs.addresses():
        reachable(ours.namespace, target)
    for target in ours.addresses():
        reachable(theirs.namespace, target)
    ours.cli("logout")
    wait_for("the official client sees that it has gone", lambda: not online(theirs.peer("five")))


def online(peer: dict[str, object]) -> bool:
    return bool(peer["Online"])
