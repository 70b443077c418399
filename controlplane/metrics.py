"""The server's numbers for Prometheus: what its workers have counted, and what the database says now.

What is a fact of the database is read from it when somebody asks: that is true whichever process did it, also
Celery's. Servers that share a database all say the same of it; what they counted is each one's own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from django.db import DatabaseError
from django.db.models import Count, Min, Q
from django.utils import timezone
from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector, CollectorRegistry

from accounts.models import Outbox, Tailnet
from accounts.tenancy import totals
from controlplane.measures import counted
from controlplane.models import Relay
from controlplane.services.relaystates import RelayState, load_of, state_of
from nodes.models import Node

ABOUT_DATABASE = "1 while the database answers; what is read from it is missing otherwise."


def exposition() -> bytes:
    """Everything in Prometheus' text format."""
    read = CollectorRegistry()
    read.register(DatabaseCollector())
    return generate_latest(counted()) + generate_latest(read)


class DatabaseCollector(Collector):
    """Five queries over all tailnets together."""

    def describe(self) -> list[Metric]:
        """Nothing is read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        now = timezone.now()
        try:
            found = [*_tailnets(), *_nodes(now), *_relays(now), *_outbox(now)]
        except DatabaseError:
            found = []
        yield GaugeMetricFamily("trenza_database_up", ABOUT_DATABASE, value=1 if found else 0)
        yield from found


def _tailnets() -> Iterator[Metric]:
    yield GaugeMetricFamily("trenza_tailnets", "Tailnets.", value=Tailnet.objects.count())


def _nodes(now: datetime) -> Iterator[Metric]:
    states = GaugeMetricFamily("trenza_nodes", "Devices, by state.", labels=["state"])
    numbers = {row["state"]: row["n"] for row in totals("nodes.Node", "state", n=Count("pk"))}
    for state in Node.State:
        states.add_metric([state.value], numbers.get(state.value, 0))
    yield states
    (online,) = totals("nodes.Presence", where=Q(expires__gt=now), n=Count("pk"))
    yield GaugeMetricFamily("trenza_nodes_online", "Devices that are connected.", value=online["n"])


def _relays(now: datetime) -> Iterator[Metric]:
    relays = list(Relay.objects.all())
    states = GaugeMetricFamily("trenza_relays", "Relays, by state.", labels=["state"])
    for state in RelayState:
        states.add_metric([state.value], sum(state_of(relay, now) is state for relay in relays))
    yield states
    clients = sum(load_of(relay, now).clients for relay in relays)
    yield GaugeMetricFamily("trenza_relays_clients", "Devices that are connected to relays.", value=clients)


def _outbox(now: datetime) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("trenza_outbox_waiting", "Deliveries to be made.", labels=["kind"])
    oldest = GaugeMetricFamily(
        "trenza_outbox_oldest_seconds", "How long the oldest of them has waited.", labels=["kind"]
    )
    open_ones = Q(delivered_at__isnull=True, failed_at__isnull=True)
    rows = totals("accounts.Outbox", "kind", where=open_ones, n=Count("pk"), first=Min("created"))
    found = {row["kind"]: row for row in rows}
    for kind in Outbox.Kind:
        row = found.get(kind.value)
        waiting.add_metric([kind.value], row["n"] if row else 0)
        oldest.add_metric([kind.value], max(0.0, (now - row["first"]).total_seconds()) if row else 0)
    yield from (waiting, oldest)
