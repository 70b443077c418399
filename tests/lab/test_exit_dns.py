"""Names while an exit node is in use: who is asked, and by whom; the network around hears nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.internet import Watch
from tests.lab.nameserver import NameServer, address_of, resolv_conf, use_nameserver
from tests.lab.offers import EXIT, approve
from tests.lab.processes import wait_for
from tests.lab.test_exit_node import may_be_used
from tests.lab.traffic import reachable
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

SITE = "203.0.113.44"


@pytest.fixture(scope="module")
def provider(lasting_world: World) -> Iterator[NameServer]:
    """A resolver that both the host's network and the exit node's offer."""
    with NameServer(lasting_world.lab.host("isp"), {f"w{n}.example.org": SITE for n in range(100)}) as server:
        yield server


@pytest.fixture
def watched(world: World) -> Iterator[list[Watch]]:
    made: list[Watch] = []
    yield made
    for one in made:
        one.clear()


def with_resolver(node: TrenzaNode, provider: NameServer) -> TrenzaNode:
    use_nameserver(node.namespace, provider.namespace.address4)
    return node.start()


def askers(provider: NameServer, name: str) -> set[str]:
    return {address for asked, address in provider.asked if asked == name}


def test_names_are_asked_by_the_exit_node_and_by_nobody_here(
    world: World, provider: NameServer, watched: list[Watch]
) -> None:
    out = with_resolver(world.trenza("outdns", world.lab, start=False), provider)  # type: ignore[arg-type]
    guy = with_resolver(world.trenza("guy", world.six1, start=False), provider)
    world.join(out, "--advertise-exit-node")
    world.join(guy)
    approve(world, out, EXIT)
    wait_for("DNS is led to trenzad", lambda: "100.100.100.100" in resolv_conf(guy.namespace))
    wait_for("names are found", lambda: address_of(guy.namespace, "w0.example.org") == SITE)
    assert askers(provider, "w0.example.org") == {world.six1.namespace.address4}

    may_be_used(guy, "outdns")
    guy.cli("set", "--exit-node=outdns")
    reachable(guy.namespace, out.address())
    watched.append(Watch(world.six1, guy.namespace))
    wait_for("names are found", lambda: address_of(guy.namespace, "w1.example.org") == SITE)
    assert askers(provider, "w1.example.org") == {out.namespace.address4}
    assert watched[0].counts() == (0, 0)

    out.stop()  # nobody answers any more, and nobody else is asked
    assert address_of(guy.namespace, "w2.example.org") == ""
    assert askers(provider, "w2.example.org") == set()
    assert watched[0].counts() == (0, 0)

    guy.cli("set", "--exit-node=")
    wait_for("names are found", lambda: address_of(guy.namespace, "w3.example.org") == SITE)
    assert askers(provider, "w3.example.org") == {world.six1.namespace.address4}
