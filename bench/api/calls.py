"""A program that asks for one device after another, over a few connections, each with a token of its own.

Prints ``{"calls": n, "seconds": s, "took": [s, …]}``.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CONNECTIONS = 4
TOKEN_CALLS = 500  # with one token, before the next is taken: below its limit


def call(port: int, ids: list[str], tokens: list[str], until: float, rate: float) -> list[float]:
    """How long each call of one connection took; ``rate`` calls a second, 0 = as many as are answered."""
    took: list[float] = []
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    due = time.perf_counter() + random.random() / max(rate, 1)
    while (now := time.perf_counter()) < until:
        if rate:
            time.sleep(max(0.0, due - now))
            due = max(due, now - 1) + 1 / rate
        begun = time.perf_counter()
        token = tokens[len(took) // TOKEN_CALLS % len(tokens)]
        path = f"/api/v2/device/{random.choice(ids)}?fields=all"
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        answer = connection.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{answer.status}: {content[:200]!r}")
        took.append(time.perf_counter() - begun)
    return took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--given", type=Path, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, required=True)
    options = parser.parse_args()
    given = json.loads(options.given.read_text())
    begun = time.perf_counter()
    until, rate = begun + options.seconds, options.rate / CONNECTIONS
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        callers = [
            pool.submit(call, options.port, given["ids"], given["tokens"][number::CONNECTIONS], until, rate)
            for number in range(CONNECTIONS)
        ]
    took = [one for caller in callers for one in caller.result()]
    print(json.dumps({"calls": len(took), "seconds": time.perf_counter() - begun, "took": took}))


if __name__ == "__main__":
    main()
