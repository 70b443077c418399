"""Two real data planes in namespaces: WireGuard, the shared port, the relay, and the way between them."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from client.engine.wireguard_go import WireguardGoEngine
from tests.client.magicsock.planes import STUN_PORT, Plane, PlaneError, Relay
from tests.lab.net import Lab, Namespace
from tests.lab.processes import wait_for
from tests.lab.traffic import Ping, ping, reachable

pytestmark = [pytest.mark.root, pytest.mark.needs("iperf3", "wireguard-go")]

CUT = """table inet cut {
  chain input { type filter hook input priority 0; iifname "eth0" udp dport 41641 drop; }
}
"""
LOOKS = 12
SETTLING = 3


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


@pytest.fixture(scope="module")
def relay(lab: Lab) -> Relay:
    return Relay(lab.host("relay")).start()


@pytest.fixture(scope="module")
def hosts(lab: Lab) -> tuple[Namespace, Namespace]:
    return lab.host("a"), lab.host("b")


@pytest.fixture
def pair(hosts: tuple[Namespace, Namespace]) -> Iterator[tuple[Plane, Plane]]:
    """Two nodes, not started."""
    pair = Plane(hosts[0], 1), Plane(hosts[1], 2)
    yield pair
    for plane in pair:
        plane.close()
        plane.namespace.kill_all()
        plane.uapi_socket.unlink(missing_ok=True)


def relayed(pair: tuple[Plane, Plane], relay: Relay) -> tuple[Plane, Plane]:
    a, b = pair
    a.start(b, relay)
    b.start(a, relay)
    reachable(a.namespace, b.inner4)
    return pair


def directly(pair: tuple[Plane, Plane]) -> tuple[Plane, Plane]:
    a, b = pair
    a.start(b)
    b.start(a)
    a.ask("direct", *b.endpoint)
    b.ask("direct", *a.endpoint)
    reachable(a.namespace, b.inner4)
    return pair


def endpoint(plane: Plane) -> tuple[str, int]:
    host, port = plane.ask("status")["endpoint"]
    return host, port


def on_relay(plane: Plane) -> bool:
    return endpoint(plane)[0] == "127.0.0.1"


def test_two_engines_talk_over_both_families(pair: tuple[Plane, Plane]) -> None:
    a, b = directly(pair)
    assert ping(a.namespace, b.inner4, count=20, interval=0.02).lost == 0
    assert ping(b.namespace, a.inner6, count=20, interval=0.02).lost == 0
    a.ask("direct", *b.endpoint6)
    b.ask("direct", *a.endpoint6)
    assert ping(a.namespace, b.inner4, count=20, interval=0.02).lost == 0
    assert endpoint(a) == b.endpoint6


def test_stun_is_answered_on_wireguards_port_while_a_tunnel_runs(
    pair: tuple[Plane, Plane], relay: Relay
) -> None:
    a, b = directly(pair)
    flood = Ping(a.namespace, b.inner4, count=100, interval=0.01)
    for _ in range(5):
        assert a.ask("stun", relay.address, STUN_PORT) == [a.namespace.address4, a.port]
    assert flood.result().lost == 0


def test_the_relay_carries_a_tunnel(pair: tuple[Plane, Plane], relay: Relay) -> None:
    a, b = relayed(pair, relay)
    assert ping(a.namespace, b.inner4, count=50, interval=0.02).lost == 0
    assert ping(b.namespace, a.inner6, count=50, interval=0.02).lost == 0
    assert on_relay(a)
    assert on_relay(b)


@pytest.mark.parametrize("family", ["endpoint", "endpoint6"])
def test_going_direct_under_load_does_not_snap_back_and_going_back_works(
    pair: tuple[Plane, Plane], relay: Relay, family: str
) -> None:
    a, b = relayed(pair, relay)
    to_a, to_b = getattr(a, family), getattr(b, family)
    with Flood(a, b) as flood:

        def go_direct() -> None:
            a.ask("direct", *to_b)
            b.ask("direct", *to_a)

        def go_back() -> None:
            for plane in pair:
                plane.ask("relay")

        flood.settles(go_direct, lambda: (endpoint(a), endpoint(b)) == (to_b, to_a))
        for _ in range(LOOKS):
            flood.moves_both_ways()
            assert (endpoint(a), endpoint(b)) == (to_b, to_a)
        for plane in pair:
            plane.namespace.rules(CUT)
        flood.settles(go_back, lambda: on_relay(a) and on_relay(b))
        for plane in pair:
            plane.namespace.rules("flush ruleset")
        for _ in range(LOOKS):
            flood.moves_both_ways()
            assert on_relay(a)
            assert on_relay(b)


def test_a_direct_tunnel_outlives_the_daemon_and_is_taken_over(pair: tuple[Plane, Plane]) -> None:
    a, b = directly(pair)
    pids = a.wireguard_pids()
    assert len(pids) == 1
    pings = Ping(b.namespace, a.inner4, count=150, interval=0.02)
    a.kill()
    assert a.start(b)["taken_over"]
    assert endpoint(a) == b.endpoint  # the next daemon set its peers, and disturbed none
    a.close(keep=True)
    assert pings.result().lost == 0
    assert a.wireguard_pids() == pids


def test_buffers_are_enlarged_from_outside(pair: tuple[Plane, Plane]) -> None:
    a, _ = directly(pair)
    a.ask("status")
    sockets = a.namespace.run("ss", "-Huanm", f"sport = :{a.port}").stdout
    assert sockets.count("rb16777216") == 2  # the kernel doubles what it is asked for


def test_removal_leaves_nothing_behind(pair: tuple[Plane, Plane]) -> None:
    a, b = pair
    a.start(b)
    a.close(keep=False)
    assert a.namespace.run("ip", "link", "show", a.interface, check=False).returncode
    assert not a.uapi_socket.exists()
    wait_for("wireguard-go ends", lambda: not a.wireguard_pids())


def test_a_killed_wireguard_go_leaves_a_stale_socket_that_does_not_hinder(pair: tuple[Plane, Plane]) -> None:
    a, b = pair
    a.start(b)
    for pid in a.wireguard_pids():
        os.kill(pid, signal.SIGKILL)
    wait_for("the interface is gone", lambda: not a.wireguard_pids())
    with pytest.raises(PlaneError, match="is gone; restart trenzad"):
        a.ask("status")
    a.kill()
    assert a.uapi_socket.exists()
    assert not a.start(b)["taken_over"]


def test_a_strangers_interface_is_not_taken(pair: tuple[Plane, Plane]) -> None:
    a, b = pair
    a.namespace.ip(f"link add {a.interface} type bridge")
    try:
        with pytest.raises(PlaneError, match=f"--tun, or remove it with: ip link delete {a.interface}"):
            a.start(b)
        with a.namespace.entered():  # nor removed by a daemon that cleans up
            asyncio.run(WireguardGoEngine(a.interface).close(keep=False))
        a.namespace.run("ip", "link", "show", a.interface)
    finally:
        a.namespace.ip(f"link del {a.interface}")


def test_a_name_in_use_in_another_namespace_is_not_taken(pair: tuple[Plane, Plane]) -> None:
    a, b = pair
    a.start(b)
    b.interface = a.interface
    with pytest.raises(PlaneError, match="another network namespace uses the name"):
        b.start(a)
    assert a.ask("status")


def test_a_taken_udp_port_is_named(pair: tuple[Plane, Plane]) -> None:
    a, b = pair
    with a.namespace.entered():
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with other:
        other.bind(("0.0.0.0", a.port))
        with pytest.raises(PlaneError, match=f"UDP port {a.port} is taken by another program"):
            a.start(b)


class Flood:
    """Heavy traffic both ways at once, in the background; proves that bytes keep coming in on both sides."""

    def __init__(self, a: Plane, b: Plane) -> None:
        self.planes = (a, b)
        self._received = self._counts()

    def __enter__(self) -> Flood:
        a, b = self.planes
        self._server = b.namespace.spawn("iperf3", "-s", "-1", "-B", b.inner4, stdout=subprocess.DEVNULL)
        wait_for("iperf3 listens", lambda: b.namespace.run("ss", "-Hltn", "sport = :5201").stdout)
        options = ["-c", b.inner4, "--bidir", "-t", "600", "-J"]
        self._client = a.namespace.spawn("iperf3", *options, stdout=subprocess.DEVNULL)
        self.moves_both_ways()
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._client, self._server):
            process.kill()
            process.wait()

    def moves_both_ways(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait until each side has received another half a megabyte."""
        enough = [count + 500_000 for count in self._received]

        def moved() -> bool:
            meanwhile()
            return all(map(int.__ge__, self._counts(), enough))

        wait_for("traffic flows both ways", moved)
        self._received = self._counts()

    def settles(self, steer: Callable[[], None], there: Callable[[], bool]) -> None:
        """Packets that WireGuard had queued at the flip may pull it back: as paths do, steer again then."""

        def put_right() -> None:
            if not there():
                steer()

        steer()
        for _ in range(SETTLING):
            self.moves_both_ways(put_right)
        wait_for("the paths settle", there)

    def _counts(self) -> list[int]:
        return [plane.ask("status")["rx"] for plane in self.planes]
