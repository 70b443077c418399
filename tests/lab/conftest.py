"""Fixtures of the lab: one small internet with a server for all tests, nodes for each."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterator
from functools import cached_property

import pytest

from tests.lab.net import Lab, Nat, Router
from tests.lab.official import OfficialNode
from tests.lab.person import Person
from tests.lab.rootless import RootlessNode
from tests.lab.server import Server
from tests.lab.trenza import TrenzaNode
from tests.needs import need


class World:
    """A lab with a server on the internet and the usual routers; nodes live as long as a test."""

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
        self._names = itertools.count(1)

    def name(self) -> str:
        """A host name that no node has had."""
        return f"node{next(self._names)}"

    def trenza(
        self, name: str, router: Router, *options: str, start: bool = True, **environment: str
    ) -> TrenzaNode:
        """A Trenza client behind ``router``, started (as a rule), not joined."""
        node = TrenzaNode(router.host(name), *options, **environment)
        self._nodes.append(node)
        return node.start() if start else node

    def rootless(self, name: str, router: Router, *options: str, start: bool = True) -> RootlessNode:
        """A Trenza client behind ``router`` that nobody runs, started (as a rule), not joined."""
        node = RootlessNode(router.host(name), *options)
        self._nodes.append(node)
        if start:
            node.start()
        return node

    def official(self, name: str, router: Router, *, start: bool = True) -> OfficialNode:
        """An official client behind ``router``, started (as a rule), not joined."""
        need("tailscaled", "tailscale")
        node = OfficialNode(router.host(name))
        self._nodes.append(node)
        return node.start() if start else node

    def join(self, node: TrenzaNode | OfficialNode, *options: str) -> None:
        """Join by a pre-approved key."""
        node.up(self.server.url, *options, auth_key=self.key)

    @cached_property
    def key(self) -> str:
        """A key that lets in any number of nodes, for tests that are not about keys."""
        return self.server.auth_key("--preapproved", "--reusable")

    @cached_property
    def admin(self) -> Person:
        """Somebody with all rights, signed in to the panel, for tests that are not about people."""
        return self.server.person(self.desk)

    def keep(self) -> None:
        """Let the nodes that there are live as long as the file's tests."""
        self._nodes.clear()

    def told(self) -> Iterator[tuple[str, str]]:
        """What the server and this test's nodes have said last, with the names of their logs."""
        for one in (self.server, *self._nodes):
            yield f"end of {one.daemon.log.parent.name}/{one.daemon.log.name}", one.daemon.tail()

    def clear(self) -> None:
        """End this test's nodes."""
        for node in self._nodes:
            node.namespace.kill_all()
            self.lab.remove(node.namespace)
        self._nodes.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With a failure comes what everybody's log ends with: the logs go with the world."""
    report = yield
    world = getattr(item, "funcargs", {}).get("world")
    if report.failed and report.when == "call" and isinstance(world, World):
        report.sections += world.told()
    return report


@pytest.fixture(scope="module")
def lasting_world() -> Iterator[World]:
    """One small internet with one server for a file's tests: what one leaves behind must not disturb another.

    Files may run in any order and in several processes, so their nodes' names need not differ.
    """
    with Lab() as lab:
        made = World(lab)
        made.server.start()
        try:
            yield made
        finally:
            made.clear()
            made.server.stop()


@pytest.fixture
def world(lasting_world: World) -> Iterator[World]:
    """The internet, its server running; the nodes that a test makes end with it."""
    yield lasting_world
    lasting_world.clear()
    if not lasting_world.server.daemon.running:
        lasting_world.server.start()
