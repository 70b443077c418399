"""Trenza without root: nobody runs the daemon, and its programs use the tailnet all the same."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.dns.answers import addresses_in, make_query
from tests.lab.conftest import World
from tests.lab.internet import Watch
from tests.lab.nameserver import PORT as DNS_PORT
from tests.lab.nameserver import NameServer, use_nameserver
from tests.lab.net import LabError
from tests.lab.offers import EXIT, approve
from tests.lab.processes import wait_for
from tests.lab.rootless import NOBODY, SOCKS_PORT, WEB_PORT, RootlessNode
from tests.lab.services import (
    SocksDatagrams,
    ask,
    ask_by_connect,
    ask_by_proxy,
    ask_by_socks,
    echoed,
    udp_echo,
    web_server,
)
from tests.lab.test_paths import introduce
from tests.lab.traffic import ping, reachable
from tests.lab.trenza import TUN, TrenzaNode

pytestmark = [pytest.mark.root, pytest.mark.needs("wireguard-go")]

PORT = 8000
MEGABYTE = 1_000_000
PUBLIC = "203.0.113.77"  # for documentation (RFC 5737): nobody's private network


def pair(world: World, ann: str, bob: str) -> tuple[RootlessNode, TrenzaNode]:
    """One without root and one with it, behind easy NATs, who know each other."""
    first, second = world.rootless(ann, world.easy1), world.trenza(bob, world.easy2)
    world.join(first)
    world.join(second)
    introduce(first, second)
    return first, second


def test_nobody_joins_and_is_reached_directly(world: World) -> None:
    ann, bob = pair(world, "rann", "rbob")
    status = Path(f"/proc/{ann.daemon.pid}/status").read_text()
    rights = [line.split()[1] for line in status.splitlines() if line.startswith(("CapEff", "CapBnd"))]
    assert f"Uid:\t{NOBODY}\t{NOBODY}" in status
    assert {int(right, 16) for right in rights} == {0}
    assert ann.status()["TUN"] is False
    answers = ann.ping("rbob", "--until-direct", "-c", "20")
    assert answers[0].derp == "trenza"
    assert answers[-1].direct.startswith(world.easy2.namespace.address4)
    assert bob.direct("rann").startswith(world.easy1.namespace.address4)
    assert bob.ping("rann")[0].direct
    for address in ann.addresses():
        reachable(bob.namespace, address)
        assert ping(bob.namespace, address, count=5).lost == 0


def test_programs_go_out_by_proxies_and_peers_come_in(world: World) -> None:
    ann, bob = pair(world, "rcat", "rdan")
    with web_server(bob.namespace, bob.address(), PORT):
        url = f"http://rdan:{PORT}/1000"
        assert len(ask_by_socks(ann.namespace, SOCKS_PORT, "rdan", PORT, f"/{MEGABYTE}")) == MEGABYTE
        assert ask_by_connect(ann.namespace, WEB_PORT, bob.address(), PORT, "/10") == b"x" * 10
        status, headers, body = ask_by_proxy(ann.namespace, WEB_PORT, url)
        assert (status, len(body), headers["X-Client"]) == (200, 1000, ann.address())
        assert ask_by_proxy(ann.namespace, WEB_PORT, url, b"posted")[2] == b"posted"
        assert ask_by_proxy(ann.namespace, WEB_PORT, f"http://rdan:{PORT + 1}/")[0] == 502
    with web_server(ann.namespace, "127.0.0.1", PORT), udp_echo(ann.namespace, "127.0.0.1", PORT):
        for address in ann.addresses():
            assert len(ask(bob.namespace, address, PORT, f"/{MEGABYTE}")[2]) == MEGABYTE
            assert echoed(bob.namespace, address, PORT, b"over here") == b"over here"
        # Nobody gets into the tailnet as this node by its own proxies, nor is led where nothing listens.
        for closed in (SOCKS_PORT, PORT + 1):
            with pytest.raises(LabError):
                ask(bob.namespace, ann.address(), closed, "/")
        ann.cli("set", "--shields-up")
        with pytest.raises(LabError):
            ask(bob.namespace, ann.address(), PORT, "/", seconds=2)


def test_datagrams_go_by_the_proxy_and_find_back(world: World) -> None:
    """Also to a peer's proxied programs: a peer without root sees the node that asks, and answers it."""
    tim, uma = pair(world, "rtim", "ruma")
    with (
        udp_echo(uma.namespace, uma.address(), PORT),
        udp_echo(tim.namespace, "127.0.0.1", PORT),
        SocksDatagrams(tim.namespace, SOCKS_PORT) as datagrams,
    ):
        for host in ("ruma", uma.address()):
            assert datagrams.exchange(host, PORT, b"over there") == (uma.address(), b"over there")
        big = b"x" * 8000  # in fragments, through a tunnel of 1280
        assert datagrams.exchange("ruma", PORT, big)[1] == big
        assert datagrams.exchange(tim.address(), PORT, b"myself") == (tim.address(), b"myself")
        killed = tim.wireguard_pid()
        assert killed
        os.kill(killed, signal.SIGKILL)
        wait_for("another WireGuard", lambda: tim.wireguard_pid() not in (None, killed))

        def again() -> bool:
            return datagrams.exchange("ruma", PORT, b"again", seconds=1)[1] == b"again"

        wait_for("the association goes on", again)


