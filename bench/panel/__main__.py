"""``python -m bench.panel``: what the panel's pages cost with 5,000 devices, as a table.

The server's own middleware and templates on a fresh SQLite (or ``DATABASE_URL``), asked in this process:
milliseconds are the median of what one page costs its worker, KB what crosses the network compressed.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

DEVICES = 5000
ROUNDS = 7
PAGE_MS = 100.0
SEARCH_MS = 50.0
LATER_KB = 30.0
PATHS: tuple[tuple[str, float], ...] = (
    ("/", PAGE_MS),
    ("/approvals", PAGE_MS),
    ("/approvals?kind=route", PAGE_MS),
    ("/routes", PAGE_MS),
    ("/routes?state=waiting&sort=router", PAGE_MS),
    ("/routes?show=exit-nodes", PAGE_MS),
    ("/my-devices", PAGE_MS),
    ("/my-devices?page=60", PAGE_MS),
    ("/access", PAGE_MS),
    ("/access?show=tests", PAGE_MS),
    ("/access?show=preview", PAGE_MS),
    ("/access?show=history", PAGE_MS),
    ("/devices", PAGE_MS),
    ("/devices?page=60", PAGE_MS),
    ("/devices?q=linux-03", PAGE_MS),
    ("/devices?state=offline&sort=-seen", PAGE_MS),
    ("/devices?os=macOS&sort=owner", PAGE_MS),
    ("/devices?tag=tag:server&seen=90", PAGE_MS),
    ("/devices?version=old", PAGE_MS),
    ("/devices/{node}", PAGE_MS),
    ("/devices/{node}/access", PAGE_MS),
    ("/devices/clean-up?days=90", PAGE_MS),
    ("/map", PAGE_MS),
    ("/map?rules=1", PAGE_MS),
    ("/map/data", PAGE_MS),
    ("/map/data?rules=1", PAGE_MS),
    ("/map/data?owner=tagged", PAGE_MS),
    ("/map/data?q=linux-03", PAGE_MS),
    ("/map?view=table&sort=latency", PAGE_MS),
    ("/map/devices/{node}", PAGE_MS),
    ("/relays", PAGE_MS),
    ("/users", PAGE_MS),
    ("/users?sort=seen", PAGE_MS),
    ("/users?q=person0&sort=devices", PAGE_MS),
    ("/users/invitations", PAGE_MS),
    ("/keys", PAGE_MS),
    ("/keys?show=tokens", PAGE_MS),
    ("/logs", PAGE_MS),
    ("/settings", PAGE_MS),
    ("/settings/webhooks", PAGE_MS),
    ("/search/results?q=linux-0312", SEARCH_MS),
    ("/search/results?q=nothing-like-this", SEARCH_MS),
)


def measure(client: Any, path: str, rounds: int) -> tuple[float, int, int]:
    """Median milliseconds, queries, and bytes compressed of one page."""
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as captured:
        answer = client.get(path)
    queries = len(captured)  # the next request forgets them
    if answer.status_code != 200:
        raise RuntimeError(f"{path}: {answer.status_code}")
    took = []
    for _ in range(rounds):
        begun = time.perf_counter()
        client.get(path)
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took), queries, len(gzip.compress(answer.content, 6))


def run(devices: int, rounds: int) -> bool:
    """Fill a database and print the table; whether every promise was kept."""
    from django.core.management import call_command
    from django.test import Client
    from django.utils import timezone

    from accounts.tenancy import scope
    from bench.panel import changes
    from bench.panel.populate import make_tailnet
    from nodes.models import Node

    call_command("prepare")
    tailnet, owner = make_tailnet(devices, timezone.now())
    with scope(tailnet=tailnet):
        node = Node.objects.order_by("-pk").values_list("stable_id", flat=True)[devices // 2]
    client = Client()
    client.force_login(owner, backend="django.contrib.auth.backends.ModelBackend")
    kept = True
    print(f"{devices} devices")
    print(f"{'page':<40} {'ms':>7} {'target':>7} {'queries':>8} {'KB':>7}")
    for path, target in PATHS:
        took, queries, size = measure(client, path.format(node=node), rounds)
        over = took > target or size > LATER_KB * 1000
        kept = kept and not over
        told = f"{path:<40} {took:>7.1f} {target:>7.0f} {queries:>8} {size / 1000:>7.1f}"
        print(told + ("  over" if over else ""))
    return changes.run(client, tailnet, node, rounds) and kept


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=DEVICES)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"TRENZA_DATA": str(Path(folder) / "data"), "TRENZA_URL": "http://localhost:8080"}
        os.environ["DJANGO_SETTINGS_MODULE"] = "controlplane.settings"
        import django

        django.setup()
        return 0 if run(options.devices, options.rounds) else 1


if __name__ == "__main__":
    raise SystemExit(main())
