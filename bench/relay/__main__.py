"""``python -m bench.relay``: 64, 350 and 1400 bytes, plain and TLS, against derper; a table with ratios.

For each load the two relays take turns, and medians of all turns are shown:

- *bulk*: senders keep a window of packets in flight: packets delivered a second, and the relay's CPU time for
  each. Generator and relay share the machine's cores, so trust the CPU time more than the packets a second.
- *paced*: both relays get the same packets a second, half of what the slower one delivered in bulk: latency.

derper is found by TRENZA_DERPER or PATH; without it the ratios are left out. On a busy machine ``--realtime``
keeps other work out of the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.relay.relays import CHECKOUT, RunningRelay, derper, find_derper, trenza

SOURCE = Path(__file__).with_name("load.c")
PROGRAM = CHECKOUT / "bench" / "build" / "load"
FAN_OUT, SINGLE = 1, 2  # flags of load.c
PACED_SHARE = 0.5
GENERATOR_BOUND = 0.9  # of a core: the relay could deliver more than that


@dataclass(frozen=True, slots=True)
class Load:
    """What the generator does. ``window``: packets in flight of each sender; derper queues 32, no more."""

    name: str
    size: int
    senders: int = 8
    window: int = 32
    flags: int = 0


BULK = tuple(Load(f"bulk {size} B", size) for size in (64, 350, 1400))
OTHERS = (
    Load("fan-out 350 B", 350, senders=16, window=32, flags=FAN_OUT),
    Load("1 write/packet 1400 B", 1400, flags=SINGLE),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One turn of the generator."""

    pps: float
    cpu_us: float  # the relay's, for each delivered packet
    p50: float
    p99: float
    bad: int
    generator: float  # how much of a core the generator itself used

    @classmethod
    def median(cls, turns: Sequence[Result]) -> Result:
        def middle(name: str) -> float:
            return statistics.median(getattr(turn, name) for turn in turns)

        return cls(
            pps=middle("pps"),
            cpu_us=middle("cpu_us"),
            p50=middle("p50"),
            p99=middle("p99"),
            bad=sum(turn.bad for turn in turns),
            generator=middle("generator"),
        )


