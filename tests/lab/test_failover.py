"""Two routers of one network: when the one that carries it dies or falls silent, the other takes over."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.internet import Mirror, asked_from
from tests.lab.net import LabError, Namespace
from tests.lab.node import Node
from tests.lab.processes import PATIENCE, wait_for
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

NET4, PRINTER4 = "10.51.0.0/24", "10.51.0.2"
LEGS = ("10.51.0.11", "10.51.0.12")  # of the routers, on the printer's network
TAKE_OVER_SECONDS = 15.0


@pytest.fixture
def printer(world: World) -> Iterator[Namespace]:
    """A machine that is in no tailnet, on a network that has two routers."""
    made = world.lab.namespace(world.name())
    made.ip("link add lan type bridge", f"addr add {PRINTER4}/24 dev lan", "link set lan up")
    yield made
    world.lab.remove(made)


def plug(printer: Namespace, router: Namespace, leg: str) -> None:
    port = f"p{leg.rpartition('.')[2]}"
    printer.ip(
        f"link add {port} type veth peer name office netns {router.name}",
        f"link set {port} master lan",
        f"link set {port} up",
    )
    router.ip("link set office up", f"addr add {leg}/24 dev office")


def carried_by(guest: Node, leg: str) -> bool:
    """Whether the printer sees the guest come through this router."""
    return asked_from(guest.namespace, PRINTER4) == leg


def carrier(guest: Node) -> int:
    """Which of the routers carries the network now, by who the printer sees."""
    return LEGS.index(wait_for("the printer answers", lambda: asked_from(guest.namespace, PRINTER4)))


def taken_over(guest: Node, leg: str, since: float) -> float:
    """Seconds from ``since`` until the printer answers through this router; at most 15."""
    wait_for(f"{leg} takes over", lambda: carried_by(guest, leg), seconds=2 * TAKE_OVER_SECONDS)
    took = time.monotonic() - since
    assert took < TAKE_OVER_SECONDS * PATIENCE
    return took


def stays_with(guest: Node, leg: str, times: int = 10) -> None:
    for _ in range(times):
        assert carried_by(guest, leg), "nothing moves back"
        time.sleep(0.1)


def two_routers(world: World, printer: Namespace, make: str) -> tuple[list[Node], Node]:
    """Routers of the printer's network behind two NATs, both approved, and a guest behind a third one."""
    routers: list[Node] = []
    for number, (leg, place) in enumerate(zip(LEGS, (world.easy1, world.easy2), strict=True)):
        node: Node = getattr(world, make)(f"{make}-r{number}", place)
        plug(printer, node.namespace, leg)
        if make == "official":
            node.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        world.join(node, f"--advertise-routes={NET4}")
        wait_for("the offer arrives", lambda name=node.name: world.server.approve_routes(name)["approved"])
        routers.append(node)
    guest = getattr(world, make)(f"{make}-guest", world.hard)
    world.join(guest, "--accept-routes")
    return routers, guest


def online_again(guest: Node, router: Node) -> None:
    wait_for("the guest sees it again", lambda: guest.peer(router.name)["Online"])


def test_another_router_takes_over_within_15_s_and_keeps_the_network(
    world: World, printer: Namespace
) -> None:
    routers, guest = two_routers(world, printer, "trenza")
    with Mirror(printer, PRINTER4):
        first = carrier(guest)
        dead, other = routers[first], routers[1 - first]
        assert isinstance(dead, TrenzaNode)
        since = time.monotonic()
        dead.daemon.kill()
        dead.namespace.run("kill", "-9", str(dead.wireguard_pid()))
        killed = taken_over(guest, LEGS[1 - first], since)
        dead.start()
        online_again(guest, dead)
        stays_with(guest, LEGS[1 - first])

        since = time.monotonic()
        other.namespace.ip("link set eth0 down")  # it says nothing to anybody
        cut = taken_over(guest, LEGS[first], since)
        other.namespace.ip("link set eth0 up")
    print(f"another router carried the network {killed:.1f} s after a kill, {cut:.1f} s after a cut")


@pytest.mark.long
@pytest.mark.needs("tailscaled", "tailscale")
def test_official_routers_and_guests_follow(world: World, printer: Namespace) -> None:
    routers, guest = two_routers(world, printer, "official")
    with Mirror(printer, PRINTER4):
        first = carrier(guest)
        since = time.monotonic()
        routers[first].stop()
        taken_over(guest, LEGS[1 - first], since)
        with pytest.raises(LabError):
            wait_for("it moves back", lambda: carried_by(guest, LEGS[first]), seconds=3.0)
