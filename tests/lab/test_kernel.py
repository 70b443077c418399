"""The same client on the kernel's own WireGuard. Where the host has none: ``make test-kernel`` (QEMU)."""

from __future__ import annotations

import time

import pytest

from tests.lab.conftest import World
from tests.lab.net import PATIENCE, Namespace
from tests.lab.processes import wait_for
from tests.lab.test_faults import MAX_LOST_IN_ROTATION, RATE, direct_pair
from tests.lab.test_paths import flows, introduce
from tests.lab.traffic import Iperf, Ping, ping
from tests.lab.trenza import TUN, TrenzaNode

pytestmark = [pytest.mark.root, pytest.mark.long, pytest.mark.needs("kernel-wireguard", "iperf3")]

LOAD_SECONDS = int(4 * PATIENCE)
LOSS_PERCENT = 5
LOSS_PINGS = 400
LOSS_INTERVAL = 0.05


def in_kernel(node: TrenzaNode) -> bool:
    """Whether the node's interface is the kernel's WireGuard, and no program's."""
    link = node.namespace.run("ip", "-details", "link", "show", TUN).stdout
    return " wireguard " in f"{link} ".replace("\n", " ") and node.wireguard_pid() is None


def test_a_tunnel_under_load_both_ways_flips_to_direct_and_stays(world: World) -> None:
    """WireGuard's own roaming would lead it back to the relay as soon as traffic runs both ways."""
    ada, ben = world.trenza("kada1", world.easy1), world.trenza("kben1", world.easy2)
    for node in (ada, ben):
        world.join(node)
        assert in_kernel(node)
    introduce(ada, ben)
    there = Iperf(ada.namespace, ben.namespace, ben.address(), seconds=LOAD_SECONDS)
    back = Iperf(ben.namespace, ada.namespace, ada.address(), seconds=LOAD_SECONDS)
    assert ada.direct(ben.name).startswith(world.easy2.namespace.address4)
    assert ben.direct(ada.name).startswith(world.easy1.namespace.address4)
    while min(there.seconds_left(), back.seconds_left()) > 1:
        assert ada.peer(ben.name)["CurAddr"]
        assert ben.peer(ada.name)["CurAddr"]
        time.sleep(0.5)
    assert min(there.result().received, back.result().received) > 0
    flows(ada, ben)


def test_a_killed_daemon_leaves_the_tunnel_and_the_next_takes_it_over(world: World) -> None:
    ada, ben = direct_pair(world, "kada2", "kben2")
    before, key = ada.addresses(), ada.status()["Self"]["PublicKey"]
    pings = Ping(ben.namespace, ada.address(), count=int(60 * PATIENCE), interval=RATE)
    ada.daemon.kill()
    ada.start()
    ada.wait_state("Running")
    assert pings.result().lost == 0
    assert in_kernel(ada)
    assert (ada.addresses(), ada.status()["Self"]["PublicKey"]) == (before, key)
    assert ada.direct(ben.name)
    flows(ada, ben)


def test_a_stopped_daemon_removes_its_interface(world: World) -> None:
    ada = world.trenza("kada3", world.easy1)
    world.join(ada)
    ada.stop()
    assert TUN not in ada.namespace.run("ip", "-br", "link").stdout
    assert ada.namespace.run("nft", "list", "ruleset").stdout.strip() == ""


def test_an_interface_removed_by_hand_is_made_anew(world: World) -> None:
    ada, ben = direct_pair(world, "kada4", "kben4")
    ada.namespace.ip(f"link del {TUN}")
    wait_for("the interface is there again", lambda: TUN in ada.namespace.run("ip", "-br", "link").stdout)
    ada.wait_state("Running")
    flows(ada, ben)


def test_rotation_keeps_identity_and_nearly_every_packet(world: World) -> None:
    ada, ben = direct_pair(world, "kada5", "kben5")
    before, key = ada.addresses(), ada.status()["Self"]["PublicKey"]
    pings = Ping(ben.namespace, ada.address(), count=int(60 * PATIENCE), interval=RATE)
    ada.cli("debug", "rotate-keys")
    wait_for("the key has changed", lambda: ada.status()["Self"]["PublicKey"] != key)
    # A rotation waits for the other side's daemon, which is slower here; the packets are not.
    assert pings.result().lost <= MAX_LOST_IN_ROTATION * PATIENCE
    assert ada.addresses() == before
    assert in_kernel(ada)
    flows(ada, ben)


def lossy(namespace: Namespace, *interfaces: str) -> None:
    """Each of these loses packets on its way out."""
    for interface in interfaces:
        namespace.run("tc", "qdisc", "add", "dev", interface, "root", "netem", "loss", f"{LOSS_PERCENT}%")


def lossless(namespace: Namespace, *interfaces: str) -> None:
    for interface in interfaces:
        namespace.run("tc", "qdisc", "del", "dev", interface, "root", check=False)


def test_loss_on_the_way_is_no_more_inside_the_tunnel_and_the_path_stays(world: World) -> None:
    router = world.easy1.namespace
    ada, ben = direct_pair(world, "kada6", "kben6")
    try:
        lossy(router, "wan", "lan")
        counts = ping(ada.namespace, ben.address(), count=LOSS_PINGS, interval=LOSS_INTERVAL)
        delivered = (1 - LOSS_PERCENT / 100) ** 2
        spread = 3 * (delivered * (1 - delivered) / LOSS_PINGS) ** 0.5  # of a fair sample
        assert counts.received / counts.sent >= delivered - 0.01 - spread
        assert ada.peer(ben.name)["CurAddr"]
        assert ben.peer(ada.name)["CurAddr"]
    finally:
        lossless(router, "wan", "lan")
    flows(ada, ben)
