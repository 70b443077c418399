"""Fixtures of the lab: one small internet and one server for each test module, nodes for each test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import official
from tests.lab.net import Lab, Nat, Router
from tests.lab.official import OfficialNode
from tests.lab.server import Server
from tests.lab.trenza import TrenzaNode

TOOLS = ("ip", "nft", "ping", "iperf3", "ss")


def need(what: str, problem: str) -> None:
    """Skip with ``problem`` as the reason (empty: nothing is missing), or fail where ``what`` is required."""
    if not problem:
        return
    if what in os.environ.get("TRENZA_TEST_REQUIRE", "").split(","):
        pytest.fail(f"{what} is required here: {problem}")
    pytest.skip(problem)


def _lab_problem() -> tuple[str, str]:
    if os.geteuid() != 0:
        return "root", "the lab needs root"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return "netns", f"the lab needs {', '.join(absent)}"
    if not Path("/dev/net/tun").exists():
        return "tun", "the lab needs /dev/net/tun"
    return "", ""


def need_lab() -> None:
    """Skip, or fail where it is required, on a machine that cannot run the lab."""
    need(*_lab_problem())


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
        self.six1 = lab.router("six1", ipv6=True)
        self._nodes: list[TrenzaNode | OfficialNode] = []

    def trenza(self, name: str, router: Router, *options: str, **environment: str) -> TrenzaNode:
        """A Trenza client behind ``router``, started, not joined."""
        node = TrenzaNode(router.host(name), *options, **environment)
        self._nodes.append(node)
        return node.start()

    def official(self, name: str, router: Router) -> OfficialNode:
        """An official client behind ``router``, started, not joined."""
        need("official", official.missing())
        node = OfficialNode(router.host(name))
        self._nodes.append(node)
        return node.start()

    def join(self, node: TrenzaNode | OfficialNode, *options: str) -> None:
        """Join by a fresh pre-approved key."""
        node.up(self.server.url, *options, auth_key=self.server.auth_key())

    def clear(self) -> None:
        """End this test's nodes."""
        for node in self._nodes:
            node.namespace.kill_all()
            self.lab.remove(node.namespace)
        self._nodes.clear()


@pytest.fixture(scope="module")
def module_world() -> Iterator[World]:
    need_lab()
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