def test_files_come_and_go(world: World, tmp_path: Path) -> None:
    """The PeerAPI listens in the namespace, also in one that was made anew."""
    ann, bob = pair(world, "rkim", "rlea")
    killed = ann.wireguard_pid()
    assert killed
    os.kill(killed, signal.SIGKILL)
    wait_for("another WireGuard", lambda: ann.wireguard_pid() not in (None, killed))
    for sender, receiver in ((bob, ann), (ann, bob)):
        file = tmp_path / f"from {sender.name}"
        file.write_bytes(b"x" * MEGABYTE)
        target = wait_for("it takes files", lambda s=sender, r=receiver: takes_files(s, r))
        sender.cli("file", "cp", str(file), f"{target}:")
        inbox = tmp_path / receiver.name
        inbox.mkdir()
        receiver.cli("file", "get", "--wait", str(inbox))
        assert (inbox / file.name).read_bytes() == file.read_bytes()


def takes_files(sender: TrenzaNode, receiver: TrenzaNode) -> str:
    return receiver.name if receiver.name in sender.cli("file", "cp", "--targets").stdout else ""


@pytest.mark.needs("tailscaled", "tailscale")
def test_an_official_client_is_reached_and_reaches_it(world: World) -> None:
    ann, off = world.rootless("roto", world.easy1), world.official("rpia", world.easy2)
    world.join(ann)
    world.join(off)
    introduce(ann, off)
    assert off.ping("roto", "--until-direct", "-c", "20")[-1].direct
    ann.cli("down")
    assert not ann.inner_pids()
    ann.cli("up")
    with web_server(ann.namespace, "127.0.0.1", PORT):
        assert len(ask(off.namespace, ann.address(), PORT, f"/{MEGABYTE}")[2]) == MEGABYTE
    with web_server(off.namespace, off.address(), PORT):
        assert ask_by_socks(ann.namespace, SOCKS_PORT, "rpia", PORT, "/10") == b"x" * 10


def test_without_udp_everything_goes_by_the_relay(world: World) -> None:
    eve, fay = world.rootless("reve", world.blocked), world.trenza("rfay", world.easy2)
    world.join(eve)
    world.join(fay)
    introduce(eve, fay)
    assert [answer.derp for answer in fay.ping("reve", "-c", "3", check=False)] == ["trenza"] * 3
    with web_server(fay.namespace, fay.address(), PORT):
        assert len(ask_by_socks(eve.namespace, SOCKS_PORT, "rfay", PORT, f"/{MEGABYTE}")) == MEGABYTE
    reachable(fay.namespace, eve.address())
    assert not eve.peer("rfay")["CurAddr"]


def test_what_dies_is_made_anew_and_nothing_outlives_the_daemon(world: World) -> None:
    gus, hal = pair(world, "rgus", "rhal")
    reachable(hal.namespace, gus.address())
    killed = gus.wireguard_pid()
    assert killed
    os.kill(killed, signal.SIGKILL)
    wait_for("another WireGuard", lambda: gus.wireguard_pid() not in (None, killed))
    reachable(hal.namespace, gus.address())
    inside = gus.inner_pids()
    gus.daemon.kill()
    wait_for("the namespace has ended", lambda: not any(Path(f"/proc/{pid}").exists() for pid in inside))
    gus.start()
    gus.wait_state("Running")
    with web_server(hal.namespace, hal.address(), PORT):
        assert ask_by_socks(gus.namespace, SOCKS_PORT, "rhal", PORT, "/10") == b"x" * 10


def test_who_speaks_first_is_heard_soon_after_a_daemon_was_killed(world: World) -> None:
    """The peer still has a session with the WireGuard that is gone; by itself it would wait 15 seconds."""
    gil, hob = pair(world, "rgil", "rhob")
    hob.ping("rgil", "--until-direct", "-c", "20")
    address = gil.address()
    reachable(hob.namespace, address)
    gil.daemon.kill()
    assert ping(hob.namespace, address, count=1).received == 0
    gil.start()
    gil.wait_connected()
    reachable(hob.namespace, address, seconds=8)


