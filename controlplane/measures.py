"""What this server counts while it works: of one process, or of all its web workers together.

``serve`` runs several workers on one port, and whoever asks for the numbers reaches any one of them. So each
keeps its own in files in DATA, named by its place among them (not by its process: one that is started again
goes on counting), and :mod:`controlplane.metrics` adds them up. Outside ``serve`` they are in memory.

Labels have few values, whatever happens: no device, person or tailnet is one.
"""

from __future__ import annotations

import os

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector

from controlplane.env import environment
from nodes.services.registration import Outcome

SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 35)
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
OTHER = "other"

if environment().worker is not None:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(environment().measures)
    values.ValueClass = values.MultiProcessValue(lambda: environment().worker)  # type: ignore[no-untyped-call]

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()

STREAMS = Gauge(
    "trenza_map_streams",
    "Map streams of devices that are open now.",
    multiprocess_mode="livesum",
    registry=REGISTRY,
)
PUSHES = Counter("trenza_pushes", "Updates that were handed to map streams.", registry=REGISTRY)
FULL_MAPS = Counter("trenza_full_maps", "Whole maps that were made for streams.", registry=REGISTRY)
READ_SECONDS = Histogram(
    "trenza_change_read_seconds",
    "From hearing of a change until its rows are read.",
    buckets=SHORT,
    registry=REGISTRY,
)
PUSH_SECONDS = Histogram(
    "trenza_push_seconds",
    "From an update's place in line until every stream that it concerns has it.",
    buckets=SHORT,
    registry=REGISTRY,
)
REGISTRATIONS = Counter(
    "trenza_registrations", "What registrations of devices came to.", ["outcome"], registry=REGISTRY
)
RELAY_BYTES = Counter(
    "trenza_relays_bytes",
    "Bytes that relays have taken from clients and given to them.",
    ["direction"],
    registry=REGISTRY,
)
API_REQUESTS = Counter(
    "trenza_api_requests", "Requests of the public API.", ["method", "status"], registry=REGISTRY
)
API_SECONDS = Histogram(
    "trenza_api_request_seconds",
    "How long requests of the public API took, to the first byte of their answers.",
    buckets=LONG,
    registry=REGISTRY,
)

# What is counted from the start is there as 0, so that its first increase is seen.
for _outcome in Outcome:
    if _outcome is not Outcome.WAIT:
        REGISTRATIONS.labels(_outcome.value)
for _direction in ("in", "out"):
    RELAY_BYTES.labels(_direction)


def count_request(method: str, status: int, seconds: float) -> None:
    """Count one request of the public API."""
    API_REQUESTS.labels(method if method in METHODS else OTHER, str(status)).inc()
    API_SECONDS.observe(seconds)


def counted() -> CollectorRegistry:
    """What all workers have counted, or this process where there are none."""
    if environment().worker is None:
        return REGISTRY
    everybody = CollectorRegistry()
    MultiProcessCollector(everybody, path=str(environment().measures))  # type: ignore[no-untyped-call]
    return everybody
