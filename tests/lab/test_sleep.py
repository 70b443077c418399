"""A machine sleeps while a peer is revoked, which keeps its own WireGuard as it was, and cheats."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.lab.conftest import World
from tests.lab.processes import wait_for
from tests.lab.test_faults import RATE, direct_pair
from tests.lab.traffic import Ping, ping
from tests.lab.trenza import TrenzaNode

pytestmark = [pytest.mark.root, pytest.mark.long]

# Longer than a sleep has to be for the tunnel to be held, and than the server keeps a silent connection;
# shorter than a session of WireGuard's lives, so that no handshake is needed for the next packet.
ASLEEP_SECONDS = 85.0


def sleep_through_a_revocation(world: World, ivy: TrenzaNode, jon: TrenzaNode) -> int:
    """How many packets get through to the revoked peer after waking."""
    address, owner = jon.address(), world.server.person(world.desk)
    node_id = world.server.nodes()[jon.name]["nodeId"]
    asleep = [pid for pid in (ivy.daemon.pid, ivy.wireguard_pid()) if pid is not None]
    assert ping(ivy.namespace, address).lost == 0
    os.kill(jon.daemon.pid, signal.SIGSTOP)
    if ivy.name.startswith("told"):
        ivy.cli("debug", "sleep", "pre")
    for pid in asleep:
        os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    owner.act(node_id, "delete")
    time.sleep(max(0.0, ASLEEP_SECONDS - (time.monotonic() - began)))
    for pid in asleep:
        os.kill(pid, signal.SIGCONT)
    attempts = Ping(ivy.namespace, address, count=100, interval=RATE)
    wait_for("it knows better", lambda: not ivy.knows(jon.name), seconds=60)
    received = attempts.result().received
    os.kill(jon.daemon.pid, signal.SIGCONT)
    return received


def test_nobody_who_was_revoked_is_sent_anything_after_an_announced_sleep(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    ivy, jon = direct_pair(world, "told", "toldjon")
    kim = world.trenza("toldkim", world.easy2)
    world.join(kim)
    received = sleep_through_a_revocation(world, ivy, jon)
    with capsys.disabled():
        print(f"\nF16: {received} packets to a revoked peer after {ASLEEP_SECONDS:.0f} s of announced sleep")
    assert received == 0
    wait_for("others are reached", lambda: ping(ivy.namespace, kim.address(), count=1).received)


def test_a_sleep_that_nobody_announced_is_noticed_at_once(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is sent in the moment until then cannot be taken back; it ends before the server is heard."""
    ivy, jon = direct_pair(world, "untold", "untoldjon")
    received = sleep_through_a_revocation(world, ivy, jon)
    with capsys.disabled():
        print(f"\nF16: {received} packets to a revoked peer after {ASLEEP_SECONDS:.0f} s of sudden sleep")
    assert "trenza-held" not in ivy.namespace.run("nft", "list", "tables").stdout
    assert ping(ivy.namespace, jon.address(), count=3).received == 0


def test_a_server_that_is_away_holds_nobody_up_for_long(world: World) -> None:
    ivy, jon = direct_pair(world, "held", "heldjon")
    ivy.cli("debug", "sleep", "pre")
    assert ping(ivy.namespace, jon.address(), count=2).received == 0
    world.server.kill_web()
    ivy.cli("debug", "sleep", "post")
    wait_for("it is opened", lambda: ping(ivy.namespace, jon.address(), count=1).received, seconds=15)
    world.server.start()
    ivy.wait_connected()
    ivy.cli("debug", "sleep", "pre")
    ivy.cli("debug", "sleep", "post")
    wait_for("the server's word opens it", lambda: ping(ivy.namespace, jon.address(), count=1).received)
