"""A hard NAT whose router forwards a port on request (a real miniupnpd): the pair becomes direct."""

from __future__ import annotations

import pytest

from tests.lab.conftest import World
from tests.lab.net import Nat
from tests.lab.offers import EXIT, approve
from tests.lab.portmapping import PortMapper
from tests.lab.processes import wait_for
from tests.lab.test_exit_node import may_be_used
from tests.lab.test_paths import flows, introduce
from tests.lab.traffic import ping, reachable

pytestmark = [pytest.mark.root, pytest.mark.needs("miniupnpd")]


def forwarded(endpoints: list[str], public: str) -> str:
    """A node's first endpoint when it is one that its router forwards."""
    return endpoints[0] if endpoints and endpoints[0].startswith(f"{public}:") else ""


@pytest.mark.parametrize("protocol", ["pcp", "upnp"])
def test_a_forwarded_port_makes_a_hard_nat_direct_and_is_given_back(world: World, protocol: str) -> None:
    public = {"pcp": "11.77.0.9", "upnp": "11.77.0.10"}[protocol]
    helpful, other = world.lab.router(f"helpful-{protocol}", Nat.HARD), world.lab.router(f"easy-{protocol}")
    mapper = PortMapper(helpful, public, **{protocol: True}).start()
    mapper.known_to(other)
    lou, mia = world.trenza(f"lou-{protocol}", helpful), world.trenza(f"mia-{protocol}", other)
    world.join(lou)
    world.join(mia)
    first = wait_for("a port is forwarded", lambda: forwarded(lou.status()["Self"]["Addrs"], public))
    introduce(lou, mia)
    lou.ping(mia.name, "--until-direct", "-c", "20")
    # miniupnpd forwards the port whichever of the router's addresses was asked.
    assert mia.direct(lou.name).rpartition(":")[2] == first.rpartition(":")[2]
    assert lou.direct(mia.name).startswith(f"{other.namespace.address4}:")
    flows(lou, mia)
    if protocol == "pcp":
        report = lou.cli("netcheck").stdout
        assert "MappingVariesByDestIP: true" in report
        assert "NAT-PMP, PCP (" in report
        assert f"({public}:" in report
    assert "dport" in mapper.forwarded()
    lou.cli("down")
    assert "dport" not in mapper.forwarded()


def test_the_router_hears_us_while_an_exit_node_is_used(world: World) -> None:
    """By UPnP, of which each request could go astray into the tunnel; programs do not reach the router."""
    public = "11.77.0.11"
    helpful = world.lab.router("helpful-exit", Nat.HARD)
    mapper = PortMapper(helpful, public, upnp=True).start()
    out, lou = world.trenza("out-mapped", world.lab), world.trenza("lou-exit", helpful)
    world.join(out, "--advertise-exit-node")
    world.join(lou)
    approve(world, out, EXIT)
    may_be_used(lou, out.name)
    lou.cli("set", f"--exit-node={out.name}")
    reachable(lou.namespace, out.address())
    lou.cli("down")
    assert "dport" not in mapper.forwarded()
    lou.cli("up")
    wait_for("a port is forwarded", lambda: forwarded(lou.status()["Self"]["Addrs"], public))
    assert "dport" in mapper.forwarded()
    assert "UPnP" in lou.cli("netcheck").stdout
    reachable(lou.namespace, out.address())
    assert ping(lou.namespace, f"192.168.{helpful.number}.1", count=2).lost == 2
    lou.cli("down")
    assert "dport" not in mapper.forwarded()
