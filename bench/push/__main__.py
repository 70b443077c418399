"""``python -m bench.push``: pushes to 1,000 streams on each carrier, and a storm of reconnects, as a table.

The server is a real ``manage.py serve`` on SQLite, the streams are real sessions in a process of their own.
Times are taken in the generator, CPU and memory from ``/proc`` of the web worker. On two cores server and
generator have one each; run it on a calm machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[2]
READY_SECONDS = 60.0
STREAMS = 1000
CHANGES = 20
PUSH_P99_MS = {"upgrade": 50.0, "websocket": 80.0}
STREAM_KB = {"upgrade": 40.0, "websocket": 100.0}
STORM_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``target`` ``None`` = nothing was promised."""

    carrier: str
    what: str
    measured: float
    unit: str
    target: float | None = None

    def __str__(self) -> str:
        told = f"{self.carrier:<10} {self.what:<34} {self.measured:>10.1f} {self.unit:<3}"
        if self.target is None:
            return told
        ratio = self.measured / self.target
        return f"{told} {self.target:>8.0f} {self.unit:<3} {ratio:>6.2f}{'' if ratio <= 1 else '  over'}"


# --- processes -------------------------------------------------------------------------------------------


def free_port(kind: socket.SocketKind = socket.SOCK_STREAM) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """``manage.py serve`` with its own DATA."""

    def __init__(self, data: Path) -> None:
        self.port = free_port()
        self.data = data
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TRENZA_")},
            "TRENZA_DATA": str(data),
            "TRENZA_URL": f"http://127.0.0.1:{self.port}",
            "TRENZA_LISTEN": f"127.0.0.1:{self.port}",
            "TRENZA_RELAY_LISTEN": f"127.0.0.1:{free_port()}",
            "TRENZA_RELAY_STUN": f"127.0.0.1:{free_port(socket.SOCK_DGRAM)}",
            "PYTHONPATH": str(CHECKOUT),
        }
        self.environment.pop("DATABASE_URL", None)
        self.environment.pop("REDIS_URL", None)

    def run(self, *arguments: str) -> None:
        command = [sys.executable, *arguments]
        subprocess.run(command, env=self.environment, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)

    @contextlib.contextmanager
    def serving(self) -> Iterator[int]:
        """The running server; gives its web worker's process."""
        with (self.data / "serve.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "manage.py", "serve"],
                env=self.environment,
                cwd=CHECKOUT,
                stdout=log,
                stderr=log,
            )
        try:
            self._wait_ready()
            yield web_worker(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5).close()
                return
            time.sleep(0.1)
        raise SystemExit(f"the server did not become ready; see {self.data / 'serve.log'}")


def web_worker(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return next(int(pid) for pid in children if b"webworker" in Path(f"/proc/{pid}/cmdline").read_bytes())


def memory_kb(pid: int) -> float:
    """The resident memory of a process that is its own."""
    fields = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(float(line.split()[1]) for line in fields if line.startswith("Private_"))


def cpu_seconds(pid: int) -> float:
    """CPU time of all threads of a process, by the scheduler's own clock."""
    stats = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(one.read_text().split()[0]) for one in stats) / 1e9


class Load:
    """The generator's process."""

    def __init__(self, carrier: str, keys: Path, server: Server) -> None:
        command = [sys.executable, "-m", "bench.push.load", f"--carrier={carrier}", f"--keys={keys}"]
        self.process = subprocess.Popen(
            [*command, f"--port={server.port}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )

    def ask(self, do: str, **options: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"do": do, **options}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit("the load generator ended")
        return dict(json.loads(line))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(30)


# --- measurements ----------------------------------------------------------------------------------------


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=1000, method="inclusive")[round(share * 1000) - 1]


def measure_changes(
    load: Load, worker: int, carrier: str, kind: str, count: int, target: float | None
) -> list[Row]:
    """Arrivals of ``count`` changes, and the server's CPU for each stream that one reached."""
    name = {"report": "a device's new endpoint", "rotate": "a rotated key (durable)"}[kind]
    before = cpu_seconds(worker)
    arrivals = load.ask("changes", kind=kind, count=count)["arrivals"]
    spent = cpu_seconds(worker) - before
    return [
        Row(carrier, f"{name}: arrival p50", 1000 * percentile(arrivals, 0.50), "ms"),
        Row(carrier, f"{name}: arrival p99", 1000 * percentile(arrivals, 0.99), "ms", target),
        Row(carrier, f"{name}: CPU a stream", 1e6 * spent / len(arrivals), "µs"),
    ]


def measure(carrier: str, streams: int, changes: int, folder: Path) -> Iterator[Row]:
    """All rows of one carrier."""
    folder.mkdir()
    server, keys = Server(folder), folder / "keys.json"
    server.run("manage.py", "prepare")
    server.run("manage.py", "firststart")
    server.run("-m", "bench.push.populate", str(streams + 1), str(keys))
    with server.serving() as worker:
        load = Load(carrier, keys, server)
        try:
            load.ask("warm")
            idle = memory_kb(worker)
            told = load.ask("connect")
            assert told == {"streams": streams, "peers": streams}, told
            each = (memory_kb(worker) - idle) / streams
            yield Row(carrier, "memory a stream", each, "KB", STREAM_KB[carrier])
            yield from measure_changes(load, worker, carrier, "report", changes, PUSH_P99_MS[carrier])
            yield from measure_changes(load, worker, carrier, "rotate", changes, None)
            before = cpu_seconds(worker)
            told = load.ask("storm")
            assert told["peers"] == streams, told
            maps = told["maps"]
            yield Row(carrier, "storm: half have their map", statistics.median(maps), "s")
            yield Row(carrier, "storm: the last has its map", maps[-1], "s", STORM_SECONDS)
            spent = cpu_seconds(worker) - before
            yield Row(carrier, "storm: CPU a client", 1000 * spent / streams, "ms")
        finally:
            load.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.push", description=__doc__)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--changes", type=int, default=CHANGES, help="changes of each kind")
    parser.add_argument("--carrier", choices=list(PUSH_P99_MS), action="append")
    options = parser.parse_args()
    print(f"{options.streams} streams, {options.changes} changes of each kind, {os.cpu_count()} cores, "
          f"load {os.getloadavg()[0]:.1f}")  # fmt: skip
    print(f"{'carrier':<10} {'':<34} {'measured':>14} {'target':>12} {'ratio':>6}")
    with tempfile.TemporaryDirectory(prefix="trenza-bench-") as folder:
        for carrier in options.carrier or PUSH_P99_MS:
            for row in measure(carrier, options.streams, options.changes, Path(folder) / carrier):
                print(row, flush=True)


if __name__ == "__main__":
    main()
