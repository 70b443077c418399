"""The log page: who sees it, what the filters choose, pages that stay, files, and the check of the chain."""

from __future__ import annotations

import csv
import io
import json
import re

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import auditexport, auditlog
from accounts.actors import Actor
from accounts.changes import write
from accounts.models import AuditEvent, Membership, Tailnet
from accounts.roles import Role
from accounts.services import audit
from accounts.tenancy import scope
from tests.accounts import factories
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db


def happen(tailnet: Tailnet, number: int = 1, **values: object) -> None:
    with write(tailnet) as change:
        for index in range(number):
            facts = {"action": "UPDATE", "target_type": "TAILNET", "target_name": f"thing {index}"} | values
            audit.record(tailnet=change.tailnet, by=Actor.command(), **facts)  # type: ignore[arg-type]


@pytest.fixture
def owner() -> Membership:
    tailnet, user = factories.tailnet("ours")
    with scope(tailnet=tailnet):
        return Membership.objects.select_related("tailnet", "user").get(user=user)


def body(response: object) -> str:
    return b"".join(response.streaming_content).decode()  # type: ignore[attr-defined]


def test_only_those_who_see_all_see_the_log(owner: Membership) -> None:
    member = factories.member(owner.tailnet)
    auditor = factories.member(owner.tailnet, Role.AUDITOR)
    happen(owner.tailnet)
    for path in ("/logs", "/logs/export/csv", "/logs/export/jsonl"):
        assert Visitor.of(member).get(path).status_code == 404
        assert Visitor.of(auditor).get(path).status_code == 200
    assert Visitor.of(member).submit("/logs/check").status_code == 404


def test_what_changed_is_shown_member_by_member(owner: Membership) -> None:
    happen(owner.tailnet, old={"dns": "1.1.1.1", "same": 1}, new={"dns": "9.9.9.9", "same": 1})
    page = Visitor.of(owner).get("/logs").content.decode()
    assert "<del" in page
    assert "1.1.1.1" in page
    assert "9.9.9.9" in page
    assert ">same<" not in page


def test_filters_choose_and_what_is_wrong_is_left_out(owner: Membership) -> None:
    happen(owner.tailnet, target_name="the first thing", target_type="RELAY")
    happen(owner.tailnet, target_name="the second thing", action="DELETE", target_type="AUTH_KEY")
    visitor = Visitor.of(owner)
    for filters, first, second in (
        ("kind=RELAY", True, False),
        ("action=DELETE", False, True),
        ("q=second", False, True),
        ("origin=CLI", True, True),
        ("origin=NODE", False, False),
        ("since=2999-01-01", False, False),
        ("until=2000-01-01", False, False),
        ("since=0001-01-01&until=9999-12-31", True, True),
        ("since=yesterday&kind=NOTHING&before=x", True, True),
    ):
        page = visitor.get(f"/logs?{filters}").content.decode()
        assert ("the first thing" in page, "the second thing" in page) == (first, second), filters


def test_a_page_stays_as_it_is_while_events_are_added(owner: Membership) -> None:
    happen(owner.tailnet, auditlog.PAGE_SIZE + 7)
    with scope(tailnet=owner.tailnet):
        query = auditlog.AuditQuery()
        first, cursor = query.page(AuditEvent.objects.order_by("-pk"))
    assert len(first) == auditlog.PAGE_SIZE
    assert cursor is not None
    visitor = Visitor.of(owner)
    before = visitor.get(f"/logs?before={cursor}").content.decode()
    happen(owner.tailnet, 3, target_name="of later")
    after = visitor.get(f"/logs?before={cursor}").content.decode()
    assert before.count('id="event-') == after.count('id="event-') >= 7
    assert "of later" not in after


def test_the_page_takes_as_many_queries_for_many_events_as_for_few(owner: Membership) -> None:
    visitor = Visitor.of(owner)
    counts = []
    for number in (3, 200):
        happen(owner.tailnet, number)
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert visitor.get("/logs").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1] <= 10


def test_files_hold_what_the_filters_choose_and_no_formula(owner: Membership) -> None:
    happen(owner.tailnet, target_name="=HYPERLINK(1)", old=["a"], new={"ä": 1})
    happen(owner.tailnet, target_name="left out", target_type="RELAY")
    visitor = Visitor.of(owner)
    table = body(visitor.get("/logs/export/csv?kind=TAILNET")).removeprefix("\ufeff")
    rows = list(csv.DictReader(io.StringIO(table)))
    found = next(row for row in rows if "HYPERLINK" in row["targetName"])
    assert found["targetName"] == "'=HYPERLINK(1)"
    assert json.loads(found["new"]) == {"ä": 1}
    lines = [json.loads(line) for line in body(visitor.get("/logs/export/jsonl?kind=TAILNET")).splitlines()]
    assert any(line["targetName"] == "=HYPERLINK(1)" and line["old"] == ["a"] for line in lines)
    assert "left out" not in table
    assert not any(line["targetName"] == "left out" for line in lines)
    assert visitor.get("/logs/export/exe").status_code == 404


def test_a_file_has_every_event_once(owner: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditexport, "CHUNK", 10)
    happen(owner.tailnet, 35)
    ids = [json.loads(line)["id"] for line in body(Visitor.of(owner).get("/logs/export/jsonl")).splitlines()]
    assert len(ids) == len(set(ids)) >= 35
    assert ids == sorted(ids, reverse=True)


def test_nothing_of_another_tailnet_is_in_pages_or_files(owner: Membership) -> None:
    other, _ = factories.tailnet("theirs")
    happen(other, target_name="canary")
    visitor = Visitor.of(owner)
    assert "canary" not in visitor.get("/logs").content.decode()
    assert "canary" not in body(visitor.get("/logs/export/csv"))
    assert "canary" not in body(visitor.get("/logs/export/jsonl"))


def test_an_event_that_was_edited_is_found(owner: Membership) -> None:
    happen(owner.tailnet, 3)
    visitor = Visitor.of(owner)
    assert "state-online" in visitor.submit("/logs/check", page="/logs").content.decode()
    with scope(tailnet=owner.tailnet):
        victim = AuditEvent.objects.order_by("pk").last()
        assert victim is not None
        AuditEvent.objects.filter(pk=victim.pk).update(target_name="another")
    found = visitor.submit("/logs/check", page="/logs").content.decode()
    assert "state-down" in found
    assert str(victim.pk) in found


def test_a_long_log_is_checked_request_by_request(owner: Membership, monkeypatch: pytest.MonkeyPatch) -> None:
    happen(owner.tailnet, 25)
    monkeypatch.setattr(audit, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(audit, "CHUNK", 10)
    visitor, form, requests = Visitor.of(owner), {}, 0
    while True:
        answer = visitor.submit("/logs/check", page="/logs", **form).content.decode()
        requests += 1
        form = dict(re.findall(r'name="(after|events)" value="(\d+)"', answer))
        if not form:
            break
        assert "state-pending" in answer
        assert 'hx-trigger="load' in answer, "the next step is asked for at once"
        assert int(form["events"]) == 10 * requests
    assert "state-online" in answer
    assert requests == 3
    page = visitor.submit("/logs/check").content.decode()
    assert "</html>" in page, "without scripts it is the whole page"
    assert 'name="after"' in page
    for wrong in ("-1", "x", "9" * 40, "\0"):
        assert visitor.submit("/logs/check", page="/logs", after=wrong, events=wrong).status_code == 200
