"""The server's numbers: what they say, that workers add up, and that the dashboard shows each of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import DatabaseError, connection
from django.db.models import Count
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from accounts.models import Outbox, Tailnet, User
from accounts.services.outbox import enqueue
from accounts.tenancy import scope, totals
from controlplane import measures, metrics
from controlplane.control.register import _answer
from controlplane.env import CHECKOUT
from controlplane.services.relays import RelayIdentity, ensure_embedded_relay, record_report
from controlplane.supervisor.workers import forget_measures
from nodes.models import Node
from nodes.services.enrolment import Machine
from nodes.services.presence import claim_presence
from nodes.services.registration import RegistrationRequest
from tests import api
from tests.accounts import factories as people
from tests.nodes import factories as machines
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

DASHBOARD = CHECKOUT / "deploy" / "grafana" / "trenza.json"
Labels = frozenset[tuple[str, str]]


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return people.tailnet()


def samples() -> dict[tuple[str, Labels], float]:
    """Every number on the page, by name and labels."""
    page = Client().get("/metrics", REMOTE_ADDR="127.0.0.1").content.decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def value(name: str, **labels: str) -> float:
    return samples()[name, frozenset(labels.items())]


# --- what the database says ------------------------------------------------------------------------------


def test_devices_are_counted_over_all_tailnets(place: tuple[Tailnet, User]) -> None:
    other, stranger = people.tailnet()
    active = machines.node(*place, hostname="a", preapproved=True)
    machines.node(other, stranger, hostname="b", preapproved=True)
    machines.node(other, stranger, hostname="c")
    claim_presence(tailnet=place[0].pk, node_id=active.pk, worker="w1")
    assert value("trenza_tailnets") == 2
    assert value("trenza_nodes", state="active") == 2
    assert value("trenza_nodes", state="pending") == 1
    assert value("trenza_nodes", state="expired") == 0
    assert value("trenza_nodes_online") == 1
    assert value("trenza_database_up") == 1


def test_deliveries_that_wait_are_counted_with_their_age(place: tuple[Tailnet, User]) -> None:
    now = timezone.now()
    with scope(tailnet=place[0]):
        for number, kind in enumerate((Outbox.Kind.MAIL, Outbox.Kind.MAIL, Outbox.Kind.WEBHOOK)):
            enqueue(tailnet=place[0], kind=kind, target=f"x{number}")
        Outbox.objects.filter(target="x0").update(created=now - timedelta(hours=2))
        Outbox.objects.filter(target="x2").update(delivered_at=now)
    assert value("trenza_outbox_waiting", kind="mail") == 2
    assert 7200 <= value("trenza_outbox_oldest_seconds", kind="mail") < 7300
    assert value("trenza_outbox_waiting", kind="webhook") == 0
    assert value("trenza_outbox_oldest_seconds", kind="webhook") == 0


def test_relays_and_their_clients() -> None:
    identity = RelayIdentity(ensure_embedded_relay().pk, None)
    assert value("trenza_relays", state="new") == 1
    record_report(relay=identity, report={"type": "hello"})
    record_report(relay=identity, report={"type": "stats", "clients": 4})
    assert value("trenza_relays", state="up") == 1
    assert value("trenza_relays_clients") == 4


def test_the_database_is_asked_a_fixed_number_of_times(place: tuple[Tailnet, User]) -> None:
    counted = []
    for number in (1, 4):
        for index in range(number):
            tailnet, owner = people.tailnet()
            machines.node(tailnet, owner, hostname=f"box{index}")
        with CaptureQueriesContext(connection) as queries:
            metrics.exposition()
        counted.append(len(queries))
    assert counted == [5, 5]


def test_a_database_that_is_away_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise DatabaseError("away")

    monkeypatch.setattr(metrics, "totals", fail)
    found = samples()
    assert found["trenza_database_up", frozenset()] == 0
    assert ("trenza_nodes_online", frozenset()) not in found
    assert ("trenza_pushes_total", frozenset()) in found


def test_totals_are_sums_and_never_rows(place: tuple[Tailnet, User]) -> None:
    machines.node(*place, hostname="a")
    (row,) = totals("nodes.Node", "state", n=Count("pk"))
    assert row == {"state": Node.State.PENDING.value, "n": 1}
    assert totals("nodes.Presence", n=Count("pk")) == [{"n": 0}]


# --- what is counted -------------------------------------------------------------------------------------


def increase(name: str, **labels: str) -> Iterator[float]:
    """First nothing, then by how much a number has grown since."""
    before = samples().get((name, frozenset(labels.items())), 0.0)
    yield 0.0
    while True:
        yield samples().get((name, frozenset(labels.items())), 0.0) - before


def test_relays_bytes_only_grow(place: tuple[Tailnet, User]) -> None:
    identity = RelayIdentity(ensure_embedded_relay().pk, None)
    taken, given = (increase("trenza_relays_bytes_total", direction=one) for one in ("in", "out"))
    next(taken), next(given)
    for bytes_in, bytes_out in ((100, 10), (150, 30), (20, 5)):  # the third: it was started again
        record_report(relay=identity, report={"type": "stats", "bytes_in": bytes_in, "bytes_out": bytes_out})
    assert (next(taken), next(given)) == (170, 35)


def test_registrations_by_what_they_came_to(place: tuple[Tailnet, User]) -> None:
    key = machines.auth_key(*place, preauthorized=True)
    registered, refused = (
        increase("trenza_registrations_total", outcome=one) for one in ("registered", "refused")
    )
    next(registered), next(refused)
    for auth_key in (key, "tskey-auth-no-no"):
        machine = Machine(
            machine_key=machines.machine_key(),
            node_key=machines.node_key(),
            hostinfo={"Hostname": "box"},
            capability_version=130,
        )
        _answer(RegistrationRequest(machine=machine, auth_key=auth_key, client_address="192.0.2.1"))
    assert (next(registered), next(refused)) == (1, 1)


def test_requests_of_the_api_by_status(place: tuple[Tailnet, User]) -> None:
    caller = api.as_person(*place)
    good = increase("trenza_api_requests_total", method="GET", status="200")
    gone = increase("trenza_api_requests_total", method="GET", status="404")
    odd = increase("trenza_api_requests_total", method="other", status="401")
    took = increase("trenza_api_request_seconds_count")
    for one in (good, gone, odd, took):
        next(one)
    caller.get("/tailnet/-/settings")
    caller.refusal("GET", "/nowhere")
    Client().generic("BREW", "/api/v2/tailnet/-/settings")
    Client().get("/healthz")
    assert [next(one) for one in (good, gone, took)] == [1, 1, 3]


WORKER = """
import django
django.setup()
from controlplane import measures
measures.PUSHES.inc({pushes})
measures.STREAMS.set({streams})
measures.PUSH_SECONDS.observe(0.003)
measures.count_request("GET", 200, 0.1)
from controlplane.metrics import counted, generate_latest
print(generate_latest(counted()).decode())
"""


def work(data: Path, number: int, *, pushes: int = 0, streams: int = 0) -> dict[str, float]:
    """What a worker in this place shows, after it has counted that much."""
    environment = os.environ | {
        "TRENZA_DATA": str(data),
        "TRENZA_WORKER": str(number),
        "DJANGO_SETTINGS_MODULE": "controlplane.settings",
    }
    code = WORKER.format(pushes=pushes, streams=streams)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    families = text_string_to_metric_families(done.stdout)
    return {one.name: one.value for family in families for one in family.samples}


def test_workers_add_up_and_one_that_is_started_again_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "measures"
    forget_measures(folder)
    work(tmp_path, 0, pushes=5, streams=3)
    both = work(tmp_path, 1, pushes=2, streams=4)
    assert (both["trenza_pushes_total"], both["trenza_map_streams"]) == (7, 7)
    assert both["trenza_push_seconds_count"] == 2
    forget_measures(folder, "gauge_*_0.db")  # it has ended
    again = work(tmp_path, 0, pushes=1)
    assert (again["trenza_pushes_total"], again["trenza_map_streams"]) == (8, 4)
    forget_measures(folder)
    assert list(folder.iterdir()) == []


# --- the dashboard ---------------------------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    return [one for one in json.loads(DASHBOARD.read_text())["panels"] if one["type"] != "row"]


def test_the_dashboard_shows_each_number_and_no_other(place: tuple[Tailnet, User]) -> None:
    measures.count_request("GET", 200, 0.1)
    page = Client().get("/metrics", REMOTE_ADDR="127.0.0.1").content.decode()
    there = {
        family.name: {sample.name for sample in family.samples}
        for family in text_string_to_metric_families(page)
    }
    asked = {
        name
        for panel in panels()
        for target in panel["targets"]
        for name in re.findall(r"\btrenza_\w+", target["expr"])
    }
    everything = set().union(*there.values())
    assert asked <= everything
    assert [name for name, known in there.items() if not known & asked] == []


def test_panels_are_told_apart_and_lie_on_a_grid() -> None:
    made = json.loads(DASHBOARD.read_text())["panels"]
    assert len({one["id"] for one in made}) == len(made)
    taken: set[tuple[int, int]] = set()
    for one in made:
        at = one["gridPos"]
        cells = {(at["x"] + dx, at["y"] + dy) for dx in range(at["w"]) for dy in range(at["h"])}
        assert not cells & taken, one["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    for one in panels():
        assert one["description"], one["title"]
        assert [target["refId"] for target in one["targets"]] == sorted({t["refId"] for t in one["targets"]})


def test_no_label_names_a_tailnet_or_a_device(place: tuple[Tailnet, User]) -> None:
    node = machines.node(*place, hostname="secretive", preapproved=True)
    page = Client().get("/metrics", REMOTE_ADDR="127.0.0.1").content.decode()
    for text in (place[0].name, place[1].email, node.name, node.stable_id):
        assert text not in page
