"""Fixtures of the lab: one small internet and one server for each test module, nodes for each test."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import pytest

from tests.lab.net import Lab, Nat, Router
from tests.lab.official import OfficialNode
from tests.lab.server import Server
from tests.lab.trenza import TrenzaNode
from tests.needs import need


class World:
    """A lab with a server on the internet and the usual routers; nodes live as long as one test."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.server = Server(lab.host("server"))
        self.desk = lab.host("desk")  # where people sit
        self.easy1 = lab.router("easy1")
        self.easy2 = lab.router("easy2")
        self.hard = lab.router("hard", Nat.HARD)
        self.blocked = lab.router("blocked", udp=False)
        self.six1 = lab.router("six1", Nat.HARD, ipv6=True)
        self.six2 = lab.router("six2", Nat.HARD, ipv6=True)
        self._nodes: list[TrenzaNode | OfficialNode] = []

    def trenza(self, name: str, router: Router, *options: str, **environment: str) -> TrenzaNode:
        """A Trenza client behind ``router``, started, not joined."""
        node = TrenzaNode(router.host(name), *options, **environment)
        self._nodes.append(node)
        return node.start()

    def official(self, name: str, router: Router) -> OfficialNode:
        """An official client behind ``router``, started, not joined."""
        need("tailscaled", "tailscale")
        node = OfficialNode(router.host(name))
        self._nodes.append(node)
        return node.start()

    def join(self, node: TrenzaNode | OfficialNode, *options: str) -> None:
        """Join by a pre-approved key."""
        node.up(self.server.url, *options, auth_key=self.key)

    @cached_property
    def key(self) -> str:
        """A key that lets in any number of nodes, for tests that are not about keys."""
        return self.server.auth_key("--preapproved", "--reusable")

    def clear(self) -> None:
        """End this test's nodes."""
        for node in self._nodes:
            node.namespace.kill_all()
            self.lab.remove(node.namespace)
        self._nodes.clear()


@pytest.fixture(scope="module")
def module_world() -> Iterator[World]:
    with Lab() as lab:
        made = World(lab)
        made.server.start()
        try:
            yield made
        finally:
            made.clear()
            made.server.stop()


@pytest.fixture
def world(module_world: World, request: pytest.FixtureRequest) -> Iterator[World]:
    yield module_world
    module_world.clear()
