"""Who uses an exit node asks it for names, too: over its PeerAPI, Trenza's clients and official ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.nameserver import NameServer, use_nameserver
from tests.lab.node import Node
from tests.lab.processes import wait_for
from tests.lab.test_exit_node import may_be_used
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

NAME, ADDRESS = "www.example.org", "203.0.113.80"


@pytest.fixture
def resolver(world: World) -> Iterator[NameServer]:
    """What the exit node's host is set up with, and nobody else."""
    host = world.lab.host(world.name())
    with NameServer(host, {NAME: ADDRESS}) as made:
        yield made
    world.lab.remove(host)


@pytest.fixture
def out(world: World, resolver: NameServer) -> TrenzaNode:
    """An approved exit node on the internet."""
    node = world.trenza(world.name(), world.lab, start=False)  # type: ignore[arg-type]
    use_nameserver(node.namespace, resolver.namespace.address4)
    node.start()
    world.join(node, "--advertise-exit-node")
    wait_for("it offers itself", lambda: world.server.approve_routes(node.name)["approved"])
    return node


def asks_through(node: Node, out: TrenzaNode, resolver: NameServer) -> None:
    """A name that only the exit node's resolver knows is found, and it is the exit node that asks there."""
    may_be_used(node, out.name)
    node.cli("set", f"--exit-node={out.name}")
    wait_for(
        f"{node.name} finds {NAME}", lambda: ADDRESS in node.cli("dns", "query", NAME, check=False).stdout
    )
    assert {asker for name, asker in resolver.asked if name == NAME} == {out.namespace.address4}


def test_a_trenza_client_asks_through_the_exit_node(
    world: World, out: TrenzaNode, resolver: NameServer
) -> None:
    node = world.trenza(world.name(), world.easy1)
    world.join(node)
    asks_through(node, out, resolver)


@pytest.mark.needs("tailscaled", "tailscale")
def test_an_official_client_asks_through_the_exit_node(
    world: World, out: TrenzaNode, resolver: NameServer
) -> None:
    node = world.official(world.name(), world.easy1)
    world.join(node)
    asks_through(node, out, resolver)
