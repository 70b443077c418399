"""Flows are counted while the server asks for it, told once, and never under another name."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client.control.link import Answer
from client.errors import ControlError, SetupError
from client.flows import reporter as module
from client.flows.reporter import MAX_WAITING, FlowReporter
from client.flows.table import Count, Ends, Reading
from client.magicsock.results import PathStatus
from tests.client.fakes import FakeFlowTable, netmap, node
from wire.flows import CAPABILITY, PATH, Flow, FlowReport, parse_report
from wire.keys import NodePublic
from wire.netmap import NetMap

KEY = NodePublic(bytes(range(32)))
NOW = datetime(2026, 5, 1, tzinfo=UTC)
WANTED = netmap(node(2), own=node(1, cap_map={CAPABILITY: None}))
UNWANTED = netmap(node(2))
READING = Reading(went={Ends(6, "100.64.0.1", 40000, "100.64.0.2", 22): Count(1, 60)})
FLOW = Flow(proto=6, src="100.64.0.1:40000", dst="100.64.0.2:22", tx_packets=1, tx_bytes=60)


@dataclass
class FakeLink:
    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def request(self, method: str, path: str, body: bytes) -> Answer:
        assert (method, path) == ("POST", PATH)
        if not self.status:
            raise ControlError("it is gone")
        self.asked.append(json.loads(body))
        return Answer(self.status, {}, b"{}")


@dataclass
class FakeSession:
    link: FakeLink = field(default_factory=FakeLink)


@dataclass
class FakeTunnel:
    netmap: NetMap | None = None
    flows: FakeFlowTable = field(default_factory=FakeFlowTable)
    sent: int = 0

    def live_paths(self) -> dict[int, PathStatus]:
        return {2: PathStatus(current=("192.0.2.7", 41641), tx_bytes=self.sent, active=True)}

    all_paths = live_paths


@dataclass
class Setting:
    tunnel: FakeTunnel = field(default_factory=lambda: FakeTunnel(WANTED))
    session: FakeSession | None = field(default_factory=FakeSession)
    server: str = "https://vpn.example.com"
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.link = self.session.link if self.session else FakeLink()
        self.reporter = FlowReporter(
            tunnel=self.tunnel,
            server=lambda: self.server,
            session=lambda: self.session,  # type: ignore[arg-type, return-value]
            key=lambda: KEY,
            now=lambda: self.now,
        )

    async def look(self, *readings: Reading) -> list[FlowReport]:
        """One look a minute later; what has been told so far."""
        self.tunnel.flows.readings += readings
        self.now += timedelta(minutes=1)
        await self.reporter.look()
        return [parse_report(body) for body in self.link.asked]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PERIOD_SECONDS", "SPREAD_SECONDS"):
        monkeypatch.setattr(module, name, 0.0)


async def test_nothing_is_counted_where_nobody_asks() -> None:
    setting = Setting(FakeTunnel(UNWANTED))
    assert await setting.look(READING) == []
    setting.tunnel.netmap = None
    assert await setting.look(READING) == []
    assert setting.tunnel.flows.opened == 0


async def test_what_was_counted_is_told_once_with_its_time() -> None:
    setting = Setting()
    assert await setting.look() == []
    setting.tunnel.sent = 100
    carried = Flow(src="100.64.0.2:0", dst="192.0.2.7:41641", tx_bytes=100)
    told = FlowReport(
        start=NOW + timedelta(minutes=1),
        end=NOW + timedelta(minutes=2),
        virtual=(FLOW,),
        physical=(carried,),
    )
    assert await setting.look(READING) == [told]
    assert await setting.look() == [told], "silence is not told"
    assert setting.link.asked[0]["NodeKey"] == str(KEY)
    later = (await setting.look(READING))[-1]
    assert (later.start, later.end) == (NOW + timedelta(minutes=3), NOW + timedelta(minutes=4))


async def test_a_period_is_a_minute_or_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PERIOD_SECONDS", 1000.0)
    setting = Setting()
    for _ in range(3):
        assert await setting.look(READING) == []
    assert setting.tunnel.flows.readings == [READING] * 3


async def test_switched_off_it_ends_and_what_waits_is_forgotten() -> None:
    setting = Setting(session=None)
    await setting.look()
    await setting.look(READING)
    setting.tunnel.netmap = UNWANTED
    await setting.look()
    assert not setting.tunnel.flows.is_open
    setting.session, setting.tunnel.netmap = FakeSession(setting.link), WANTED
    assert await setting.look() == []
    assert setting.tunnel.flows.is_open


async def test_without_the_server_so_many_minutes_wait_and_come_one_by_one() -> None:
    setting = Setting(session=None)
    await setting.look()
    for _ in range(MAX_WAITING + 3):
        await setting.look(READING)
    setting.session = FakeSession(setting.link)
    for number in range(1, MAX_WAITING + 1):
        assert len(await setting.look()) == number
    told = await setting.look()
    assert len(told) == MAX_WAITING
    assert told[0].end == NOW + timedelta(minutes=1 + 4), "the oldest were given up"


@pytest.mark.parametrize("status", [0, 429, 503])
async def test_a_server_that_is_busy_or_gone_is_told_later(status: int) -> None:
    setting = Setting()
    await setting.look()
    setting.link.status = status
    await setting.look(READING)
    setting.link.status, setting.link.asked = 200, []
    assert [report.virtual for report in await setting.look()] == [(FLOW,)]


@pytest.mark.parametrize("status", [400, 403])
async def test_what_a_server_does_not_take_is_not_offered_again(status: int) -> None:
    setting = Setting()
    await setting.look()
    setting.link.status = status
    await setting.look(READING)
    assert len(await setting.look()) == 1


async def test_a_server_that_knows_nothing_of_it_is_left_alone() -> None:
    setting = Setting()
    await setting.look()
    setting.link.status = 404
    for _ in range(3):
        await setting.look(READING)
    assert len(setting.link.asked) == 1


async def test_another_account_never_tells_the_flows_of_the_one_before() -> None:
    setting = Setting(session=None)
    await setting.look()
    await setting.look(READING)
    setting.server = "https://other.example.com"
    setting.session = FakeSession(setting.link)
    assert await setting.look(READING) == [], "counting begins anew, what waited is dropped"
    assert setting.tunnel.flows.opened == 2
    setting.tunnel.flows.readings.clear()
    assert len(await setting.look(READING)) == 1


async def test_a_tunnel_that_went_down_and_up_is_counted_anew() -> None:
    setting = Setting()
    await setting.look()
    await setting.tunnel.flows.close()
    assert await setting.look(READING) == []
    assert setting.tunnel.flows.opened == 2


async def test_a_host_that_cannot_count_says_so_once_and_is_asked_again_later(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = Setting()
    setting.tunnel.flows.failure = SetupError("nft refuses it")
    for _ in range(3):
        await setting.look()
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)
    setting.reporter._try_at = 0.0
    await setting.look()
    said = [record for record in caplog.records if record.levelname == "WARNING"]
    assert [record.getMessage() for record in said] == ["network flows are not counted: nft refuses it"]
    setting.tunnel.flows.failure = None
    await setting.look()
    assert setting.tunnel.flows.is_open


async def test_a_host_that_slept_long_tells_at_most_a_day() -> None:
    setting = Setting()
    await setting.look()
    setting.now += timedelta(days=3)
    (told,) = await setting.look(READING)
    assert told.end - told.start == timedelta(days=1)
    setting.now -= timedelta(days=1)  # its clock was set
    assert (await setting.look(READING))[-1].virtual == (FLOW,)
