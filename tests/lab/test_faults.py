"""What may die without a packet lost: the server, the daemon, a key; and what comes back."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.lab.conftest import World
from tests.lab.processes import wait_for
from tests.lab.test_paths import flows, introduce
from tests.lab.traffic import Iperf, Ping, ping, reachable
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

RATE = 0.1  # seconds between pings
MAX_LOST_IN_ROTATION = 3
RELAYED_BACK_SECONDS = 5.0


def direct_pair(world: World, first: str, second: str) -> tuple[TrenzaNode, TrenzaNode]:
    """Two joined nodes behind easy NATs, with a direct path."""
    one, other = world.trenza(first, world.easy1), world.trenza(second, world.easy2)
    world.join(one)
    world.join(other)
    introduce(one, other)
    one.ping(second, "--until-direct", "-c", "20")
    one.direct(second)
    other.direct(first)
    return one, other


def relayed_pair(world: World, first: str, second: str) -> tuple[TrenzaNode, TrenzaNode]:
    """Two joined nodes, the first without UDP."""
    one, other = world.trenza(first, world.blocked), world.trenza(second, world.easy1)
    world.join(one)
    world.join(other)
    introduce(one, other)
    reachable(other.namespace, one.address())
    return one, other


# --- the daemon ------------------------------------------------------------------------------------------


def test_a_killed_daemon_costs_a_direct_tunnel_nothing(world: World) -> None:
    ada, ben = direct_pair(world, "ada1", "ben1")
    before, key = ada.addresses(), ada.status()["Self"]["PublicKey"]
    pings = Ping(ben.namespace, ada.address(), count=80, interval=RATE)
    load = Iperf(ada.namespace, ben.namespace, ben.address(), seconds=6)
    wireguard = ada.wireguard_pid()
    ada.daemon.kill()
    wait_for("seconds without a daemon have passed", lambda: load.seconds_left() < 4)
    ada.start()
    ada.wait_state("Running")
    assert load.result().stalled == 0
    assert pings.result().lost == 0
    assert ada.wireguard_pid() == wireguard
    assert (ada.addresses(), ada.status()["Self"]["PublicKey"]) == (before, key)
    ada.wait_connected()
    assert ada.direct("ben1")
    flows(ada, ben)


def test_a_killed_daemon_is_back_on_the_relay_within_seconds(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is relayed needs the daemon; the filter and the addresses stay as they were while it is away."""
    cem, dan = relayed_pair(world, "cem1", "dan1")

    def host() -> tuple[str, str]:
        rules = cem.namespace.run("nft", "list", "ruleset").stdout
        return rules, cem.namespace.run("ip", "-br", "addr").stdout

    before = host()
    cem.daemon.kill()
    assert host() == before
    cem.start()
    began = time.monotonic()
    reachable(dan.namespace, cem.address(), seconds=RELAYED_BACK_SECONDS * 4)
    took = time.monotonic() - began
    cem.wait_state("Running")
    with capsys.disabled():
        print(f"\nF3: relayed again {took:.1f} s after the daemon was back")
    assert took <= RELAYED_BACK_SECONDS
    assert host() == before
    flows(cem, dan)


def test_a_second_daemon_is_refused_at_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    ada = world.trenza("ada1b", world.easy1)
    began = time.monotonic()
    refused = ada.daemon_refused()
    took = time.monotonic() - began
    with capsys.disabled():
        print(f"\nF18: a second daemon ended after {took:.1f} s")
    assert refused.returncode == 1
    assert "another trenzad already runs" in refused.stderr
    assert ada.state == "NeedsLogin"


def test_a_daemon_restarts_onto_its_tunnel_with_the_server_down(world: World) -> None:
    ada, ben = direct_pair(world, "ada2", "ben2")
    before = ada.addresses()
    pings = Ping(ben.namespace, ada.address(), count=80, interval=RATE)
    world.server.kill_web()
    ada.daemon.kill()
    ada.start()
    ada.wait_state("Running")
    assert ada.addresses() == before
    assert not ada.status()["Control"]["Connected"]
    assert ada.knows("ben2")
    assert pings.result().lost == 0
    assert ping(ada.namespace, ben.address()).lost == 0
    world.server.start()
    ada.wait_connected()
    assert world.server.nodes()["ada2"]["addresses"][0] == before[0]


