"""Why a pair stays on the relay: the sentence must name the network that is at fault."""

from __future__ import annotations

import pytest

from client.magicsock.netcheck import Report
from client.magicsock.reasons import explained
from wire.paths import Reason

EASY = Report(udp=True, mapping_varies_by_dest_ip=False)
HARD = Report(udp=True, mapping_varies_by_dest_ip=True)
PUBLIC, PRIVATE, OWN_PORT = ("203.0.113.7", 6001), ("192.168.1.5", 41641), ("203.0.113.7", 41641)
SIX = (("2001:db8::7", 1), ("2001:db8::7", 2))


@pytest.mark.parametrize(
    ("report", "named", "expected"),
    [
        (EASY, (PUBLIC, PRIVATE), Reason.SILENT),
        (EASY, (PUBLIC, OWN_PORT, PRIVATE), Reason.HARD_NAT_THERE),
        (HARD, (PUBLIC, PRIVATE), Reason.HARD_NAT_HERE),
        (HARD, (PUBLIC, OWN_PORT), Reason.HARD_NAT_BOTH),
        (EASY, (PRIVATE,), Reason.UDP_BLOCKED_THERE),
        (EASY, (*SIX, PUBLIC), Reason.SILENT),
        (EASY, (), Reason.SILENT),
        (Report(udp=True, mapping_varies_by_dest_ip=True, mapped=PUBLIC), (PUBLIC,), Reason.SILENT),
        (Report(), (PUBLIC, OWN_PORT), Reason.UDP_BLOCKED_HERE),
        (None, (PUBLIC,), Reason.SILENT),
    ],
)
def test_a_silent_peer(report: Report | None, named: tuple[tuple[str, int], ...], expected: Reason) -> None:
    assert explained(Reason.SILENT, report, named) is expected


def test_blocked_udp_is_said_at_once_but_not_of_idle_peers() -> None:
    assert explained(Reason.LOOKING, Report(), ()) is Reason.UDP_BLOCKED_HERE
    assert explained(Reason.LOOKING, HARD, ()) is Reason.LOOKING
    for reason in (Reason.IDLE, Reason.NO_DISCO, None):
        assert explained(reason, Report(), ()) is reason
