"""``python -m bench.policy``: what the policy engine costs from 100 to 10,000 devices, as a table.

Each size has a process of its own. ``compile`` is a text's way to an evaluation, ``told`` is what all nodes
are to be told by it: peers, routes, filters, SSH rules, capabilities. ``join`` is one device more: the next
evaluation and what the new device is told; ``tag`` is the same for a device that gets another tag, ``rest``
what has to be made anew for the others. Times are medians of CPU time (nothing here waits), in milliseconds;
``MB`` is by what the process has grown.

Where there is a Headscale (``TRENZA_HEADSCALE``, else PATH) it gets the same devices and the same policy. Its
figures are what calls of its API take, which also write to its SQLite: ``compile`` checks the policy for its
devices, ``told`` sets it, ``join`` registers a node, ``tag`` sets tags; ``MB`` is all of the server. When a
call takes longer than ten minutes it says ``inf``, and larger tailnets are left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.policy.estate import Size, login, node_of, policy_of, snapshot_of
from bench.policy.headscale import Headscale, megabytes
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from tests.needs import official

SIZES = (100, 300, 1000, 3000, 10_000)
ROUNDS = 7
CHANGES = 9
CALLS = 3  # of Headscale's, each
TARGETS: dict[int, dict[str, float]] = {
    1000: {"compile": 500, "join": 5, "tag": 10, "MB": 100},
    10_000: {"compile": 6000, "join": 20},
}
COLUMNS = ("parse", "compile", "told", "join", "join rest", "tag", "tag rest", "MB")


# --- our engine ------------------------------------------------------------------------------------------


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds of one piece of work, and what came out."""
    begun = time.process_time()
    result = work()
    return (time.process_time() - begun) * 1000, result


def told(evaluation: Evaluation, node_id: int) -> None:
    """Ask for all that a node is told."""
    evaluation.peers_of(node_id)
    evaluation.view_key(node_id)
    evaluation.filter_of(node_id)
    evaluation.ssh_of(node_id)
    evaluation.capabilities_of(node_id)


def told_all(evaluation: Evaluation, snapshot: TailnetSnapshot) -> None:
    for node_id in snapshot.nodes:
        told(evaluation, node_id)


def after(snapshot: TailnetSnapshot, node: NodeSnapshot) -> TailnetSnapshot:
    return replace(snapshot, version=snapshot.version + 1, nodes={**snapshot.nodes, node.id: node})


def changes(
    evaluation: Evaluation, snapshot: TailnetSnapshot, nodes: Iterator[NodeSnapshot]
) -> tuple[float, float]:
    """Median milliseconds of a changed node and of what it means for the others, each on top of the last."""
    first, rest = [], []
    for node in nodes:
        snapshot = after(snapshot, node)
        took, evaluation = timed(partial(_updated, evaluation, snapshot, node.id))
        first.append(took)
        rest.append(timed(partial(told_all, evaluation, snapshot))[0])
    return statistics.median(first), statistics.median(rest)


def _updated(evaluation: Evaluation, snapshot: TailnetSnapshot, node_id: int) -> Evaluation:
    following = evaluation.updated(snapshot, [node_id])
    told(following, node_id)
    return following


def measure(nodes: int, rounds: int) -> dict[str, float]:
    """All figures of one size."""
    size = Size.of(nodes)
    snapshot, text = snapshot_of(size), policy_of(size)
    gc.collect()
    before = megabytes(os.getpid())
    took = []
    for _ in range(rounds):
        evaluation = None
        parse_ms, policy = timed(partial(parse_policy, text))
        of_ms, evaluation = timed(partial(Evaluation.of, policy, snapshot))
        told_ms, _ = timed(partial(told_all, evaluation, snapshot))
        took.append((parse_ms, parse_ms + of_ms, told_ms))
    memory = megabytes(os.getpid()) - before
    parse_ms, compile_ms, told_ms = (statistics.median(column) for column in zip(*took, strict=True))
    joined = (node_of(nodes + 2 * n, size) for n in range(CHANGES))
    join_ms, join_rest = changes(evaluation, snapshot, joined)
    tagged = (replace(snapshot.nodes[2 * n + 2], tags=(f"tag:t{n + 50}",)) for n in range(CHANGES))
    tag_ms, tag_rest = changes(evaluation, snapshot, tagged)
    figures = (parse_ms, compile_ms, told_ms, join_ms, join_rest, tag_ms, tag_rest, memory)
    return dict(zip(COLUMNS, figures, strict=True))


# --- Headscale -------------------------------------------------------------------------------------------


def measure_headscale(program: str, nodes: int, folder: Path) -> dict[str, float]:
    """The same of Headscale, as far as its calls tell."""
    size = Size.of(nodes)
    server, text = Headscale(program, folder, size), policy_of(size)
    with server.serving():
        pass  # makes its tables
    server.fill()
    figures: dict[str, float] = {}
    with server.serving() as process:
        steps: dict[str, Callable[[int], float]] = {
            "compile": lambda n: server.call("POST", "/policy/check", {"policy": text}),
            "told": lambda n: server.call("PUT", "/policy", {"policy": text + "\n" * n}),
            "join": lambda n: server.join(login(n).partition("@")[0]),
            "tag": lambda n: server.tag(2 * n + 3, f"tag:t{n + 50}"),
        }
        for column, step in steps.items():
            try:
                figures[column] = statistics.median(step(n) for n in range(CALLS))
            except TimeoutError:
                figures[column] = math.inf
                break
        figures["MB"] = megabytes(process.pid)
    return figures


# --- the table -------------------------------------------------------------------------------------------


def line(name: str, nodes: int, figures: dict[str, float]) -> str:
    cells = [f"{figures[column]:>10.1f}" if column in figures else f"{'':>10}" for column in COLUMNS]
    return f"{name:<10} {nodes:>6} " + "".join(cells)


def over(nodes: int, figures: dict[str, float]) -> list[str]:
    """The promises that were not kept."""
    return [
        f"{nodes} nodes: {column} {figures[column]:.1f} instead of {target:.0f}"
        for column, target in TARGETS.get(nodes, {}).items()
        if figures[column] > target
    ]


def in_process_of_its_own(nodes: int, rounds: int) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.policy", f"--one={nodes}", f"--rounds={rounds}"]
    return dict(json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.policy", description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--one", type=int, help="print one size's figures as JSON")
    parser.add_argument("--only", choices=["trenza", "headscale"])
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.rounds)))
        return 0
    failures: list[str] = []
    print(f"{'':<10} {'nodes':>6} " + "".join(f"{column:>10}" for column in COLUMNS))
    if options.only != "headscale":
        for nodes in options.sizes:
            figures = in_process_of_its_own(nodes, options.rounds)
            failures += over(nodes, figures)
            print(line("trenza", nodes, figures), flush=True)
    program = official("headscale")
    if options.only != "trenza" and program:
        with tempfile.TemporaryDirectory(prefix="trenza-bench-") as folder:
            for nodes in options.sizes:
                figures = measure_headscale(program, nodes, Path(folder) / str(nodes))
                print(line("headscale", nodes, figures), flush=True)
                if math.inf in figures.values():
                    break
    print("\n".join(failures) or "every promise kept")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
