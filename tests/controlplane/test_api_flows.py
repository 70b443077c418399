"""Network flow logs: what is kept of devices' reports, for how long, and who reads it by the API."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import given
from hypothesis import strategies as st

from accounts.actors import Actor
from accounts.errors import Forbidden, LimitExceeded
from accounts.models import AuditEvent, Tailnet
from accounts.roles import Role
from accounts.services.tailnets import delete_tailnet
from accounts.tenancy import scope
from controlplane.models import FlowLog
from controlplane.netmap.engine import Engine
from controlplane.services import flows
from controlplane.services.flows import KEPT, MAX_REPORTS, fair_share, forget_old_flows, record_flows
from controlplane.snapshots import load_tailnet
from controlplane.tasks import forget_old_flows as sweep
from nodes.models import Node
from nodes.services.lifecycle import delete_node
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.controlplane import snapshots
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files
from wire.flows import CAPABILITY, Flow, FlowReport

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
NETWORK = "/tailnet/-/logging/network"
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SSH = Flow(proto=6, src="100.64.0.1:40000", dst="100.64.0.2:22", tx_packets=5, tx_bytes=500, rx_bytes=9)
CARRIED = Flow(src="100.64.0.2:0", dst="192.0.2.7:41641", tx_bytes=700)


@pytest.fixture(autouse=True)
def _no_limits_left() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


def logging_tailnet(**settings: Any) -> tuple[Tailnet, Node, Any]:
    """A tailnet that logs flows, with one device and its owner."""
    tailnet, owner = people.tailnet(flow_logging=True, **settings)
    return tailnet, machines.node(tailnet, owner), owner


def tells(node: Node, at: datetime = NOON, **kinds: tuple[Flow, ...]) -> FlowLog | None:
    report = FlowReport(start=at - MINUTE, end=at, **(kinds or {"virtual": (SSH,), "physical": (CARRIED,)}))
    return record_flows(tailnet_id=node.tailnet_id, node_id=node.pk, report=report, now=at)


def asked(api: Api, start: str = "2026-05-01T11:00:00Z", end: str = "2026-05-01T13:00:00Z") -> Any:
    return api.get(f"{NETWORK}?start={start}&end={end}")["logs"]


# --- reading -----------------------------------------------------------------------------------------------


def test_what_devices_told_is_read_in_the_apis_shape() -> None:
    tailnet, node, owner = logging_tailnet()
    tells(node)
    (log,) = asked(as_person(tailnet, owner))
    assert log == {
        "logged": "2026-05-01T12:00:00Z",
        "nodeId": node.stable_id,
        "start": "2026-05-01T11:59:00Z",
        "end": "2026-05-01T12:00:00Z",
        "virtualTraffic": [
            {
                "proto": 6,
                "src": "100.64.0.1:40000",
                "dst": "100.64.0.2:22",
                "txPkts": 5,
                "txBytes": 500,
                "rxBytes": 9,
            }
        ],
        "physicalTraffic": [{"proto": 0, "src": "100.64.0.2:0", "dst": "192.0.2.7:41641", "txBytes": 700}],
    }


def test_the_first_member_is_the_list_as_streaming_clients_need_it() -> None:
    tailnet, _, owner = logging_tailnet()
    api = as_person(tailnet, owner)
    assert api.get(f"{NETWORK}?start=2026-05-01T00:00:00Z&end=2026-05-02T00:00:00Z") == {"logs": []}
    assert api.headers["Content-Type"] == "application/json"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7])
def test_logs_come_oldest_first_each_once_in_slices(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "SLICE", 3)
    tailnet, node, owner = logging_tailnet()
    moments = [NOON + timedelta(seconds=number // 2) for number in range(count)]
    for moment in reversed(moments):  # two of each second
        tells(node, moment)
    assert [log["logged"] for log in asked(as_person(tailnet, owner))] == [
        moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in moments
    ]


def test_the_window_holds_both_its_ends_in_any_offset() -> None:
    tailnet, node, owner = logging_tailnet()
    for minutes in (-1, 0, 1, 2):
        tells(node, NOON + minutes * MINUTE)
    logs = asked(as_person(tailnet, owner), "2026-05-01T14:00:00%2B02:00", "2026-05-01T12:01:00.000000Z")
    assert [log["end"] for log in logs] == ["2026-05-01T12:00:00Z", "2026-05-01T12:01:00Z"]


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        ("", 400, "start"),
        ("?start=2026-05-01T12:00:00Z", 400, "end"),
        ("?start=yesterday&end=2026-05-01T12:00:00Z", 400, "start"),
        ("?start=2026-02-30T12:00:00Z&end=2026-05-01T12:00:00Z", 400, "start"),
        ("?start=2026-05-01T12:00:00Z&end=2026-05-01T13:00:00Z&node=1", 400, "node"),
        ("?start=2026-05-01T12:00:01Z&end=2026-05-01T12:00:00Z", 409, "before the start"),
        ("?start=2026-05-01T11:00:00Z&end=2026-05-01T13:00:00Z", 409, "shorter"),
    ],
)
def test_what_cannot_be_asked_for(
    query: str, status: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows, "MAX_ANSWER", 1)
    tailnet, node, owner = logging_tailnet()
    for second in (0, 1):
        tells(node, NOON + timedelta(seconds=second))
    refused = as_person(tailnet, owner).refusal("GET", NETWORK + query)
    assert (refused.status, words in refused.message) == (status, True), refused


def test_who_reads_them_and_who_does_not() -> None:
    tailnet, node, owner = logging_tailnet()
    other, _, stranger = logging_tailnet()
    tells(node)
    assert len(asked(as_person(tailnet, owner, "logs:network:read"))) == 1
    assert len(asked(as_client(tailnet, "all:read"))) == 1
    assert len(asked(as_person(tailnet, people.member(tailnet, Role.AUDITOR).user))) == 1
    assert asked(as_person(other, stranger)) == []
    window = "?start=2026-05-01T00:00:00Z&end=2026-05-02T00:00:00Z"
    path = f"/tailnet/{tailnet.name}/logging/network{window}"
    assert as_person(other, stranger).refusal("GET", path).status == 404
    for api in (
        as_person(tailnet, owner, "logs:configuration:read"),
        as_client(tailnet, "log_streaming"),
        as_person(tailnet, people.member(tailnet).user),
    ):
        assert api.refusal("GET", NETWORK + window).status == 403


def test_reading_costs_the_same_queries_however_many_there_are() -> None:
    tailnet, node, owner = logging_tailnet()
    api, counts = as_person(tailnet, owner), []
    asked(api)  # that the token was used is noted now and then
    for more in (1, 9):
        for number in range(more):
            tells(node, NOON + timedelta(seconds=10 * more + number))
        with CaptureQueriesContext(connection) as captured:
            asked(api)
        counts.append(len(captured))
    assert counts[0] == counts[1]


def test_logs_outlive_the_device_and_end_with_the_tailnet() -> None:
    tailnet, node, owner = logging_tailnet()
    tells(node)
    with scope(tailnet=tailnet):
        delete_node(node=node, by=Actor.person(owner))
    assert [log["nodeId"] for log in asked(as_person(tailnet, owner))] == [node.stable_id]
    delete_tailnet(tailnet=tailnet, by=Actor.person(owner))
    with connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM controlplane_flowlog")
        assert cursor.fetchone() == (0,)


# --- keeping -----------------------------------------------------------------------------------------------


def test_a_tailnet_that_does_not_log_keeps_nothing() -> None:
    tailnet, node, owner = logging_tailnet()
    Tailnet.objects.filter(pk=tailnet.pk).update(flow_logging=False)
    with pytest.raises(Forbidden):
        tells(node)
    assert asked(as_person(tailnet, owner)) == []


def test_a_report_without_flows_or_of_a_device_that_is_gone_is_none() -> None:
    tailnet, node, owner = logging_tailnet()
    assert tells(node, virtual=()) is None
    node.pk += 1000
    assert tells(node) is None
    assert asked(as_person(tailnet, owner)) == []


def test_a_device_tells_so_often_and_another_one_too() -> None:
    tailnet, node, owner = logging_tailnet()
    for _ in range(MAX_REPORTS):
        assert tells(node)
    with pytest.raises(LimitExceeded):
        tells(node)
    assert tells(machines.node(tailnet, owner, hostname="other"))
    assert tells(node, NOON + MINUTE)


def test_what_is_older_than_a_month_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "DELETED_AT_ONCE", 2)
    tailnet, node, _ = logging_tailnet()
    for number in range(5):
        tells(node, NOON + timedelta(seconds=number))
    later = NOON + KEPT
    with scope(tailnet=tailnet):
        assert forget_old_flows(tailnet=tailnet, now=later) == 0
        assert forget_old_flows(tailnet=tailnet, now=later + timedelta(seconds=3)) == 3
        assert FlowLog.objects.count() == 2


def test_beyond_the_bound_the_oldest_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet, node, _ = logging_tailnet()
    other, its_node, _ = logging_tailnet()
    tells(its_node)
    logs = [tells(node, NOON + timedelta(seconds=number)) for number in range(6)]
    size = logs[0].size + flows.ROW_BYTES  # type: ignore[union-attr]
    monkeypatch.setattr(flows, "MAX_BYTES", 2 * size + size // 2)
    monkeypatch.setattr(flows, "DELETED_AT_ONCE", 3)
    monkeypatch.setattr(flows, "KEPT", timedelta(days=10_000))
    assert sweep() == 4
    with scope(tailnet=tailnet):
        kept = list(FlowLog.objects.order_by("pk").values_list("pk", flat=True))
    assert kept == [log.pk for log in logs[-2:] if log]
    with scope(tailnet=other):
        assert FlowLog.objects.count() == 1


def test_a_device_that_tells_much_pushes_out_only_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet, node, owner = logging_tailnet()
    quiet = machines.node(tailnet, owner, hostname="quiet")
    first = tells(quiet, NOON)
    told = [tells(node, NOON + timedelta(seconds=number)) for number in range(1, 8)]
    second = tells(quiet, NOON + timedelta(seconds=9))
    size = told[0].size + flows.ROW_BYTES  # type: ignore[union-attr]
    monkeypatch.setattr(flows, "MAX_BYTES", 4 * size + size // 2)
    monkeypatch.setattr(flows, "DELETED_AT_ONCE", 2)
    monkeypatch.setattr(flows, "KEPT", timedelta(days=10_000))
    assert sweep() == 5
    with scope(tailnet=tailnet):
        kept = set(FlowLog.objects.values_list("pk", flat=True))
    assert kept == {log.pk for log in (first, second, *told[-2:]) if log}
    assert sweep() == 0


@given(st.lists(st.integers(0, 1000), max_size=8), st.integers(0, 5000))
def test_shares_fill_the_bound_and_take_from_the_largest_alone(sizes: list[int], most: int) -> None:
    share = fair_share(sizes, most)
    kept = [min(size, share) for size in sizes]
    assert sum(kept) <= most
    if sum(sizes) <= most:
        assert kept == sizes
    else:
        assert sum(min(size, share + 1) for size in sizes) > most


# --- the setting -------------------------------------------------------------------------------------------


def test_the_api_switches_it_and_the_log_says_who() -> None:
    tailnet, owner = people.tailnet()
    api = as_person(tailnet, owner)
    assert api.get("/tailnet/-/settings")["networkFlowLoggingOn"] is False
    assert api.patch("/tailnet/-/settings", {"networkFlowLoggingOn": True})["networkFlowLoggingOn"] is True
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
    assert (event.actor_type, event.old, event.new) == (
        "API_TOKEN",
        {"flow_logging": False},
        {"flow_logging": True},
    )
    assert load_tailnet(tailnet.pk).logs_flows  # type: ignore[union-attr]


def test_the_panel_says_what_is_recorded() -> None:
    _, owner = people.tailnet()
    card = Visitor(owner).fragment("/settings/card/flows").content.decode()
    assert "never what" in card
    assert "logs:network:read" in card
    assert 'action="/settings/switch/flow-logging"' in card


def test_devices_are_asked_and_only_of_a_tailnet_that_logs() -> None:
    quiet = snapshots.tailnet(snapshots.node(1), snapshots.node(2))
    engine = Engine(quiet)
    assert CAPABILITY.encode() not in engine.full_map(1, NOON)
    update = engine.update(snapshots.tailnet(*quiet.nodes.values(), logs_flows=True, version=2))
    assert not update.is_empty
    told = update.message_for(1, NOON)
    assert told is not None
    assert CAPABILITY.encode() in told
    assert b"Peers" not in told
    assert CAPABILITY.encode() in engine.full_map(2, NOON)
