"""What a page costs that is the first to be asked for after a change of the tailnet.

A process without a hub reads the whole tailnet then; beside a hub, which has read the change, it takes that.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actors import Actor
from accounts.models import Tailnet
from accounts.tenancy import scope
from controlplane.netmap.snapshot import TailnetSnapshot
from controlplane.services import evaluations
from controlplane.snapshots import load_nodes, load_tailnet
from nodes.models import Node
from nodes.services.lifecycle import rename_node

WHOLE_MS = 1000.0
HUB_MS = 100.0
PATHS = ("/my-devices", "/devices/{node}/access", "/map/data?rules=1")


class Changes:
    """A device gets one name after the other; ``snapshot`` is what a hub has of that."""

    def __init__(self, tailnet: Tailnet) -> None:
        self.tailnet = tailnet
        self.snapshot = load_tailnet(tailnet.pk)
        self._numbers = count(1)
        with scope(tailnet=tailnet):
            self.node = Node.objects.earliest("pk")

    def make(self) -> None:
        with scope(tailnet=self.tailnet):
            rename_node(node=self.node, name=f"renamed-{next(self._numbers)}", by=Actor.command())
        version = Tailnet.objects.values_list("netmap_version", flat=True).get(pk=self.tailnet.pk)
        assert self.snapshot is not None
        self.snapshot = load_nodes(self.snapshot, {self.node.pk}, version)

    def has(self, tailnet_id: int) -> TailnetSnapshot | None:
        return self.snapshot if tailnet_id == self.tailnet.pk else None


def measure(client: Any, path: str, rounds: int, change: Callable[[], None]) -> tuple[float, int]:
    """Median milliseconds, and queries, of one page right after a change."""
    change()
    with CaptureQueriesContext(connection) as captured:
        client.get(path)
    queries, took = len(captured), []
    for _ in range(rounds):
        change()
        begun = time.perf_counter()
        client.get(path)
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took), queries


def run(client: Any, tailnet: Tailnet, node: str, rounds: int) -> bool:
    """Print both tables; whether every promise was kept."""
    changes, kept = Changes(tailnet), True
    for title, live, target in (("without a hub", None, WHOLE_MS), ("beside a hub", changes.has, HUB_MS)):
        evaluations.follow(live)
        print(f"first after a change, {title}")
        for path in PATHS:
            took, queries = measure(client, path.format(node=node), rounds, changes.make)
            kept = kept and took <= target
            print(
                f"{path:<40} {took:>7.1f} {target:>7.0f} {queries:>8}" + ("  over" if took > target else "")
            )
    evaluations.follow(None)
    return kept
