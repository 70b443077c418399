"""Subnet routers: networks that are offered, approved and accepted, and who is seen there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.internet import IN_VAIN_SECONDS, Mirror, asked_from, reaches
from tests.lab.net import LabError, Namespace
from tests.lab.node import Node
from tests.lab.offers import approve
from tests.lab.processes import wait_for
from tests.lab.test_exit_node import policy
from tests.lab.traffic import reachable

pytestmark = pytest.mark.root

NET4, NET6 = "10.50.0.0/24", "2001:db8:50::/64"
PRINTER4, PRINTER6 = "10.50.0.2", "2001:db8:50::2"
ROUTER4, ROUTER6 = "10.50.0.1", "2001:db8:50::1"


@pytest.fixture
def printer(world: World) -> Iterator[Namespace]:
    """A machine that is in no tailnet, on a network of its own."""
    made = world.lab.namespace(world.name())
    yield made
    world.lab.remove(made)


def plug(printer: Namespace, router: Namespace) -> None:
    """The router's other leg, to where the printer stands; to the printer it is the way to everywhere."""
    printer.ip(f"link add eth0 type veth peer name office netns {router.name}", "link set eth0 up")
    printer.ip(f"addr add {PRINTER4}/24 dev eth0", f"addr add {PRINTER6}/64 dev eth0 nodad")
    router.ip(
        "link set office up", f"addr add {ROUTER4}/24 dev office", f"addr add {ROUTER6}/64 dev office nodad"
    )
    printer.ip(f"route add default via {ROUTER4}", f"route add default via {ROUTER6}")


def sees(printer_address: str, node: Node, expected: str) -> None:
    wait_for(
        f"{node.name} is seen as {expected}", lambda: asked_from(node.namespace, printer_address) == expected
    )


def reaches_nothing(node: Node) -> None:
    for address in (PRINTER4, PRINTER6):
        with pytest.raises(LabError):
            asked_from(node.namespace, address, seconds=IN_VAIN_SECONDS)


def test_a_network_is_offered_approved_and_accepted(world: World, printer: Namespace) -> None:
    ron, amy = world.trenza("ron", world.easy2), world.trenza("amy", world.easy1)
    plug(printer, ron.namespace)
    world.join(amy)
    said = ron.up(world.server.url, f"--advertise-routes={NET4},{NET6}", auth_key=world.key)
    assert f"not approved yet: {NET4}, {NET6}" in said.stderr
    assert any("not approved yet" in text for text in ron.status()["Health"])
    approve(world, ron, NET4, NET6)
    wait_for("it is heard", lambda: not ron.status()["Health"])
    with Mirror(printer, PRINTER4, PRINTER6) as mirror:
        reaches_nothing(amy)
        amy.cli("set", "--accept-routes")
        sees(PRINTER4, amy, ROUTER4)
        sees(PRINTER6, amy, ROUTER6)
        ron.cli("set", "--snat-subnet-routes=false")
        sees(PRINTER4, amy, amy.address(4))
        sees(PRINTER6, amy, amy.address(6))
        # And the other way: who is behind the router reaches the tailnet.
        reachable(printer, amy.address(4))
        reachable(printer, amy.address(6))
        mirror.seen.clear()
        approve(world, ron, NET4, approved=False)
        wait_for("it is heard", lambda: NET4 not in amy.peer("ron").get("PrimaryRoutes", ()))
        # The tunnel follows what was heard a moment later.
        wait_for("it is lost", lambda: not reaches(amy.namespace, PRINTER4, seconds=IN_VAIN_SECONDS))
        sees(PRINTER6, amy, amy.address(6))
        amy.cli("set", "--accept-routes=false")
        reaches_nothing(amy)
    assert policy(amy.namespace) == ""


def test_the_longest_prefix_wins_and_ones_own_network_of_equals(world: World) -> None:
    """A router offers all of 192.168/16, and its own home network, which is also another's home network."""
    ben, ida = world.trenza("ben", world.easy2), world.trenza("ida", world.easy1)
    far, near = world.easy2.host("far"), world.easy1.host("near")
    home = f"192.168.{world.easy1.number}.0/24"
    world.join(ida, "--accept-routes")
    world.join(ben, f"--advertise-routes=192.168.0.0/16,{home}")
    approve(world, ben, "192.168.0.0/16", home)
    with Mirror(far, far.address4), Mirror(near, near.address4):
        wait_for("it is far", lambda: asked_from(ida.namespace, far.address4) == ben.namespace.address4)
        assert asked_from(ida.namespace, near.address4) == ida.namespace.address4
    for host in (far, near):
        world.lab.remove(host)


@pytest.mark.long
@pytest.mark.needs("tailscaled", "tailscale")
@pytest.mark.parametrize("ours", ["router", "guest"])
def test_routes_between_ours_and_official_clients(world: World, printer: Namespace, ours: str) -> None:
    make_router, make_guest = (
        (world.trenza, world.official) if ours == "router" else (world.official, world.trenza)
    )
    router, guest = make_router(f"rt-{ours}", world.easy2), make_guest(f"gs-{ours}", world.easy1)
    plug(printer, router.namespace)
    if ours == "guest":
        router.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    world.join(guest, "--accept-routes")
    world.join(router, f"--advertise-routes={NET4},{NET6}")
    approve(world, router, NET4, NET6)
    with Mirror(printer, PRINTER4, PRINTER6):
        sees(PRINTER4, guest, ROUTER4)
        sees(PRINTER6, guest, ROUTER6)
