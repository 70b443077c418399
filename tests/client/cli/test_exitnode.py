"""``trenza exit-node``, ``status`` with one, and the word on offers that await approval."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from client.cli import approval
from client.cli.approval import say_what_awaits_approval
from client.cli.exitnode import exit_nodes, row
from client.cli.status import connection

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def peer(name: str, **members: Any) -> dict[str, Any]:
    return {
        "ID": f"n-{name}",
        "DNSName": f"{name}.tail.example.",
        "HostName": name,
        "TailscaleIPs": ["100.64.0.2"],
        "Online": True,
        "Active": False,
        "ExitNode": False,
        "ExitNodeOption": True,
        "CurAddr": "",
        "Relay": "trenza",
        "RxBytes": 0,
        "TxBytes": 0,
        "LastSeen": "2025-12-31T23:50:00Z",
        "Expired": False,
    } | members


def test_those_that_may_be_used_are_listed_and_the_one_that_is() -> None:
    peers = [peer("b"), peer("a", ExitNodeOption=False), peer("c", ExitNode=True, ExitNodeOption=False)]
    listed = exit_nodes({"Peer": {one["ID"]: one for one in peers}})
    assert [one["HostName"] for one in listed] == ["b", "c"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "-"),
        ({"ExitNode": True}, "selected"),
        ({"ExitNode": True, "Online": False}, "selected but offline"),
        ({"ExitNode": True, "ExitNodeOption": False, "Online": False}, "selected but not approved"),
        ({"Online": False}, "offline"),
    ],
)
def test_a_row_says_how_it_stands(members: dict[str, Any], words: str) -> None:
    assert row(peer("a", **members)) == ["100.64.0.2", "a.tail.example", "-", "-", words]


def test_a_row_says_where_it_is() -> None:
    assert row(peer("a", Location={"Country": "Spain", "City": "Vigo"}))[2:4] == ["Spain", "Vigo"]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({}, "idle; offers exit node"),
        ({"ExitNode": True}, "idle; exit node"),
        ({"ExitNode": True, "Online": False}, "idle; exit node; offline, last seen 10m ago"),
        (
            {"ExitNode": True, "Active": True, "CurAddr": "192.0.2.1:1", "TxBytes": 1},
            "active; exit node; direct 192.0.2.1:1, tx 1 rx 0",
        ),
    ],
)
def test_status_says_what_a_peer_is_used_for(members: dict[str, Any], words: str) -> None:
    assert connection(peer("a", **members), NOW) == words


class Daemon:
    """Answers with one status after another, the last for ever."""

    def __init__(self, *waiting: list[str]) -> None:
        self.waiting = list(waiting)
        self.asked = 0

    def get(self, name: str, **query: str) -> dict[str, Any]:
        self.asked += 1
        waiting = self.waiting.pop(0) if len(self.waiting) > 1 else self.waiting[0]
        return {
            "BackendState": "Running",
            "Self": {"AwaitingApproval": waiting},
            "Control": {"URL": "https://vpn.example.com"},
        }


class TestAwaitingApproval:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(approval, "WAIT_SECONDS", 0.05)
        monkeypatch.setattr(approval, "POLL_SECONDS", 0.01)

    def said(self, daemon: Daemon, capsys: pytest.CaptureFixture[str], **named: Any) -> str:
        say_what_awaits_approval(daemon, named)  # type: ignore[arg-type]
        return capsys.readouterr().err

    def test_what_nobody_has_approved_is_said(self, capsys: pytest.CaptureFixture[str]) -> None:
        text = self.said(Daemon(["0.0.0.0/0", "::/0"]), capsys, advertise_exit_node=True)
        assert "not approved yet: being an exit node." in text
        assert "https://vpn.example.com/admin" in text

    def test_what_is_approved_at_once_is_not(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.said(Daemon(["10.0.0.0/8"], []), capsys, advertise_routes=["10.0.0.0/8"]) == ""

    def test_who_offers_nothing_is_not_kept_waiting(self, capsys: pytest.CaptureFixture[str]) -> None:
        daemon = Daemon(["10.0.0.0/8"])
        assert self.said(daemon, capsys, hostname="x", advertise_exit_node=False) == ""
        assert daemon.asked == 0