def test_a_stopped_daemon_takes_its_tunnel_away_and_returns_as_itself(world: World) -> None:
    ada, ben = direct_pair(world, "ada3", "ben3")
    before = ada.addresses()
    ada.stop()
    assert "trenza0" not in ada.namespace.run("ip", "-br", "link").stdout
    assert ada.namespace.run("nft", "list", "ruleset").stdout.strip() == ""
    assert ada.wireguard_pid() is None
    ben.sees("ada3", online=False)
    ada.start()
    ada.wait_state("Running")
    assert ada.addresses() == before
    introduce(ada, ben)
    flows(ada, ben)


def test_a_killed_wireguard_is_made_anew(world: World) -> None:
    ada, ben = direct_pair(world, "ada0", "ben0")
    wireguard = ada.wireguard_pid()
    if wireguard is None:
        pytest.skip("the kernel's WireGuard is no process")
    os.kill(wireguard, signal.SIGKILL)
    reachable(ben.namespace, ada.address())
    assert ada.wireguard_pid() not in (None, wireguard)
    flows(ada, ben)


# --- the server ------------------------------------------------------------------------------------------


def outlive(world: World, *, seconds: int, tag: str) -> None:
    """Kill parent and workers for ``seconds``: neither a direct nor a relayed tunnel loses a packet."""
    ada, ben = direct_pair(world, f"ada{tag}", f"ben{tag}")
    cem, dan = relayed_pair(world, f"cem{tag}", f"dan{tag}")
    relay = world.server.relay_pid()
    count = int(seconds / RATE)
    direct = Ping(ada.namespace, ben.address(), count=count, interval=RATE)
    relayed = Ping(dan.namespace, cem.address(), count=count, interval=RATE)
    world.server.kill_web()
    assert direct.result().lost == 0
    assert relayed.result().lost == 0
    assert not world.server.answers()
    assert world.server.relay_pid() == relay
    world.server.start()
    assert world.server.relay_pid() == relay
    for node in (ada, ben, cem, dan):
        node.wait_connected()
    flows(ada, ben)
    flows(cem, dan)
    late = world.trenza(f"eva{tag}", world.easy2)
    world.join(late)
    ada.sees(late.name)


def test_a_killed_server_costs_no_tunnel_anything(world: World) -> None:
    outlive(world, seconds=5, tag="4")


@pytest.mark.long
def test_a_server_dead_for_long_costs_no_tunnel_anything(world: World) -> None:
    outlive(world, seconds=30, tag="5")


def test_a_killed_relay_returns_and_leaves_the_web_server_alone(world: World) -> None:
    cem, dan = relayed_pair(world, "cem6", "dan6")
    relay, web = world.server.relay_pid(), world.server.web_pids()
    world.server.kill_relay()
    wait_for("another relay", lambda: world.server.relay_pid() not in (None, relay), seconds=10)
    reachable(dan.namespace, cem.address(), seconds=20)
    assert world.server.web_pids() == web


# --- keys ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["direct", "relayed"])
def test_rotation_by_command_keeps_identity_and_nearly_every_packet(world: World, kind: str) -> None:
    make = direct_pair if kind == "direct" else relayed_pair
    ada, ben = make(world, f"ada7{kind}", f"ben7{kind}")
    before, device = ada.status()["Self"], world.server.nodes()[ada.name]
    pings = [
        Ping(ben.namespace, ada.address(), count=40, interval=RATE),
        Ping(ada.namespace, ben.address(6), count=40, interval=RATE),
    ]
    said = ada.cli("debug", "rotate-keys").stdout
    losses = [one.result().lost for one in pings]
    assert max(losses) <= MAX_LOST_IN_ROTATION
    after = ada.status()["Self"]
    assert after["PublicKey"] != before["PublicKey"]
    assert after["PublicKey"] in said
    assert [after[name] for name in ("ID", "TailscaleIPs", "KeyExpiry")] == [
        before[name] for name in ("ID", "TailscaleIPs", "KeyExpiry")
    ]
    now = world.server.nodes()[ada.name]
    assert now["nodeKey"] == after["PublicKey"]
    assert (now["nodeId"], now["addresses"]) == (device["nodeId"], device["addresses"])
    flows(ada, ben)
