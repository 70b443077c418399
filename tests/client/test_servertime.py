"""By which time keys run out, whatever happens to the host's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from client.servertime import ServerTime

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Clocks:
    """The host's, which somebody may set, and the steady one."""

    def __init__(self) -> None:
        self.host, self.steady = NOW, 100.0
        self.time = ServerTime(host=lambda: self.host, steady=lambda: self.steady)

    def pass_by(self, seconds: float) -> None:
        self.steady += seconds
        self.host += timedelta(seconds=seconds)


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


def test_before_the_server_spoke_it_is_the_hosts_time(clocks: Clocks) -> None:
    clocks.pass_by(60)
    assert clocks.time.now() == NOW + timedelta(minutes=1)
    assert clocks.time.skew() == timedelta()


@pytest.mark.parametrize("step", [timedelta(hours=24), timedelta(hours=-24), timedelta(minutes=10)])
def test_a_clock_that_is_set_moves_nothing(clocks: Clocks, step: timedelta) -> None:
    clocks.time.tell(NOW)
    clocks.pass_by(60)
    clocks.host += step
    assert clocks.time.now() == NOW + timedelta(minutes=1)
    assert clocks.time.skew() == step


def test_what_is_no_time_is_not_believed(clocks: Clocks) -> None:
    for moment in (datetime.max.replace(tzinfo=UTC), datetime.min.replace(tzinfo=UTC)):
        clocks.time.tell(moment)
        assert clocks.time.now() == NOW
