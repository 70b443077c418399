"""The powers that the systemd unit leaves to trenzad suffice for its work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.lab.conftest import World
from tests.lab.processes import CHECKOUT, wait_for
from tests.lab.test_paths import flows, introduce
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

UNIT = CHECKOUT / "deploy" / "systemd" / "trenzad.service"
BOUND = re.compile(r"^CapabilityBoundingSet=(.+)$", re.MULTILINE)
NOBODY = 65534
FORWARDS = "/proc/sys/net/ipv4/ip_forward"


def closed(world: World, name: str) -> TrenzaNode:
    """A daemon that is root as under the unit: with its capabilities alone, and no way to more."""
    found = BOUND.search(UNIT.read_text())
    assert found is not None
    powers = ",".join(f"+{one.lower().removeprefix('cap_')}" for one in found[1].split())
    node = world.trenza(name, world.easy1, start=False)
    prefix = ("setpriv", f"--bounding-set=-all,{powers}", "--inh-caps=-all", "--no-new-privs")
    node.daemon.command = [*prefix, *node.daemon.command]
    return node.start()


def test_a_daemon_with_the_units_capabilities_does_all_its_work(world: World) -> None:
    uma, vin = closed(world, "uma"), world.trenza("vin", world.easy2)
    world.join(uma, "--advertise-exit-node", "--operator=nobody")
    world.join(vin)
    introduce(uma, vin)
    uma.ping("vin", "--until-direct", "-c", "20")
    flows(uma, vin)
    wait_for("its offer arrives", lambda: world.server.approve_routes("uma")["approved"])
    wait_for("it forwards", lambda: uma.namespace.run("cat", FORWARDS).stdout.strip() == "1")
    assert Path(uma.socket).stat().st_uid == NOBODY
    log = uma.daemon.tail()
    assert "cannot enlarge" not in log
    assert "not permitted" not in log.lower()
    uma.stop()
    assert uma.wireguard_pid() is None
