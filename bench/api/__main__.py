"""``python -m bench.api``: what the admin API costs with 5,000 devices, as a table.

First in this process, as ``bench.panel`` does: milliseconds are the median of what one call costs its worker,
middleware and all. Then through sockets, from a real ``manage.py serve`` on SQLite with one web worker: how
many devices a second it tells of, and how fast it pushes to 1,000 streams while 100 a second are asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.push.__main__ import CHECKOUT, Load, Row, Server, measure_changes, percentile

DEVICES = 5000
ROUNDS = 9
LIST_MS = 400.0
ONE_MS = 30.0
CALLS_A_SECOND = 100.0
PUSH_P99_MS = 100.0
SECONDS = 20.0
STREAMS = 1000
CHANGES = 20
CALLS: tuple[tuple[str, float], ...] = (
    ("/tailnet/-/devices?fields=all", LIST_MS),
    ("/tailnet/-/devices", LIST_MS),
    ("/tailnet/-/devices?fields=all&tags=tag:team5", LIST_MS),
    ("/tailnet/-/devices?hostname=linux-00001", LIST_MS),
    ("/device/{node}?fields=all", ONE_MS),
    ("/device/{node}", ONE_MS),
    ("/device/{node}/routes", ONE_MS),
    ("/device/{node}/attributes", ONE_MS),
    ("/tailnet/-/settings", ONE_MS),
)


# --- in this process -------------------------------------------------------------------------------------


def measure(client: Any, path: str, rounds: int) -> tuple[float, int, int]:
    """Median milliseconds, queries and bytes of one call."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    def call() -> bytes:
        answer = client.get(f"/api/v2{path}")
        content = b"".join(answer) if answer.streaming else answer.content
        if answer.status_code != 200:
            raise RuntimeError(f"{path}: {answer.status_code} {content[:200]!r}")
        return content

    with CaptureQueriesContext(connection) as captured:
        size = len(call())
    queries = len(captured)
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        call()
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took), queries, size


def in_process(devices: int, rounds: int) -> bool:
    """Fill a database and print the table; whether every promise was kept."""
    from django.core.management import call_command
    from django.test import Client

    from bench.api.populate import fill

    call_command("prepare")
    ids, (token, *_) = fill(devices, tokens=1)
    client = Client(headers={"authorization": f"Bearer {token}"})
    kept = True
    print(f"{devices} devices")
    print(f"{'call':<48} {'ms':>7} {'target':>7} {'queries':>8} {'KB':>8}")
    for path, target in CALLS:
        took, queries, size = measure(client, path.format(node=ids[devices // 2]), rounds)
        kept = kept and took <= target
        told = f"{path:<48} {took:>7.1f} {target:>7.0f} {queries:>8} {size / 1000:>8.1f}"
        print(told + ("  over" if took > target else ""), flush=True)
    return kept


# --- through sockets -------------------------------------------------------------------------------------


def cpu_seconds(pid: int) -> float:
    """CPU time of a process with the threads that have ended: each request has one of its own."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Calls:
    """The process that calls the API."""

    def __init__(self, server: Server, given: Path, *, seconds: float, rate: float) -> None:
        command = [sys.executable, "-m", "bench.api.calls", f"--port={server.port}", f"--given={given}"]
        self.process = subprocess.Popen(
            [*command, f"--seconds={seconds}", f"--rate={rate}"],
            stdout=subprocess.PIPE,
            text=True,
            cwd=CHECKOUT,
        )

    def result(self) -> dict[str, Any]:
        out, _ = self.process.communicate()
        if self.process.returncode:
            raise SystemExit("the calls failed")
        return dict(json.loads(out))

    def stop(self) -> None:
        self.process.terminate()
        self.process.communicate()


def through_sockets(devices: int, streams: int, seconds: float, folder: Path) -> Iterator[Row]:
    """What one served process does; the pushes are those of ``bench.push``."""
    folder.mkdir()
    server, keys, given = Server(folder), folder / "keys.json", folder / "given.json"
    server.run("manage.py", "prepare")
    server.run("manage.py", "firststart")
    server.run("-m", "bench.push.populate", str(streams + 1), str(keys))
    server.run("-m", "bench.api.populate", str(devices), str(given))
    with server.serving() as worker:
        before = cpu_seconds(worker)
        told = Calls(server, given, seconds=seconds, rate=0).result()
        spent = cpu_seconds(worker) - before
        rate = told["calls"] / told["seconds"]
        yield Row("api", "GETs of one device", rate, "/s")
        yield Row("api", "one takes the process", 1000 / rate, "ms", 1000 / CALLS_A_SECOND)
        yield Row("api", "CPU of one", 1000 * spent / told["calls"], "ms")
        yield Row("api", "one takes its client: p50", 1000 * percentile(told["took"], 0.50), "ms")
        yield Row("api", "one takes its client: p99", 1000 * percentile(told["took"], 0.99), "ms")
        load = Load("upgrade", keys, server)
        try:
            load.ask("connect")
            yield from measure_changes(load, worker, "calm", "report", CHANGES, None)
            calls = Calls(server, given, seconds=600, rate=CALLS_A_SECOND)
            try:
                time.sleep(2)
                yield from measure_changes(load, worker, "meanwhile", "report", CHANGES, PUSH_P99_MS)
                yield from measure_changes(load, worker, "meanwhile", "rotate", CHANGES, None)
            finally:
                calls.stop()
        finally:
            load.close()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.api", description=__doc__)
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--streams", type=int, default=STREAMS)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--only", choices=["process", "sockets"])
    options = parser.parse_args()
    kept = True
    with tempfile.TemporaryDirectory(prefix="trenza-bench-") as name:
        folder = Path(name)
        if options.only != "sockets":
            os.environ |= {"TRENZA_DATA": str(folder / "data"), "TRENZA_URL": "http://localhost:8080"}
            os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
            import django

            django.setup()
            kept = in_process(options.devices, options.rounds)
        if options.only != "process":
            print(f"\n{options.streams} streams, {options.devices} devices, {os.cpu_count()} cores")
            print(f"{'':<10} {'':<34} {'measured':>14} {'target':>12} {'ratio':>6}")
            for row in through_sockets(options.devices, options.streams, options.seconds, folder / "served"):
                kept = kept and (row.target is None or row.measured <= row.target)
                print(row, flush=True)
    return 0 if kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
