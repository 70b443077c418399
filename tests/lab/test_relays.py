"""Two relays: when the home relay dies, nodes go to the other one, and pairs that need it are back."""

from __future__ import annotations

import json
import time

import pytest

from tests.lab.conftest import World
from tests.lab.net import RULES, Router
from tests.lab.processes import wait_for
from tests.lab.relays import OwnRelay
from tests.lab.traffic import Ping, reachable
from tests.lab.trenza import TrenzaNode

pytestmark = pytest.mark.root

TAILNET = "two-relays"
REHOME_SECONDS = 15.0
BACK_SECONDS = 20.0
INTERVAL = 0.2


def without_udp_and(router: Router, *rules: str) -> None:
    """The router lets no UDP out, nor what the rules drop."""
    dropped = "\n".join(['iifname "lan" meta l4proto udp drop', *rules])
    router.namespace.rules(RULES.format(masquerade=router.nat.value, udp=dropped))


def home_of(node: TrenzaNode) -> str:
    return str(node.status()["Self"]["Relay"])


def test_a_home_relay_that_vanishes_is_left_and_relayed_pairs_are_back(world: World) -> None:
    server, lab = world.server, world.lab
    server.manage("createtailnet", TAILNET, "--owner", "two@example.com", "--json")
    key = server.auth_key("--preapproved", "--reusable", tailnet=TAILNET)
    relay = OwnRelay(lab.host("relay2"), server, TAILNET, region=930, code="far").start()
    routers = [lab.router(name, udp=False) for name in ("tworelays1", "tworelays2")]
    port = json.loads((server.data / "relay.ports").read_text())["derp"]
    for router in routers:  # at first nobody reaches the other relay: homes are chosen by latency
        without_udp_and(router, f'iifname "lan" ip daddr {server.namespace.address4} tcp dport {port} drop')
    ann, bob = (world.trenza(name, router) for name, router in zip(("ann", "bob"), routers, strict=True))
    for node in (ann, bob):
        node.up(server.url, auth_key=key)
        wait_for(f"{node.name} is at home at the far relay", lambda node=node: home_of(node) == "far")
    ann.knows_relay("bob")
    bob.knows_relay("ann")
    reachable(ann.namespace, bob.address())
    assert ann.peer("bob")["Relay"] == "far"
    for router in routers:
        without_udp_and(router)
    talk = Ping(ann.namespace, bob.address(), count=200, interval=INTERVAL)
    time.sleep(1)
    relay.vanish()
    for node in (ann, bob):
        wait_for(
            f"{node.name} is at home elsewhere",
            lambda node=node: home_of(node) == "trenza",
            seconds=REHOME_SECONDS,
        )
    reachable(ann.namespace, bob.address(), seconds=BACK_SECONDS - REHOME_SECONDS)
    talk.close()
    relay.daemon.kill()
    assert ann.peer("bob")["Relay"] == "trenza"
    assert ann.peer("bob")["RelayReason"] == "UDP is blocked on this network"
