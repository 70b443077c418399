"""The audit chain, the outbox, leases and limits."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import tasks
from accounts.actors import Actor
from accounts.changes import write
from accounts.errors import LimitExceeded
from accounts.limits import bucket, check_limit, count_attempt
from accounts.models import AuditEvent, Lease, Membership, Outbox, Tailnet
from accounts.services import audit, outbox
from accounts.services.leases import drop_lease, take_lease
from accounts.services.tailnets import update_settings
from accounts.tenancy import each_tailnet, scope
from tests.accounts import factories

pytestmark = pytest.mark.django_db
ME = Actor.command()


@pytest.fixture
def logged() -> Tailnet:
    tailnet, _ = factories.tailnet()
    for days in range(1, 11):
        update_settings(tailnet=tailnet, by=ME, key_duration_days=days)
    return tailnet


def test_an_untouched_log_holds(logged: Tailnet) -> None:
    with scope(tailnet=logged):
        assert AuditEvent.objects.count() == 11
        assert audit.check_chain(tailnet=logged).broken is None


@pytest.mark.parametrize("field", audit.CHAINED)
def test_an_edited_event_is_found(logged: Tailnet, field: str) -> None:
    with scope(tailnet=logged):
        event = AuditEvent.objects.order_by("pk")[4]
        edits = {"old": {"x": 1}, "new": [1], "event_time": event.event_time + timedelta(seconds=1)}
        AuditEvent.objects.filter(pk=event.pk).update(**{field: edits.get(field, "edited")})
        assert audit.check_chain(tailnet=logged).broken == event.pk


def test_a_deleted_event_is_found(logged: Tailnet) -> None:
    with scope(tailnet=logged):
        events = list(AuditEvent.objects.order_by("pk"))
        events[4].delete()
        assert audit.check_chain(tailnet=logged).broken == events[5].pk


def test_a_truncated_log_is_found(logged: Tailnet) -> None:
    with scope(tailnet=logged):
        AuditEvent.objects.latest("pk").delete()
        assert audit.check_chain(tailnet=logged).broken == 0


def test_a_long_log_is_checked_in_steps_that_each_take_a_bounded_time(
    logged: Tailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "STEP_SECONDS", 0.0)
    monkeypatch.setattr(audit, "CHUNK", 4)
    steps: list[tuple[int, bool]] = []
    with scope(tailnet=logged):
        pks = list(AuditEvent.objects.order_by("pk").values_list("pk", flat=True))
        check = audit.ChainCheck(0, 0, None, ended=False)
        while not check.ended:
            with CaptureQueriesContext(connection) as seen:
                check = audit.check_chain(tailnet=logged, after=check.last, events=check.events)
            assert len(seen) <= 3
            steps.append((check.events, check.ended))
            assert check.last == pks[check.events - 1]
        assert steps == [(4, False), (8, False), (11, True)]
        assert check.broken is None
        AuditEvent.objects.filter(pk=pks[9]).update(details="edited")
        assert audit.check_chain(tailnet=logged, after=pks[3], events=4).broken is None
        assert audit.check_chain(tailnet=logged, after=pks[7], events=8).broken == pks[9]


def test_an_event_that_is_added_while_the_log_is_checked_is_not_missed(
    logged: Tailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest, added = audit.chain_digest, []

    def slowly(event: AuditEvent) -> str:
        if not added:
            added.append(event)
            update_settings(tailnet=logged, by=ME, key_duration_days=99)
        return digest(event)

    monkeypatch.setattr(audit, "chain_digest", slowly)
    with scope(tailnet=logged):
        check = audit.check_chain(tailnet=logged)
    assert (check.broken, check.events, check.ended) == (None, 12, True)


def test_two_events_of_one_change_are_chained(logged: Tailnet) -> None:
    with write(logged) as change:
        for target in ("a", "b"):
            audit.record(tailnet=change.tailnet, by=ME, action="UPDATE", target_type="X", target_name=target)
    with scope(tailnet=logged):
        assert audit.check_chain(tailnet=logged).broken is None


def mail_to(tailnet: Tailnet, key: str | None = None) -> Outbox | None:
    return outbox.enqueue(
        tailnet=tailnet,
        kind=Outbox.Kind.MAIL,
        target="ana@example.com",
        subject="A device waits",
        payload={"text": "Approve it."},
        idempotency_key=key,
    )


def test_mail_is_sent_once(settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True
    tailnet, _ = factories.tailnet()
    with scope(tailnet=tailnet):
        mail_to(tailnet)
    assert tasks.deliver_outbox() == 1
    assert tasks.deliver_outbox() == 0
    assert [(message.subject, message.to) for message in mail.outbox] == [
        ("A device waits", ["ana@example.com"])
    ]


def test_without_a_mail_server_mail_is_given_up_at_once() -> None:
    tailnet, _ = factories.tailnet()
    with scope(tailnet=tailnet):
        mail_to(tailnet)
        assert tasks.deliver_outbox() == 0
        row = Outbox.objects.get()
    assert row.failed_at is not None
    assert "TRENZA_EMAIL_URL" in row.last_error


def test_what_is_settled_is_forgotten_after_a_month() -> None:
    tailnet, _ = factories.tailnet()
    long_ago = timezone.now() - outbox.KEPT - timedelta(days=1)
    with scope(tailnet=tailnet):
        for delivered in (timezone.now(), None):
            mail_to(tailnet)
            Outbox.objects.filter(pk=Outbox.objects.latest("pk").pk).update(
                created=long_ago, delivered_at=delivered
            )
        mail_to(tailnet)
    assert tasks.clean_outbox() == 1
    with scope(tailnet=tailnet):
        assert Outbox.objects.count() == 2, "what still waits is kept"


def test_an_occasion_is_noted_once() -> None:
    tailnet, _ = factories.tailnet()
    with scope(tailnet=tailnet):
        assert mail_to(tailnet, "pending-5") is not None
        assert mail_to(tailnet, "pending-5") is None


def test_a_failing_delivery_is_retried_later_and_later_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(row: Outbox) -> None:
        raise outbox.DeliveryFailed("no route to host")

    monkeypatch.setitem(outbox.SENDERS, Outbox.Kind.MAIL.value, fail)
    tailnet, _ = factories.tailnet()
    now, waits = timezone.now() + timedelta(seconds=1), []
    with scope(tailnet=tailnet):
        mail_to(tailnet)
        for _ in range(outbox.MAX_ATTEMPTS):
            assert outbox.deliver_due(now=now) == 0
            row = Outbox.objects.get()
            waits.append(row.due - now)
            assert outbox.deliver_due(now=now) == 0, "not before it is due"
            now = row.due
        assert (row.failed_at is not None, row.last_error) == (True, "no route to host")
        assert waits[:3] == [timedelta(minutes=1), timedelta(minutes=2), timedelta(minutes=4)]
        assert max(waits) == outbox.MAX_RETRY
        assert outbox.deliver_due(now=now + timedelta(days=1)) == 0
    assert row.attempts == outbox.MAX_ATTEMPTS


def test_a_subject_is_one_line_that_fits_its_column(settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True
    tailnet, _ = factories.tailnet()
    with scope(tailnet=tailnet):
        row = outbox.enqueue(
            tailnet=tailnet,
            kind=Outbox.Kind.MAIL,
            target="bo@example.com",
            subject="Ana invites you to\r\nBcc: all@example.com " + "x" * 300,
        )
        assert row is not None
        row.full_clean(exclude=["payload"])
    assert tasks.deliver_outbox() == 1
    (message,) = mail.outbox
    assert message.subject.startswith("Ana invites you to Bcc: all@example.com xxx")


def test_what_breaks_its_sender_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True

    def break_down(row: Outbox) -> None:
        raise ValueError("a surprise with a secret in it")

    monkeypatch.setitem(outbox.SENDERS, Outbox.Kind.WEBHOOK.value, break_down)
    first, second = (factories.tailnet(name)[0] for name in ("first", "second"))
    with scope(tailnet=first):
        outbox.enqueue(tailnet=first, kind=Outbox.Kind.WEBHOOK, target="x")
    with scope(tailnet=second):
        mail_to(second)
    assert tasks.deliver_outbox() == 1
    with scope(tailnet=first):
        row = Outbox.objects.get()
    assert (row.attempts, row.failed_at, "secret" in row.last_error) == (1, None, False)
    assert row.due > timezone.now()


def test_a_sweep_that_fails_in_one_tailnet_goes_on_in_the_others() -> None:
    first = factories.tailnet("first")[0]
    factories.tailnet("second")

    def step(tailnet: Tailnet) -> int:
        if tailnet == first:
            raise ValueError("a row that nobody foresaw")
        return Membership.objects.count()

    assert tasks.sweep(each_tailnet(), step) == 1


def test_a_tailnet_s_turn_ends_and_the_rest_waits(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True
    monkeypatch.setattr(outbox, "TURN", timedelta(0))
    tailnet, _ = factories.tailnet()
    with scope(tailnet=tailnet):
        for _number in range(3):
            mail_to(tailnet)
    assert [tasks.deliver_outbox() for _sweep in range(4)] == [1, 1, 1, 0]


def test_a_lease_has_one_holder_and_remembers_since_when() -> None:
    now, length = timezone.now(), timedelta(seconds=60)
    assert take_lease(name="x", holder="a", length=length, now=now) == now
    assert take_lease(name="x", holder="b", length=length, now=now) is None
    later = now + timedelta(seconds=50)
    assert take_lease(name="x", holder="a", length=length, now=later) == now
    taken_over = later + length
    assert take_lease(name="x", holder="b", length=length, now=taken_over) == taken_over, "there was a gap"
    drop_lease(name="x", holder="b", now=taken_over)
    assert take_lease(name="x", holder="a", length=length, now=taken_over) is not None
    assert Lease.objects.count() == 1


def test_a_limit_counts_one_place_per_minute() -> None:
    cache.clear()
    now = timezone.now().replace(second=10, microsecond=0)
    for _ in range(3):
        check_limit("x", "192.0.2.1", limit=3, now=now)
        count_attempt("x", "192.0.2.1", now=now)
    with pytest.raises(LimitExceeded) as refused:
        check_limit("x", "192.0.2.1", limit=3, now=now)
    assert refused.value.retry_after == 50
    check_limit("x", "192.0.2.2", limit=3, now=now)
    check_limit("y", "192.0.2.1", limit=3, now=now)
    check_limit("x", "192.0.2.1", limit=3, now=now + timedelta(minutes=1))


def test_one_place_is_an_ipv4_address_or_an_ipv6_site() -> None:
    assert bucket("192.0.2.1") == "192.0.2.1"
    assert bucket("::ffff:192.0.2.1") == "192.0.2.1"
    assert bucket("2001:db8::1") == bucket("2001:db8::ffff:1") != bucket("2001:db8:0:1::1")
    assert bucket("") == "unknown"
