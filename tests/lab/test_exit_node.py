"""Exit nodes, by what a host on the internet sees, and by what leaves a network when it should not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.conftest import World
from tests.lab.internet import WEB4, Internet, Watch, asked_from, gets_nowhere, reaches, seen_as
from tests.lab.net import Namespace
from tests.lab.node import Node
from tests.lab.offers import EXIT, approve
from tests.lab.processes import wait_for
from tests.lab.traffic import ping, reachable
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root


@pytest.fixture(scope="module")
def internet(lasting_world: World) -> Iterator[Internet]:
    with Internet(lasting_world.lab.internet) as made:
        yield made


@pytest.fixture
def watch(world: World) -> Iterator[list[Watch]]:
    made: list[Watch] = []
    yield made
    for one in made:
        one.clear()


def on_the_internet(world: World, name: str, *, official: bool = False) -> Node:
    """A node with public addresses that offers to be an exit node, approved."""
    node = (world.official if official else world.trenza)(name, world.lab)  # type: ignore[operator]
    world.join(node, "--advertise-exit-node")
    approve(world, node, EXIT)
    return node


def behind(world: World, name: str, *, official: bool = False) -> Node:
    """A node behind a NAT that has IPv6, too."""
    node = (world.official if official else world.trenza)(name, world.six1)
    world.join(node)
    return node


def may_be_used(node: Node, exit_node: str) -> None:
    wait_for(f"{node.name} may use {exit_node}", lambda: node.peer(exit_node)["ExitNodeOption"])


def use(node: Node, exit_node: str, *options: str) -> None:
    may_be_used(node, exit_node)
    node.cli("set", f"--exit-node={exit_node}", *options)


def policy(namespace: Namespace) -> str:
    """What is left of policy routing: rules, table, marks."""
    listed = [
        namespace.run("ip", version, *words, check=False).stdout
        for version in ("-4", "-6")
        for words in (("rule",), ("route", "show", "table", "7052"))
    ]
    tables = namespace.run("nft", "list", "tables").stdout
    return "".join(
        line + "\n" for line in "".join(listed).splitlines() if "7052" in line or "0x80000" in line
    ) + (tables if "trenza-marks" in tables else "")


def test_the_internet_sees_the_exit_node(world: World, internet: Internet, watch: list[Watch]) -> None:
    out, ann = world.trenza("outa", world.lab), behind(world, "ann")
    said = out.up(world.server.url, "--advertise-exit-node", auth_key=world.key)
    assert "not approved yet" in said.stdout + said.stderr
    refused = ann.cli("set", "--exit-node=outa", check=False)
    assert "outa is no exit node, or is not approved" in refused.stderr
    seen_as(ann.namespace, world.six1.namespace.address4, ann.namespace.address6)

    approve(world, out, EXIT)
    use(ann, "outa")
    seen_as(ann.namespace, out.namespace.address4, out.namespace.address6)
    watch.append(Watch(world.six1, ann.namespace))
    internet.seen.clear()
    seen_as(ann.namespace, out.namespace.address4, out.namespace.address6)
    assert {address for _, address in internet.seen} == {out.namespace.address4, out.namespace.address6}
    assert watch[0].counts() == (0, 0)

    # Its own sockets go by its own way: others find it where it is, and it finds its way back.
    assert any(text.startswith(world.six1.namespace.address4) for text in ann.status()["Self"]["Addrs"])
    assert not any(text.startswith(out.namespace.address4) for text in ann.status()["Self"]["Addrs"])
    assert "exit node" in ann.cli("status").stdout
    assert "outa" in ann.cli("exit-node", "list").stdout

    # The network it stands in is reached only when that is allowed; the internet is still another's.
    lan4, lan6 = f"192.168.{world.six1.number}.1", f"2001:db8:{world.six1.number}::1"
    assert ping(ann.namespace, lan4, count=1).received == 0  # the exit node does not lead to private networks
    assert "dev trenza0" in ann.namespace.run("ip", "route", "get", lan6).stdout
    ann.cli("set", "--exit-node-allow-lan-access")
    reachable(ann.namespace, lan4)
    wait_for("it is direct", lambda: "dev eth0" in ann.namespace.run("ip", "route", "get", lan6).stdout)
    assert asked_from(ann.namespace, WEB4) == out.namespace.address4

    ann.cli("set", "--exit-node=")
    seen_as(ann.namespace, world.six1.namespace.address4, ann.namespace.address6)
    assert policy(ann.namespace) == ""


def test_nothing_leaks_when_wireguard_dies(world: World, internet: Internet, watch: list[Watch]) -> None:
    out, bea = on_the_internet(world, "outb"), behind(world, "bea")
    assert isinstance(bea, TrenzaNode)
    for setting in ("all", "eth0"):  # as strict as a host can be
        bea.namespace.run("sysctl", "-qw", f"net.ipv4.conf.{setting}.rp_filter=1")
    use(bea, "outb")
    seen_as(bea.namespace, out.namespace.address4, out.namespace.address6)
    watch.append(Watch(world.six1, bea.namespace))

    bea.daemon.kill()  # nobody is there to repair anything
    bea.namespace.run("kill", "-9", str(bea.wireguard_pid()))
    wait_for("WireGuard is gone", lambda: bea.wireguard_pid() is None)
    gets_nowhere(bea.namespace)
    assert watch[0].counts() == (0, 0)

    bea.start()
    seen_as(bea.namespace, out.namespace.address4, out.namespace.address6)
    bea.namespace.run("kill", "-9", str(bea.wireguard_pid()))
    seen_as(
        bea.namespace, out.namespace.address4, out.namespace.address6, seconds=40
    )  # and it heals by itself
    assert watch[0].counts() == (0, 0)

    bea.cli("down")
    assert policy(bea.namespace) == ""
    seen_as(bea.namespace, world.six1.namespace.address4, bea.namespace.address6)


def test_an_exit_node_that_is_no_more_blocks_and_says_so(
    world: World, watch: list[Watch], internet: Internet
) -> None:
    out, cid = on_the_internet(world, "outc"), behind(world, "cid")
    friend = world.trenza("friend", world.easy2)
    world.join(friend)
    use(cid, "outc")
    seen_as(cid.namespace, out.namespace.address4)
    watch.append(Watch(world.six1, cid.namespace))
    approve(world, out, EXIT, approved=False)
    wait_for("it is said", lambda: any("is no exit node" in text for text in cid.status()["Health"]))
    wait_for("the way is closed", lambda: not reaches(cid.namespace, WEB4))
    gets_nowhere(cid.namespace)
    reachable(cid.namespace, friend.address())  # the tailnet goes on
    approve(world, out, EXIT)
    seen_as(cid.namespace, out.namespace.address4)
    out.stop()
    wait_for("it is said", lambda: any("outc is offline" in text for text in cid.status()["Health"]))
    gets_nowhere(cid.namespace)
    assert watch[0].counts() == (0, 0)


@pytest.mark.needs("tailscaled", "tailscale")
def test_an_official_client_as_exit_node(world: World, internet: Internet, watch: list[Watch]) -> None:
    out, eve = on_the_internet(world, "oute", official=True), behind(world, "eve")
    for setting in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
        out.namespace.run("sysctl", "-qw", f"{setting}=1")  # it does not do so itself
    use(eve, "oute")
    seen_as(eve.namespace, out.namespace.address4, out.namespace.address6)
    watch.append(Watch(world.six1, eve.namespace))
    seen_as(eve.namespace, out.namespace.address4, out.namespace.address6)
    assert watch[0].counts() == (0, 0)


@pytest.mark.needs("tailscaled", "tailscale")
def test_an_official_client_uses_ours(world: World, internet: Internet) -> None:
    out, fay = on_the_internet(world, "outf"), behind(world, "fay", official=True)
    use(fay, "outf")
    seen_as(fay.namespace, out.namespace.address4, out.namespace.address6)