@pytest.fixture
def provider(world: World) -> Iterator[NameServer]:
    """A resolver on the internet that both the host and the exit node use; all its names lead there."""
    world.lab.internet.run("ip", "addr", "replace", f"{PUBLIC}/32", "dev", "lo")
    names = {f"w{n}.example.org": PUBLIC for n in range(10)}
    with NameServer(world.lab.internet, names, PUBLIC) as server:
        yield server


def test_names_go_through_the_exit_node_or_nowhere(world: World, provider: NameServer) -> None:
    """The network around the host hears of none of them, whether the exit node is there or away."""
    jim = world.rootless("rjim", world.six1, start=False)
    out = world.trenza("routdns", world.lab, start=False)
    for node in (jim, out):
        use_nameserver(node.namespace, PUBLIC)
        node.start()
    world.join(jim)
    world.join(out, "--advertise-exit-node")
    approve(world, out, EXIT)
    wait_for("it may be used", lambda: jim.peer("routdns")["ExitNodeOption"])

    def seen(number: int) -> tuple[str, set[str]]:
        """As whom the web server and the name server see a program that uses the proxy."""
        name = f"w{number}.example.org"
        headers = ask_by_proxy(jim.namespace, WEB_PORT, f"http://{name}:{PORT}/1")[1]
        ask_by_socks(jim.namespace, SOCKS_PORT, name, PORT, "/1")
        return headers.get("X-Client", ""), askers(name)

    def askers(name: str) -> set[str]:
        return {who for asked, who in provider.asked if asked == name}

    def ask_provider(name: str, *, seconds: float = 10) -> list[str]:
        """A program that asks a name server itself, by datagrams through the proxy."""
        query = make_query(name, "A")
        with SocksDatagrams(jim.namespace, SOCKS_PORT) as datagrams:
            return addresses_in(datagrams.exchange(PUBLIC, DNS_PORT, query, seconds=seconds)[1])

    with web_server(world.lab.internet, PUBLIC, PORT):
        around, outside = world.six1.namespace.address4, out.namespace.address4
        assert seen(1) == (around, {around})
        assert (ask_provider("w7.example.org"), askers("w7.example.org")) == ([PUBLIC], {around})
        watch = Watch(world.six1, jim.namespace)
        jim.cli("set", "--exit-node=routdns")
        assert seen(2) == (outside, {outside})
        assert (ask_provider("w8.example.org"), askers("w8.example.org")) == ([PUBLIC], {outside})
        assert jim.cli("dns", "query", "w3.example.org").stdout.count(PUBLIC) == 1
        assert watch.counts() == (0, 0)

        out.stop()
        for ask_away in (
            lambda: seen(4),
            lambda: jim.cli("nc", "w4.example.org", str(PORT)),
            lambda: ask_provider("w4.example.org", seconds=2),
        ):
            with pytest.raises(LabError):
                ask_away()
        jim.daemon.kill()  # and the first that a new one is asked finds everything closed
        jim.start()
        with pytest.raises(LabError):
            ask_by_socks(jim.namespace, SOCKS_PORT, "w5.example.org", PORT, "/1")
        assert not {"w4.example.org", "w5.example.org"} & {asked for asked, _ in provider.asked}
        assert watch.counts() == (0, 0)
        watch.clear()
        jim.cli("set", "--exit-node=")
        assert seen(6) == (around, {around})


def test_the_internet_sees_the_exit_node_or_nothing(world: World) -> None:
    ida = world.rootless("rida", world.easy1)
    out = world.trenza("rout", world.lab)
    world.join(ida)
    world.join(out, "--advertise-exit-node")
    approve(world, out, EXIT)
    wait_for("it may be used", lambda: ida.peer("rout")["ExitNodeOption"])
    world.lab.internet.run("ip", "addr", "replace", f"{PUBLIC}/32", "dev", "lo")
    with web_server(world.lab.internet, PUBLIC, PORT):
        url = f"http://{PUBLIC}:{PORT}/1"
        seen = ask_by_proxy(ida.namespace, WEB_PORT, url)[1]["X-Client"]
        assert seen == world.easy1.namespace.address4
        ida.cli("set", "--exit-node=rout")
        assert ask_by_proxy(ida.namespace, WEB_PORT, url)[1]["X-Client"] == out.namespace.address4
        out.daemon.kill()
        out.namespace.run("ip", "link", "del", TUN)
        with pytest.raises(LabError):
            ask_by_proxy(ida.namespace, WEB_PORT, url, seconds=3)
