"""Names on a host whose programs ask systemd-resolved."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.nameserver import NameServer, address_of
from tests.lab.processes import wait_for
from tests.lab.resolved import STUB, Resolved, private_etc

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.needs("systemd-resolved")]

SUFFIX = "default.tailnet.internal"
OUTSIDE = "203.0.113.82"


@pytest.fixture(scope="module")
def uplink(lasting_world: World) -> Iterator[NameServer]:
    with NameServer(lasting_world.lab.host("uplink"), {"www.example.com": OUTSIDE}) as server:
        yield server


def test_resolved_asks_us_for_the_tailnet_and_others_for_the_rest(world: World, uplink: NameServer) -> None:
    node, other = (
        world.trenza(world.name(), world.easy1, start=False),
        world.trenza(world.name(), world.easy2),
    )
    world.join(other)
    host = node.namespace
    private = dict(node.private) | {"/etc": private_etc(host)}
    node.private = node.daemon.private = private
    resolved = Resolved(host, private)
    resolved.start()
    resolved.ctl("dns", "eth0", uplink.namespace.address4)
    resolved.ctl("default-route", "eth0", "yes")
    node.daemon.environment = dict(node.daemon.environment) | {"PATH": resolved.path}
    node.start()
    world.join(node)

    def found(name: str) -> str:
        return address_of(host, name, private)

    full = f"{other.name}.{SUFFIX}"
    wait_for("names of the tailnet are found", lambda: found(full) == other.address())
    uplink.asked.clear()
    assert found(other.name) == other.address()  # by the search domain
    assert found("www.example.com") == OUTSIDE
    assert not any(SUFFIX in name for name, _ in uplink.asked)
    assert os.readlink(private["/etc"] / "resolv.conf") == STUB
    assert "systemd-resolved" in node.cli("dns", "status").stdout
    assert "no" in resolved.ctl("default-route", "trenza0").stdout.split()

    resolved.ctl("revert", "trenza0")  # somebody's slip, or resolved started anew
    wait_for("it is told again", lambda: found(full) == other.address())

    node.cli("down")
    assert found(full) == ""
    assert found("www.example.com") == OUTSIDE
    assert "100.100.100.100" not in resolved.ctl("dns").stdout
