"""What WireGuard carried, by peer and by where it was reached."""

from __future__ import annotations

from client.flows.carried import Carried
from client.magicsock.results import PathStatus
from tests.client.fakes import netmap, node
from wire.flows import Flow

MAP = netmap(node(2), node(3))
DIRECT, ELSEWHERE = ("192.0.2.7", 41641), ("2001:db8::7", 41641)
PEER = "100.64.0.2:0"


def direct(sent: int, received: int, place: tuple[str, int] = DIRECT) -> PathStatus:
    return PathStatus(current=place, tx_bytes=sent, rx_bytes=received, active=True)


def relayed(sent: int, received: int, region: int = 900) -> PathStatus:
    return PathStatus(relay_region=region, tx_bytes=sent, rx_bytes=received, active=True)


def test_what_was_counted_before_is_not_of_this_time() -> None:
    carried = Carried({2: direct(1000, 5000)})
    carried.see({2: direct(1000, 5000)}, MAP)
    assert carried.take() == ()
    carried.see({2: direct(1100, 5010)}, MAP)
    assert carried.take() == (Flow(src=PEER, dst="192.0.2.7:41641", tx_bytes=100, rx_bytes=10),)
    assert carried.take() == ()


def test_each_path_has_its_share_and_a_relay_is_told_by_its_region() -> None:
    carried = Carried({})
    carried.see({2: relayed(10, 20)}, MAP)
    carried.see({2: relayed(15, 20)}, MAP)
    carried.see({2: direct(115, 220, ELSEWHERE)}, MAP)
    assert carried.take() == (
        Flow(src=PEER, dst="127.3.3.40:900", tx_bytes=15, rx_bytes=20),
        Flow(src=PEER, dst="[2001:db8::7]:41641", tx_bytes=100, rx_bytes=200),
    )
    carried.see({3: relayed(1, 1, region=70000)}, MAP)
    assert [flow.dst for flow in carried.take()] == ["127.3.3.40:0"]


def test_counters_that_begin_anew_and_peers_that_are_gone() -> None:
    carried = Carried({2: direct(1000, 1000)})
    carried.see({2: direct(7, 3), 99: direct(5, 5)}, MAP)
    assert carried.take() == (Flow(src=PEER, dst="192.0.2.7:41641", tx_bytes=7, rx_bytes=3),)
