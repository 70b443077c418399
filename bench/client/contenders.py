"""Who is compared: our client, the official one, and bare WireGuard, each as pairs of hosts in one lab."""

from __future__ import annotations

import itertools
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.lab.net import Lab, Namespace, Router
from tests.lab.node import Node
from tests.lab.official import OfficialNode
from tests.lab.processes import clean_environment
from tests.lab.server import Server
from tests.lab.traffic import reachable
from tests.lab.trenza import TrenzaNode
from tests.needs import missing
from wire.keys import NodePrivate

POPULATE_SECONDS = 120.0
BARE_ADDRESSES = ("100.127.0.1", "100.127.0.2")
BARE_PORT = 51820

Make = Callable[[Namespace], Node]
KINDS: dict[str, Make] = {"trenza": TrenzaNode, "tailscaled": OfficialNode}


def kinds() -> list[str]:
    """Ours first; the official one where its binaries are."""
    return [kind for kind in KINDS if kind == "trenza" or not (missing("tailscaled") or missing("tailscale"))]


@dataclass(frozen=True)
class Pair:
    """Two ends of a tunnel, and the second's address in it."""

    kind: str
    source: Namespace
    target: Namespace
    address: str
    nodes: tuple[Node, ...] = ()


class Field:
    """A lab with a server, its tailnet with some ``devices`` that are not there; nodes are made in it."""

    def __init__(self, lab: Lab, *, devices: int = 0) -> None:
        self.lab = lab
        self.server = Server(lab.host("server"))
        self.key = self.server.auth_key("--preapproved", "--reusable")
        self._names = itertools.count(1)
        if devices:
            self._populate(devices)
        self.server.start()

    def host(self, router: Router | None = None) -> Namespace:
        """A host on the internet, or behind a router."""
        return (router or self.lab).host(f"n{next(self._names)}")

    def node(self, kind: str, router: Router | None = None) -> Node:
        """A started client, not joined."""
        return KINDS[kind](self.host(router)).start()

    def join(self, node: Node) -> Node:
        node.up(self.server.url, auth_key=self.key)
        return node

    def pair(self, kind: str, first: Router | None = None, second: Router | None = None) -> Pair:
        """Two joined clients that know each other and have exchanged a packet."""
        nodes = [self.join(self.node(kind, router)) for router in (first, second)]
        for one, other in (nodes, reversed(nodes)):
            one.sees(other.name)
            one.knows_relay(other.name)
        address = nodes[1].address()
        reachable(nodes[0].namespace, address)
        return Pair(kind, nodes[0].namespace, nodes[1].namespace, address, tuple(nodes))

    def bare(self) -> Pair:
        """Two hosts with nothing but WireGuard between them."""
        hosts = [self.host(), self.host()]
        keys = [NodePrivate.generate(secrets.token_bytes(32)) for _ in hosts]
        for number, host in enumerate(hosts):
            other = 1 - number
            private = {"/run": host.folder / "run"}
            private["/run"].mkdir()
            host.run(
                *(sys.executable, "-m", "bench.client.bare", keys[number].raw.hex()),
                *(keys[other].public().raw.hex(), BARE_ADDRESSES[number], BARE_ADDRESSES[other]),
                *(str(BARE_PORT), f"{hosts[other].address4}:{BARE_PORT}"),
                private=private,
                environment=clean_environment(),
            )
        reachable(hosts[0], BARE_ADDRESSES[1])
        return Pair("bare", hosts[0], hosts[1], BARE_ADDRESSES[1])

    def _populate(self, count: int) -> None:
        command = [sys.executable, "-m", "bench.push.populate", str(count), str(self.lab.folder / "devices")]
        self.server.namespace.run(*command, environment=self.server.environment, seconds=POPULATE_SECONDS)

    def remove(self, *nodes: Node) -> None:
        for node in nodes:
            self.lab.remove(node.namespace)


def resident_mib(pid: int) -> float:
    """A process's resident memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def processor_seconds(pid: int) -> float:
    """What a process has used of the processors so far. Source: proc_pid_schedstat, ns."""
    tasks = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(path.read_text().split()[0]) for path in tasks) / 1e9
