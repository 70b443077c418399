"""The API's log of changes: what it says of each, in which order, and what one may ask for."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.api.fields import moment
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.services.audit import record
from accounts.services.tailnets import update_settings
from accounts.tenancy import scope
from controlplane.api import logging
from controlplane.services import dns
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.nodes.factories import node
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
LOG = "/tailnet/-/logging/configuration"


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return people.tailnet()


def asked(api: Api, **filters: Any) -> list[dict[str, Any]]:
    now = timezone.now()
    span = {"start": (now - timedelta(hours=1)).isoformat(), "end": (now + timedelta(hours=1)).isoformat()}
    found: list[dict[str, Any]] = api.get(f"{LOG}?{urlencode(span | filters, doseq=True)}")["logs"]
    return found


def test_each_change_is_told_oldest_first(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    update_settings(tailnet=tailnet, by=Actor.person(owner), key_duration_days=30)
    api = as_person(tailnet, owner, "logs:configuration:read", "feature_settings")
    api.patch("/tailnet/-/settings", {"devicesApprovalOn": False})
    end = (timezone.now() + timedelta(minutes=1)).isoformat()
    answer = api.get(f"{LOG}?{urlencode({'start': '2020-01-01T00:00:00Z', 'end': end})}")
    assert (answer["version"], answer["tailnet"]) == ("1.1", tailnet.name)
    logs = answer["logs"]
    assert [one["action"] for one in logs] == ["CREATE", "UPDATE", "CREATE", "UPDATE"]
    with scope(tailnet=tailnet):
        rows = list(AuditEvent.objects.order_by("pk"))
    assert [one["eventGroupID"] for one in logs] == [row.digest for row in rows]
    assert moment(logs[1]["eventTime"]) == rows[1].event_time
    assert logs[1] == {
        "eventTime": logs[1]["eventTime"],
        "type": "CONFIG",
        "eventGroupID": rows[1].digest,
        "origin": "ADMIN_CONSOLE",
        "actor": {
            "id": str(owner.pk),
            "type": "USER",
            "displayName": owner.login_name,
            "loginName": owner.login_name,
        },
        "target": {
            "id": str(tailnet.pk),
            "name": tailnet.name,
            "type": "TAILNET",
            "property": "SETTINGS",
        },
        "action": "UPDATE",
        "old": {"key_duration_days": 180},
        "new": {"key_duration_days": 30},
    }
    by_token = logs[3]["actor"]
    assert (by_token["type"], by_token["loginName"]) == ("API_TOKEN", owner.login_name)
    assert by_token["id"] != str(owner.pk)
    by_command = logs[0]["actor"]
    assert by_command == {"id": "manage.py", "type": "AUTOMATED_WORKER", "displayName": "manage.py"}


def test_filters_are_any_of_one_kind_and_all_of_several(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    dns.add_nameserver(tailnet=tailnet, by=Actor.person(owner), address="9.9.9.9")
    device = node(tailnet, owner, hostname="harbour", preapproved=True)
    api = as_client(tailnet, "logs:configuration:read")
    nameservers = asked(api, event="TAILNET.UPDATE.DNS_NAMESERVERS")
    assert [one["new"]["nameservers"] for one in nameservers] == [[{"address": "9.9.9.9"}]]
    of_node = asked(api, event="NODE.CREATE")
    assert {one["target"]["id"] for one in of_node} == {device.stable_id}
    both = asked(api, event=["NODE.CREATE", "TAILNET.UPDATE.DNS_NAMESERVERS"])
    assert len(both) == len(of_node) + 1
    assert asked(api, actor=str(owner.pk), event="TAILNET.UPDATE") == nameservers
    assert asked(api, actor=f"~{owner.login_name[1:].upper()}", event="TAILNET.UPDATE") == nameservers
    assert asked(api, actor=["nobody", str(owner.pk)], event="TAILNET.UPDATE") == nameservers
    assert asked(api, actor=owner.login_name) == [], "a name without ~ is an id"
    assert asked(api, target=["HARBO"]) == asked(api, target=device.stable_id) != []
    assert asked(api, target="harbour", event="TAILNET") == []


def test_the_time_asked_for_includes_both_ends(place: tuple[Tailnet, User]) -> None:
    tailnet, _ = place
    api = as_client(tailnet, "logs:configuration:read")
    with scope(tailnet=tailnet):
        first, last = AuditEvent.objects.order_by("pk")
    at = [row.event_time.isoformat() for row in (first, last)]
    assert len(asked(api, start=at[0], end=at[1])) == 2
    assert [one["eventGroupID"] for one in asked(api, start=at[1])] == [last.digest]
    assert asked(api, start=at[1], end=at[0]) == []
    assert asked(api, end="2020-01-01T00:00:00Z") == []


def test_of_too_many_the_newest_are_told(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, _ = place
    api = as_client(tailnet, "logs:configuration:read")
    monkeypatch.setattr(logging, "MAX_ENTRIES", 2)
    for number in range(3):
        with scope(tailnet=tailnet):
            record(tailnet=tailnet, by=Actor.command(), action="UPDATE", target_type="X", new=number)
    assert [one["new"] for one in asked(api)] == [1, 2]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("", "start"),
        ("start=2020-01-01T00:00:00Z", "end"),
        ("start=yesterday&end=2020-01-01T00:00:00Z", "moment"),
        ("start=2020-02-30T00:00:00Z&end=2020-01-01T00:00:00Z", "moment"),
        ("start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z&colour=red", "no member of this name"),
        ("start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z" + "&actor=x" * 21, "20"),
        ("start=2020-01-01T00:00:00Z&end=2020-01-02T00:00:00Z&target=%00", "Null"),
    ],
)
def test_what_is_wrong_is_said(place: tuple[Tailnet, User], query: str, words: str) -> None:
    refused = as_client(place[0]).refusal("GET", f"{LOG}?{query}")
    assert (refused.status, words in refused.message) == (400, True), refused


def test_who_may_not_is_told_so(place: tuple[Tailnet, User]) -> None:
    tailnet, _ = place
    other, _ = people.tailnet()
    assert as_client(tailnet, "feature_settings").refusal("GET", LOG).status == 403
    api = as_client(tailnet, "logs:configuration:read")
    assert api.refusal("GET", f"/tailnet/{other.name}/logging/configuration").status == 404
    assert {one["target"]["name"] for one in asked(api)} >= {tailnet.name}
    assert other.name not in str(asked(api))
    auditor = people.member(tailnet, Role.AUDITOR).user
    assert asked(as_person(tailnet, auditor)) != []
    assert as_person(tailnet, people.member(tailnet).user).refusal("GET", LOG).status == 403


def test_a_log_costs_the_same_for_any_length(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_client(tailnet, "logs:configuration:read")

    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            asked(api)
        return len(captured)

    asked(api)
    few = queries()
    for days in range(30, 40):
        update_settings(tailnet=tailnet, by=Actor.person(owner), key_duration_days=days)
    assert queries() == few


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-30T18:37:00Z", "2026-11-30T18:37:00+00:00"),
        ("2026-11-30t18:37:00.1234567z", "2026-11-30T18:37:00.123456+00:00"),
        ("2026-11-30T18:37:00+02:00", "2026-11-30T16:37:00+00:00"),
        ("2026-11-30T18:37:00 02:00", "2026-11-30T16:37:00+00:00"),
        ("2026-11-30T18:37:00-00:30", "2026-11-30T19:07:00+00:00"),
        ("2026-11-30T18:37:00", "2026-11-30T18:37:00+00:00"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59+00:00"),
        ("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59+00:00"),
    ],
)
def test_moments(text: str, expected: str) -> None:
    assert moment(text) == datetime.fromisoformat(expected)


@pytest.mark.parametrize(
    "text", ["", "2026-11-30", "2026-11-30T18:37Z", "2026-13-01T00:00:00Z", "٢026-11-30T18:37:00Z"]
)
def test_no_moments(text: str) -> None:
    assert moment(text) is None