def compile_generator() -> None:
    """``cc`` makes bench/build/load when the source is newer; exits with one line when it cannot."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime >= SOURCE.stat().st_mtime:
        return
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O2", "-Wall", "-Wextra", "-o", str(PROGRAM), str(SOURCE), "-lssl", "-lcrypto"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise SystemExit("bench.relay needs a C compiler: apt install build-essential libssl-dev") from None
    except subprocess.CalledProcessError as error:
        first = next(iter(error.stderr.splitlines()), "")
        raise SystemExit(f"cannot compile load.c (apt install libssl-dev?): {first}") from None


def measure(relay: RunningRelay, load: Load, seconds: float, rate: float = 0) -> Result:
    """One turn: new clients, a warm-up, then ``seconds`` of load."""
    arguments = [relay.port, int(relay.tls), load.size, load.senders, load.window, rate, load.flags, seconds]
    process = subprocess.run(
        [str(PROGRAM), *map(str, arguments), str(relay.pid)],
        input=relay.clients(2 * load.senders),
        capture_output=True,
        check=False,
    )
    if process.returncode:
        raise SystemExit(f"{relay.name}, {load.name}: {process.stderr.decode().strip()}")
    found = json.loads(process.stdout)
    seconds = found["seconds"]
    return Result(
        pps=found["delivered"] / seconds,
        cpu_us=found["cpu"] / max(1, found["delivered"]) * 1e6,
        p50=found["p50"],
        p99=found["p99"],
        bad=found["bad"],
        generator=found["own"] / seconds,
    )


def take_turns(
    relays: Sequence[RunningRelay], load: Load, rounds: int, seconds: float, rate: float = 0
) -> list[Result]:
    """The median result of each relay; they alternate, so that whatever else the machine does hits both."""
    turns: list[list[Result]] = [[] for _ in relays]
    for _ in range(rounds):
        for number, relay in enumerate(relays):
            turns[number].append(measure(relay, load, seconds, rate))
    return [Result.median(results) for results in turns]


HEADER = (
    f"{'load':<28}{'kpps':>8}{'derper':>8}{'ratio':>7} |{'µs CPU':>7}{'derper':>8}{'ratio':>7} |"
    f"{'at kpps':>8}{'p50 µs':>7}{'derper':>7}{'p99 µs':>8}{'derper':>7}{'ratio':>7}"
)


def row(name: str, bulk: Sequence[Result], paced: Sequence[Result], rate: float) -> str:
    """Ratios above 1 are in our favour; without derper they and its figures are dashes."""

    def pair(values: list[float], width: int, digits: int, *, less_is_better: bool) -> str:
        first = f"{values[0]:>{width}.{digits}f}"
        if len(values) == 1:
            return f"{first}{'-':>8}{'-':>7}"
        ratio = values[1] / values[0] if less_is_better else values[0] / values[1]
        return f"{first}{values[1]:>8.{digits}f}{ratio:>6.1f}x"

    kpps = pair([one.pps / 1000 for one in bulk], 8, 0, less_is_better=False)
    cpu = pair([one.cpu_us for one in bulk], 7, 2, less_is_better=True)
    kpps += "*" if bulk[0].generator >= GENERATOR_BOUND else " "
    p50 = "".join(f"{one.p50:>7.0f}" for one in paced) + ("" if len(paced) > 1 else f"{'-':>7}")
    p99 = pair([one.p99 for one in paced], 8, 0, less_is_better=True)
    return f"{name:<28}{kpps}|{cpu} |{rate / 1000:>8.0f}{p50}{p99}"


def run(loads: Sequence[Load], binary: str | None, rounds: int, seconds: float) -> int:
    """Print the table; returns the exit status: 1 when a frame came out wrong."""
    bad = 0
    print(HEADER, flush=True)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        for tls in (False, True):
            relays = [stack.enter_context(trenza(folder, tls))]
            if binary:
                relays.append(stack.enter_context(derper(binary, folder, tls)))
            for load in loads:
                bulk = take_turns(relays, load, rounds, seconds)
                rate = PACED_SHARE * min(one.pps for one in bulk)
                paced = take_turns(relays, load, rounds, seconds, rate)
                bad += sum(one.bad for one in (*bulk, *paced))
                print(row(f"{'TLS' if tls else 'plain'} {load.name}", bulk, paced, rate), flush=True)
    print(f"medians of {rounds} turns of {seconds:g} s; {bad} wrong frames; {os.cpu_count()} cores", end="")
    print("; *: the generator was busy all the time with our relay, which could deliver more")
    return int(bad > 0)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description="The relay beside derper.")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each relay and load (default 3)")
    parser.add_argument("--seconds", type=float, default=1.5, help="length of a turn (default 1.5)")
    parser.add_argument("--quick", action="store_true", help="bulk loads only")
    parser.add_argument(
        "--realtime", action="store_true", help="root: what else the machine does waits (short turns only)"
    )
    options = parser.parse_args(arguments)
    if options.realtime:
        take_real_time()
    compile_generator()
    binary = find_derper()
    if binary is None:
        print("no derper (set TRENZA_DERPER or put it in PATH): our figures only, no ratios")
    loads = BULK if options.quick else (*BULK, *OTHERS)
    print("\n".join(describe(load) for load in loads))
    return run(loads, binary, options.rounds, options.seconds)


def take_real_time() -> None:
    """Real-time priority for generator and relays alike: on a busy machine latencies would be the others'."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:
        raise SystemExit("--realtime needs root (or CAP_SYS_NICE); leave it out on a calm machine") from None


def describe(load: Load) -> str:
    to = "all receivers in turn" if load.flags & FAN_OUT else "a receiver of its own"
    writes = ", one write for each packet" if load.flags & SINGLE else ""
    return f"{load.name}: {load.senders} senders, each {load.window} packets in flight to {to}{writes}"


if __name__ == "__main__":
    sys.exit(main())
