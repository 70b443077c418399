"""Reports of flows: what is written is read back, exit nodes' destinations never, and nonsense not at all."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wire.errors import MessageError
from wire.flows import MAX_COUNT, MAX_FLOWS, MAX_PORT, Flow, FlowReport, format_end, parse_report, report_json
from wire.keys import NodePublic

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
ENDS = st.builds(format_end, st.ip_addresses(), st.integers(0, MAX_PORT))
COUNTS = st.integers(0, MAX_COUNT)
FLOWS = st.lists(
    st.builds(
        Flow,
        proto=st.integers(0, 255),
        src=ENDS,
        dst=ENDS,
        tx_packets=COUNTS,
        tx_bytes=COUNTS,
        rx_packets=COUNTS,
        rx_bytes=COUNTS,
    ),
    max_size=5,
).map(tuple)


def body(report: FlowReport) -> dict[str, Any]:
    return dict(json.loads(json.dumps(report_json(NodePublic.zero(), report))))


def report(**kinds: tuple[Flow, ...]) -> FlowReport:
    return FlowReport(start=NOON, end=NOON + MINUTE, **kinds)


@given(virtual=FLOWS, subnet=FLOWS, physical=FLOWS)
def test_a_report_is_read_as_it_was_written(**kinds: tuple[Flow, ...]) -> None:
    written = report(**kinds)
    assert parse_report(body(written)) == written


@given(FLOWS)
def test_no_destination_of_an_exit_node_is_read(flows: tuple[Flow, ...]) -> None:
    read = parse_report(body(report(exit=flows))).exit
    for flow in read:
        assert flow.proto == 0
        for end in (flow.src, flow.dst):
            assert end in ("0.0.0.0:0", "[::]:0") or end.startswith(("100.", "[fd7a:115c:a1e0:"))
            assert end.endswith(":0")
    assert (sum(flow.tx_bytes for flow in flows) > 0) == any(flow.tx_bytes for flow in read)


def test_an_exit_nodes_flows_are_added_up_by_device() -> None:
    web = Flow(proto=6, src="100.64.0.1:40000", dst="192.0.2.1:443", tx_packets=1, tx_bytes=60)
    name = Flow(proto=17, src="100.64.0.1:40001", dst="192.0.2.9:53", rx_packets=2, rx_bytes=200)
    six = Flow(proto=6, src="[2001:db8::1]:443", dst="[fd7a:115c:a1e0::7]:5", tx_bytes=9)
    assert parse_report(body(report(exit=(web, name, six)))).exit == (
        Flow(src="100.64.0.1:0", dst="0.0.0.0:0", tx_packets=1, tx_bytes=60, rx_packets=2, rx_bytes=200),
        Flow(src="[::]:0", dst="[fd7a:115c:a1e0::7]:0", tx_bytes=9),
    )


def test_the_members_are_the_apis_and_counts_of_nothing_are_left_out() -> None:
    flow = Flow(proto=6, src="100.64.0.1:22", dst="[fd7a:115c:a1e0::2]:40000", tx_packets=1, tx_bytes=60)
    assert report(virtual=(flow,)).traffic() == {
        "virtualTraffic": [
            {
                "proto": 6,
                "src": "100.64.0.1:22",
                "dst": "[fd7a:115c:a1e0::2]:40000",
                "txPkts": 1,
                "txBytes": 60,
            }
        ]
    }


def test_a_report_is_bounded() -> None:
    flow = Flow(src="100.64.0.1:1", dst="100.64.0.2:2")
    half = (flow,) * (MAX_FLOWS // 2)
    assert parse_report(body(report(virtual=half, subnet=half)))
    for kinds in ({"virtual": (*half, flow), "subnet": half}, {"physical": (*half, *half, flow)}):
        with pytest.raises(MessageError):
            parse_report(body(report(**kinds)))


ENDLESS = {"src": "100.64.0.1:1", "dst": "100.64.0.2:2"}


@pytest.mark.parametrize(
    "change",
    [
        {"Start": ""},
        {"Start": "yesterday"},
        {"End": "2026-05-01T11:59:59Z"},
        {"End": "2026-05-02T12:00:01Z"},
        {"VirtualTraffic": "all"},
        {"VirtualTraffic": [1]},
        {"VirtualTraffic": [{}]},
        {"VirtualTraffic": [ENDLESS | {"proto": 256}]},
        {"VirtualTraffic": [ENDLESS | {"txBytes": -1}]},
        {"VirtualTraffic": [ENDLESS | {"txBytes": 2**63}]},
        {"VirtualTraffic": [ENDLESS | {"rxPkts": True}]},
        *(
            {"PhysicalTraffic": [ENDLESS | {"dst": end}]}
            for end in (
                "",
                ":",
                "100.64.0.1",
                "100.64.0.1:",
                "100.64.0.1:65536",
                "100.64.0.1:-1",
                "100.64.0.1:\u0661",
                "[100.64.0.1]:1",
                "::1:1",
                "[::1%eth0]:1",
                "[::1:1",
                "example.com:1",
                "1" * 61,
                7,
            )
        ),
    ],
)
def test_nonsense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MessageError):
        parse_report(body(report()) | change)
