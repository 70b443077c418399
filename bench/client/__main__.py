"""``make bench-client``: our client beside the official ``tailscaled`` in one lab and one run.

Prints a table with the aim of each figure and the ratio to the other; ratios above 1 are in our favour. The
official client is TRENZA_TAILSCALED with TRENZA_TAILSCALE, or what PATH has. Wants a calm machine.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.client import measures
from bench.client.contenders import Field, kinds
from bench.client.measures import Figures
from tests.lab.net import Lab
from tests.needs import missing

FEW, MANY = 100, 1000
MEGABYTE = 1e6 / 2**20  # in MiB
NEEDED = ("root", "netns", "tun", "iperf3")
HEADER = f"{'':<44}{'trenza':>9}{'tailscaled':>12}{'ratio':>8}{'bare WG':>10}{'ratio':>8}   aim"


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``better`` is 1 where more is better, -1 where less is."""

    name: str
    figures: Figures
    better: int
    aim: str
    reached: Callable[[Figures], bool]
    digits: int = 0

    def text(self) -> str:
        ours, theirs, bare = (self.figures.get(name) for name in ("trenza", "tailscaled", "bare"))
        columns = f"{_number(ours, self.digits):>9}{_number(theirs, self.digits):>12}{self._ratio(theirs):>8}"
        columns += f"{_number(bare, self.digits):>10}{self._ratio(bare):>8}"
        return f"{self.name:<44}{columns}   {'ok ' if self.reached(self.figures) else 'NOT'} {self.aim}"

    def _ratio(self, other: float | None) -> str:
        ours = self.figures["trenza"]
        if other is None or ours <= 0 or other <= 0:
            return "-"
        return f"{ours / other if self.better > 0 else other / ours:.2f}x"


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def paths(field: Field, options: argparse.Namespace) -> Iterator[Row]:
    """Throughput and latency."""
    turn = {"rounds": options.rounds, "seconds": options.seconds}
    blocked = field.lab.router("blocked", udp=False)
    yield Row(
        "direct path, Mbit/s",
        measures.direct(field, **turn),
        1,
        "at least 0.95 of bare WireGuard",
        lambda found: found["trenza"] >= 0.95 * found["bare"],
    )
    yield Row(
        "relayed path, Mbit/s",
        measures.relayed(field, blocked, **turn),
        1,
        "at least 350 Mbit/s",
        lambda found: found["trenza"] >= 350,
    )
    yield Row(
        "added by load on a relayed 20 Mbit/s, ms",
        measures.bottleneck(field, blocked),
        -1,
        "under 150 ms",
        lambda found: found["trenza"] < 150,
    )


def joins(field: Field, options: argparse.Namespace) -> Iterator[Row]:
    """How soon a new device is of use."""
    routers = (field.lab.router("left"), field.lab.router("right"))
    first, flip = measures.joining(field, routers, rounds=options.rounds)
    yield Row("up with a key to the first ping, s", first, -1, "under 3 s", lambda one: one["trenza"] < 3, 2)
    yield Row("up to a direct path (easy NATs), s", flip, -1, "under 1 s", lambda one: one["trenza"] < 1, 2)


def second(field: Field, options: argparse.Namespace) -> Iterator[Row]:
    """How soon a daemon says that another one runs."""
    found = measures.refusal(field, rounds=options.rounds)
    yield Row("a second daemon is refused, s", found, -1, "under 2 s", lambda one: one["trenza"] < 2, 2)


def idle(field: Field, options: argparse.Namespace) -> Iterator[Row]:
    """What the daemon takes of the processors."""
    used = measures.idle(field, peers=FEW, seconds=options.idle_seconds)
    yield Row(f"idle with {FEW} peers, % of a core", used, -1, "under 1 %", lambda one: one["trenza"] < 1, 2)


def memory(field: Field, _: argparse.Namespace) -> Iterator[Row]:
    """What the daemon takes of the memory."""
    found = measures.memory(field, peers=MANY)
    yield Row(
        f"resident with {MANY} peers, MiB",
        found,
        -1,
        "at most 80 MB, or tailscaled's",
        lambda one: one["trenza"] <= max(80 * MEGABYTE, one.get("tailscaled", 0)),
    )
    if engine := found.get("wireguard-go"):
        both = found | {"trenza": found["trenza"] + engine}
        yield Row("  with its wireguard-go", both, -1, "(tailscaled has it inside)", lambda _: True)


# Each part, and how many devices its tailnet has from the start.
PARTS = {
    "paths": (paths, 0),
    "joins": (joins, 0),
    "second": (second, 0),
    "idle": (idle, FEW),
    "memory": (memory, MANY),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.client", description="Our client and tailscaled.")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contender (default 5)")
    parser.add_argument("--seconds", type=int, default=5, help="length of a turn of iperf3 (default 5)")
    parser.add_argument(
        "--idle-seconds", type=int, default=60, help="how long idling is watched (default 60)"
    )
    parser.add_argument("--only", choices=PARTS, help="one part of the table")
    options = parser.parse_args(arguments)
    if reasons := [reason for name in NEEDED if (reason := missing(name))]:
        raise SystemExit(f"bench.client cannot run: {'; '.join(reasons)}")
    if len(kinds()) == 1:
        print("no official client (set TRENZA_TAILSCALED and TRENZA_TAILSCALE): our figures only, no ratios")
    print(HEADER, flush=True)
    for name in [options.only] if options.only else PARTS:
        measure, devices = PARTS[name]
        with Lab() as lab:
            field = Field(lab, devices=devices)
            for row in measure(field, options):
                print(row.text(), flush=True)
            field.server.stop()
    print(f"medians of {options.rounds} turns of {options.seconds} s; {os.cpu_count()} cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
