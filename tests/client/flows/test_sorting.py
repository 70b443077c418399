"""Flows from counts: both ways in one, sorted by where they lead, and bounded without losing a byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.flows.sorting import MOST, Sorter, bounded
from client.flows.table import Count, Ends, Reading
from client.prefs import Prefs
from client.routing import in_use
from tests.client.fakes import netmap, node
from wire.flows import MAX_FLOWS, Flow

TCP, ICMP = 6, 1
ME, PEER, ROUTER = "100.64.0.1", "100.64.0.2", "100.64.0.3"
ME6, PEER6 = "fd7a:115c:a1e0::1", "fd7a:115c:a1e0::2"
PRINTER, CAMERA, WEB = "10.50.0.2", "192.168.7.9", "192.0.2.80"
ONE = Count(1, 60)


def router() -> object:
    texts = (f"{ROUTER}/32", "fd7a:115c:a1e0::3/128", "10.50.0.0/24")
    return node(3, allowed_ips=texts, primary_routes=("10.50.0.0/24",))


def sorter(*, accepts: bool = True) -> Sorter:
    """Of a node that reaches one network by a router, and serves another."""
    own = node(1, allowed_ips=(f"{ME}/32", f"{ME6}/128", "192.168.7.0/24"))
    shown = netmap(node(2), router(), own=own)  # type: ignore[arg-type]
    return Sorter.of(in_use(shown, Prefs().edited({"RouteAll": accepts})))


def kind_of(source: str, destination: str, **options: bool) -> str:
    found = sorter(**options).sorted(Reading(went={Ends(TCP, source, 1000, destination, 80): ONE}))
    kinds = [kind for kind, flows in found.items() if flows]
    return kinds[0] if kinds else ""


@pytest.mark.parametrize(
    ("source", "destination", "kind"),
    [
        (ME, PEER, "virtual"),
        (ME6, PEER6, "virtual"),
        (ME, "100.64.77.7", "virtual"),  # of a peer that has just gone
        (ME, PRINTER, "subnet"),
        (ME, WEB, "exit"),
        (ME6, "2001:db8::80", "exit"),
        (CAMERA, PEER, "subnet"),  # by us, as a router
        (WEB, PEER, "exit"),  # by us, as an exit node
        (CAMERA, PRINTER, "subnet"),  # from one site to another
        (ME, "100.100.100.100", ""),
        (ME, "224.0.0.251", ""),
        (ME, "255.255.255.255", ""),
        ("fe80::1", "ff02::2", ""),
    ],
)
def test_where_flows_lead(source: str, destination: str, kind: str) -> None:
    assert kind_of(source, destination) == kind


def test_a_network_that_is_not_accepted_is_anywhere() -> None:
    assert kind_of(ME, PRINTER, accepts=False) == "exit"


def test_both_ways_are_one_flow_from_this_side() -> None:
    reading = Reading(
        came={
            Ends(TCP, PEER, 22, ME, 40000): Count(9, 9000),
            Ends(ICMP, PEER6, 0, ME6, 0): Count(1, 104),
        },
        went={Ends(TCP, ME, 40000, PEER, 22): Count(5, 500)},
    )
    there = Flow(
        proto=TCP,
        src=f"{ME}:40000",
        dst=f"{PEER}:22",
        tx_packets=5,
        tx_bytes=500,
        rx_packets=9,
        rx_bytes=9000,
    )
    only_back = Flow(proto=ICMP, src=f"[{ME6}]:0", dst=f"[{PEER6}]:0", rx_packets=1, rx_bytes=104)
    assert sorter().sorted(reading) == {"virtual": (there, only_back), "subnet": (), "exit": ()}


def test_where_an_exit_node_was_used_for_is_not_told() -> None:
    went = {Ends(TCP, ME, 1000 + number, f"192.0.2.{number}", 443): ONE for number in range(20)}
    (flow,) = sorter().sorted(Reading(went=went))["exit"]
    assert flow == Flow(src=f"{ME}:0", dst="0.0.0.0:0", tx_packets=20, tx_bytes=1200)


def test_all_kinds_together_are_what_a_server_takes() -> None:
    assert sum(MOST.values()) <= MAX_FLOWS


FLOWS = st.lists(
    st.builds(
        Flow,
        proto=st.sampled_from([TCP, 17]),
        src=st.integers(1, 9).map(lambda port: f"{ME}:{port}"),
        dst=st.integers(1, 9).map(lambda port: f"[{PEER6}]:{port}"),
        tx_packets=st.integers(0, 9),
        tx_bytes=st.integers(0, 9999),
        rx_bytes=st.integers(0, 9999),
    ),
    max_size=40,
)


@given(FLOWS, st.integers(4, 20))
def test_of_too_many_the_smallest_lose_their_ports_and_nothing_else(flows: list[Flow], most: int) -> None:
    kept = bounded(flows, most)
    assert len(kept) <= most
    for name in ("tx_packets", "tx_bytes", "rx_bytes"):
        assert sum(getattr(flow, name) for flow in kept) == sum(getattr(flow, name) for flow in flows)
    whole = [flow for flow in kept if not flow.src.endswith(":0")]
    assert all(flow in flows for flow in whole)
    if len(flows) <= most:
        assert sorted(kept, key=str) == sorted(flows, key=str)
