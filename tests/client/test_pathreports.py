"""Paths told to the server: what changed, not often, to each session anew, not where they are unwanted."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from client import pathreports
from client.control.link import Answer
from client.magicsock.results import PathStatus
from client.pathreports import PathReporter, peer_paths
from wire.keys import NodePublic
from wire.paths import MAX_PATHS, PATH, PeerPath, Reason, parse_paths

KEY = NodePublic(bytes(range(32)))
DIRECT = PathStatus(current=("2001:db8::7", 41641), latency=0.0234, active=True)
RELAYED = PathStatus(relay_region=900, reason=Reason.SILENT, active=True)


@dataclass
class FakeLink:
    status: int = 200
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def request(self, method: str, path: str, body: bytes) -> Answer:
        assert (method, path) == ("POST", PATH)
        self.asked.append(json.loads(body))
        return Answer(self.status, {}, b"{}")


@dataclass
class FakeSession:
    link: FakeLink = field(default_factory=FakeLink)


@dataclass
class Setting:
    live: dict[int, PathStatus] = field(default_factory=dict)
    session: Any = field(default_factory=FakeSession)

    async def twice(self) -> None:
        await self.reporter.look()
        await self.reporter.look()

    def __post_init__(self) -> None:
        self.reporter = PathReporter(live=lambda: self.live, session=lambda: self.session, key=lambda: KEY)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pathreports, "MIN_GAP_SECONDS", 0.0)


async def test_what_changed_is_told_once() -> None:
    setting = Setting()
    await setting.reporter.look()
    assert setting.session.link.asked == []  # nothing is nothing new
    setting.live = {7: DIRECT, 3: RELAYED}
    for _ in range(3):
        await setting.reporter.look()
    (body,) = setting.session.link.asked
    assert body["NodeKey"] == str(KEY)
    assert parse_paths(body) == (
        PeerPath(node_id=3, derp_region=900, reason=Reason.SILENT),
        PeerPath(node_id=7, endpoint="[2001:db8::7]:41641", latency_ms=24),
    )
    setting.live = {}
    await setting.reporter.look()
    assert len(setting.session.link.asked) == 1  # it may be something else in a moment
    await setting.reporter.look()
    assert parse_paths(setting.session.link.asked[-1]) == ()


async def test_not_more_often_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pathreports, "MIN_GAP_SECONDS", 1000.0)
    setting = Setting({7: DIRECT})
    await setting.twice()
    setting.live = {7: RELAYED}
    await setting.twice()
    assert len(setting.session.link.asked) == 1


async def test_a_new_session_is_told_anew_and_none_is_waited_for() -> None:
    setting = Setting({7: DIRECT})
    await setting.twice()
    setting.session = None
    await setting.reporter.look()
    setting.session = FakeSession()
    await setting.reporter.look()
    assert len(setting.session.link.asked) == 1


async def test_a_server_that_knows_nothing_of_it_is_left_alone_and_a_busy_one_asked_again() -> None:
    setting = Setting({7: DIRECT}, FakeSession(FakeLink(404)))
    await setting.twice()
    await setting.twice()
    assert len(setting.session.link.asked) == 1
    setting.session = FakeSession(FakeLink(429))
    await setting.reporter.look()
    await setting.reporter.look()
    assert len(setting.session.link.asked) == 2


async def test_paths_that_never_settle_are_told_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pathreports, "MAX_WAIT_SECONDS", 0.0)
    setting = Setting({7: DIRECT})
    await setting.reporter.look()
    assert len(setting.session.link.asked) == 1


async def test_a_latency_is_news_when_it_has_moved_a_good_deal() -> None:
    setting = Setting({7: DIRECT})
    await setting.twice()
    for latency in (0.020, 0.028, 0.031):
        setting.live = {7: replace(DIRECT, latency=latency)}
        await setting.twice()
    assert len(setting.session.link.asked) == 1
    setting.live = {7: replace(DIRECT, latency=0.060)}
    await setting.twice()
    (path,) = parse_paths(setting.session.link.asked[-1])
    assert (len(setting.session.link.asked), path.latency_ms) == (2, 60)


async def test_a_latency_that_was_not_known_is_news() -> None:
    setting = Setting({7: replace(DIRECT, latency=0.0)})
    await setting.twice()
    setting.live = {7: DIRECT}
    await setting.twice()
    latencies = [parse_paths(body)[0].latency_ms for body in setting.session.link.asked]
    assert latencies == [0, 24]


def test_a_report_is_bounded() -> None:
    assert len(peer_paths(dict.fromkeys(range(MAX_PATHS + 50), DIRECT))) == MAX_PATHS
