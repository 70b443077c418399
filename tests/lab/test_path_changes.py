"""Networks change in the middle of a conversation: paths follow, and what is lost is bounded."""

from __future__ import annotations

import time

import pytest

from tests.lab.conftest import World
from tests.lab.net import RULES, Namespace, Router
from tests.lab.processes import wait_for
from tests.lab.traffic import Ping, ping
from tests.lab.trenza import TrenzaNode
from tests.lab.trickle import Trickle

pytestmark = pytest.mark.root

TO_RELAY_SECONDS = 10.0
TO_DIRECT_SECONDS = 90.0
INTERVAL = 0.1


def direct_pair(world: World, one: Router, other: Router, names: tuple[str, str]) -> list[TrenzaNode]:
    """Two nodes behind easy NATs, in the middle of a conversation."""
    nodes = [world.trenza(name, router) for name, router in zip(names, (one, other), strict=True)]
    for node in nodes:
        world.join(node)
    first, second = nodes
    first.sees(second.name)
    second.sees(first.name)
    ping(first.namespace, second.address(), count=10)
    first.direct(second.name)
    second.direct(first.name)
    return nodes


def rebind(router: Router) -> None:
    """The router restarts: it forgets every flow, and gives other ports from now on."""
    ports = 'meta l4proto udp masquerade to :50000-50999\n    meta nfproto ipv4 oifname "wan" masquerade'
    router.namespace.rules(RULES.format(masquerade=ports, udp=""))
    router.namespace.run("conntrack", "-F")


@pytest.mark.needs("conntrack")
def test_a_router_that_forgets_its_mappings_costs_a_few_seconds(world: World) -> None:
    ray, sue = direct_pair(world, world.easy1, world.easy2, ("ray", "sue"))
    try:
        talk = Ping(ray.namespace, sue.address(), count=250, interval=INTERVAL)
        time.sleep(3)
        rebind(world.easy1)
        assert talk.result().lost * INTERVAL <= TO_RELAY_SECONDS
        assert sue.direct("ray").startswith(world.easy1.namespace.address4)
        assert ping(ray.namespace, sue.address(), count=20).lost == 0
    finally:
        world.easy1.block_udp(False)


def test_udp_that_is_blocked_goes_by_relay_and_comes_back_to_direct(world: World) -> None:
    tom, una = direct_pair(world, world.easy1, world.easy2, ("tom", "una"))
    talk = Trickle(tom.namespace, una.namespace, una.address())
    try:
        world.easy1.block_udp(True)
        for node, peer in ((tom, "una"), (una, "tom")):
            wait_for(
                f"{node.name} gave the direct path up",
                lambda node=node, peer=peer: not node.peer(peer)["CurAddr"],
                seconds=TO_RELAY_SECONDS,
            )
        assert ping(tom.namespace, una.address(), count=20).lost == 0
    finally:
        world.easy1.block_udp(False)
    tom.direct("una", seconds=TO_DIRECT_SECONDS)
    una.direct("tom", seconds=TO_DIRECT_SECONDS)
    assert ping(tom.namespace, una.address(), count=20).lost == 0
    assert talk.end()  # one TCP connection all the time


def test_an_idle_tunnel_wakes_without_losing_a_packet(world: World) -> None:
    """By then it is back on the relay: whatever the NATs have forgotten meanwhile does not matter."""
    vic, wim = direct_pair(world, world.easy1, world.easy2, ("vic", "wim"))
    for node, peer in ((vic, "wim"), (wim, "vic")):
        wait_for(
            f"{node.name} is idle",
            lambda node=node, peer=peer: not node.peer(peer)["CurAddr"],
            seconds=TO_DIRECT_SECONDS,
        )
    world.easy1.namespace.run("conntrack", "-F", check=False)
    assert ping(vic.namespace, wim.address(), count=20).lost == 0
    vic.direct("wim")


def move(host: Namespace, to: Router) -> None:
    """Plug a host out of its network and into another one."""
    to.hosts += 1
    port = f"p{to.hosts}"
    host.address4 = f"192.168.{to.number}.{to.hosts}"
    host.ip(
        "link del eth0",
        f"link add eth0 type veth peer name {port} netns {to.namespace.name}",
        "link set eth0 up",
        f"addr add {host.address4}/24 dev eth0",
        f"route add default via 192.168.{to.number}.1",
    )
    to.namespace.ip(f"link set {port} master lan up")


def test_a_node_that_moves_into_the_peers_network_is_found_there(world: World) -> None:
    """Another address, another gateway, no NAT between them any more; a TCP connection lasts."""
    xia, yan = direct_pair(world, world.easy1, world.easy2, ("xia", "yan"))
    talk = Trickle(yan.namespace, xia.namespace, xia.address())
    move(xia.namespace, world.easy2)
    for node, peer in ((yan, xia), (xia, yan)):
        local = f"{peer.namespace.address4}:"
        wait_for(
            f"{node.name} reaches {peer.name} by {local}",
            lambda node=node, peer=peer, local=local: node.peer(peer.name)["CurAddr"].startswith(local),
            seconds=TO_DIRECT_SECONDS,
        )
    assert talk.end()
