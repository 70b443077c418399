"""A key is replaced while traffic runs, by command, by the panel; two machines with one identity."""

from __future__ import annotations

import shutil
import time

import pytest

from tests.lab.conftest import World
from tests.lab.processes import wait_for
from tests.lab.test_faults import direct_pair, relayed_pair
from tests.lab.test_paths import flows, introduce
from tests.lab.traffic import Iperf, reachable
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

MAX_GAP = 1.0  # seconds
FLAGGED_SECONDS = 60.0
MAX_PUSHES_A_MINUTE = 2
LOOK_SECONDS = 20.0


# --- new keys --------------------------------------------------------------------------------------------


@pytest.mark.needs("iperf3")
@pytest.mark.parametrize("kind", ["direct", "relayed"])
def test_traffic_stands_still_for_less_than_a_second(
    world: World, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The panel's button for one, the command for the other: no connection breaks."""
    make = direct_pair if kind == "direct" else relayed_pair
    ada, ben = make(world, f"ada8{kind}", f"ben8{kind}")
    owner = world.server.person(world.desk)
    keys = [node.status()["Self"]["PublicKey"] for node in (ada, ben)]
    page = owner.open(f"/devices/{world.server.nodes()[ada.name]['nodeId']}")
    load = Iperf(ada.namespace, ben.namespace, ben.address(), seconds=12, every=0.1)
    wait_for("it has begun", lambda: load.seconds_left() < 10)
    assert owner.press(page, "/rotate-key").status == 200
    wait_for("it goes on", lambda: load.seconds_left() < 5, seconds=30)
    ben.cli("debug", "rotate-keys")
    result = load.result()  # raises when the connection was reset
    with capsys.disabled():
        print(f"\nrotation, {kind}: gap {result.gap:.1f} s at {result.received:.0f} Mbit/s")
    assert result.gap <= MAX_GAP
    assert [node.status()["Self"]["PublicKey"] for node in (ada, ben)] != keys
    assert all(node.status()["Self"]["PublicKey"] not in keys for node in (ada, ben))
    flows(ada, ben)


# --- clones ----------------------------------------------------------------------------------------------


def clone(world: World, original: TrenzaNode, name: str) -> TrenzaNode:
    """Another machine with a copy of this one's state folder."""
    copy = world.trenza(name, world.easy2, start=False)
    shutil.copytree(original.state_folder, copy.state_folder)
    return copy


def is_cloned(world: World, name: str) -> bool:
    rows = world.server.look("SELECT cloned_at FROM nodes_node WHERE name = ?", name)
    return bool(rows and rows[0][0])


def pushes_about(watcher: TrenzaNode, name: str, seconds: float) -> int:
    """How often a peer's facts change for ``watcher`` in this time, seen ten times a second."""
    seen, changes = None, -1
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        peer = watcher.peer(name)
        facts = (peer["Addrs"], peer["Online"], peer["Relay"], peer["PublicKey"])
        if facts != seen:
            seen, changes = facts, changes + 1
        time.sleep(0.1)
    return changes


def test_a_copied_machine_is_flagged_and_does_not_fight(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    original, watcher = direct_pair(world, "orig", "watch")
    copy = clone(world, original, "copy")
    owner = world.server.person(world.desk)
    began = time.monotonic()
    copy.start()
    copy.wait_state("Running")
    wait_for("it is flagged", lambda: is_cloned(world, "orig"), seconds=FLAGGED_SECONDS)
    flagged = time.monotonic() - began
    for node in (original, copy):
        wait_for(
            f"{node.name} says it",
            lambda node=node: any("another machine uses" in text for text in node.status()["Health"]),
        )
        assert "another machine uses" in node.cli("status").stdout
    changes = pushes_about(watcher, "orig", LOOK_SECONDS)
    with capsys.disabled():
        print(f"\nclone: flagged after {flagged:.1f} s; {changes} changes for a peer in {LOOK_SECONDS:.0f} s")
    assert changes <= MAX_PUSHES_A_MINUTE
    (event,) = world.server.look("SELECT details FROM accounts_auditevent WHERE action = 'CLONE'")
    assert "(orig)" in event[0]
    node_id = world.server.nodes()["orig"]["nodeId"]
    assert world.server.nodes()["orig"]["multipleConnections"] is True
    assert "Two machines use this device" in owner.open(f"/devices/{node_id}").text
    assert "Cloned" in owner.open("/devices").text
    reachable(watcher.namespace, original.address(), seconds=30)
    copy.stop()
    introduce(original, watcher)
    reachable(watcher.namespace, original.address(), seconds=30)
