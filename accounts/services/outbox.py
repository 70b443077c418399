"""Mail and webhooks: services insert rows in their own transaction, a sweep delivers them with retries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.core.mail import send_mail
from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from accounts.models import Outbox, Tailnet

logger = logging.getLogger("trenza.outbox")

BATCH = 100
FIRST_RETRY = timedelta(minutes=1)
MAX_RETRY = timedelta(hours=6)
MAX_ATTEMPTS = 12
CLAIM = timedelta(minutes=5)
TURN = timedelta(seconds=20)  # of one tailnet in a sweep: its receivers may hang, others' mail must not
MAX_ERROR = 500
MAX_SUBJECT = 200
KEPT = timedelta(days=30)  # what was sent, to be looked up


class DeliveryFailed(Exception):
    """A delivery that may succeed later; its text is kept with the row."""


class DeliveryRefused(Exception):
    """A delivery that will never succeed; its text is kept with the row, which is not tried again."""


Sender = Callable[[Outbox], None]


def enqueue(
    *,
    tailnet: Tailnet,
    kind: Outbox.Kind,
    target: str,
    subject: str = "",
    payload: dict[str, Any] | None = None,
    idempotency_key: str | None = None,
) -> Outbox | None:
    """Note a delivery in the current transaction; ``None`` when this occasion was noted already."""
    try:
        with transaction.atomic():
            return Outbox.objects.create(
                tailnet=tailnet,
                kind=kind,
                target=target,
                subject=_one_line(subject),
                payload=payload or {},
                idempotency_key=idempotency_key,
            )
    except IntegrityError:
        return None


def enqueue_all(
    *, tailnet: Tailnet, kind: Outbox.Kind, targets: Iterable[str], subject: str, payload: dict[str, Any]
) -> None:
    """Note the same delivery to several, in one query."""
    subject = _one_line(subject)
    rows = (
        Outbox(tailnet=tailnet, kind=kind, target=one, subject=subject, payload=payload) for one in targets
    )
    Outbox.objects.bulk_create(rows)


def _one_line(subject: str) -> str:
    """Names in it were typed by people; a header is one line, and a column has an end."""
    return " ".join(subject.split())[:MAX_SUBJECT]


def send_as_mail(row: Outbox) -> None:
    """Deliver a mail row: ``payload["text"]`` (and ``"html"``) to ``target``."""
    if not settings.MAIL_IS_SET_UP:
        raise DeliveryRefused("the server has no mail server: set TRENZA_EMAIL_URL")
    try:
        text, html = str(row.payload.get("text", "")), row.payload.get("html")
        send_mail(row.subject, text, settings.DEFAULT_FROM_EMAIL, [row.target], html_message=html)
    except OSError as error:  # smtplib's errors are OSErrors
        raise DeliveryFailed(str(error)) from error


SENDERS: dict[str, Sender] = {Outbox.Kind.MAIL.value: send_as_mail}


def register_sender(kind: str, sender: Sender) -> None:
    """Say who delivers rows of a kind (for the apps above this one)."""
    SENDERS[kind] = sender


def is_due(now: datetime) -> Q:
    """Which rows wait for a delivery now."""
    return Q(delivered_at__isnull=True, failed_at__isnull=True, due__lte=now, kind__in=list(SENDERS))


def deliver_due(*, now: datetime | None = None) -> int:
    """Deliver the open scope's due rows; returns how many were. A row is claimed before it is sent.

    Whatever is left when :data:`TURN` is over waits for the next sweep.
    """
    begun, delivered = timezone.now(), 0
    due = Outbox.objects.filter(is_due(now or begun)).order_by("due")
    for pk in list(due.values_list("pk", flat=True)[:BATCH]):
        moment = now or timezone.now()
        row = _claim(pk, moment)
        if row is not None:
            delivered += _deliver(row, moment)
        if timezone.now() - begun >= TURN:
            break
    return delivered


def forget_old(*, now: datetime | None = None) -> int:
    """Delete the open scope's rows that are settled for :data:`KEPT`; returns how many."""
    return Outbox.objects.filter(is_settled((now or timezone.now()) - KEPT)).delete()[0]


def is_settled(before: datetime) -> Q:
    """Rows made before that moment which were delivered or given up."""
    return Q(created__lt=before) & (Q(delivered_at__isnull=False) | Q(failed_at__isnull=False))


def _claim(pk: int, now: datetime) -> Outbox | None:
    """Push the row's due time on, so that no other worker sends it meanwhile."""
    with transaction.atomic():
        if not Outbox.objects.filter(is_due(now), pk=pk).update(due=now + CLAIM):
            return None
        return Outbox.objects.get(pk=pk)


def _deliver(row: Outbox, now: datetime) -> bool:
    row.attempts += 1
    try:
        SENDERS[row.kind](row)
    except DeliveryRefused as error:
        row.last_error, row.failed_at = str(error)[:MAX_ERROR], now
    except DeliveryFailed as error:
        _try_later(row, now, str(error))
    except Exception:  # the edge of a delivery: what one row brings about must not hold up all others
        logger.exception("delivery %s of kind %s broke its sender", row.pk, row.kind)
        _try_later(row, now, "the server could not send this; its log says why")
    else:
        row.delivered_at, row.last_error = now, ""
    if row.kind == Outbox.Kind.MAIL and (row.delivered_at or row.failed_at):
        row.payload = {}  # it may bear a link that lets somebody in
    row.save(update_fields=["payload", "attempts", "last_error", "due", "failed_at", "delivered_at"])
    return row.delivered_at is not None


def _try_later(row: Outbox, now: datetime, error: str) -> None:
    row.last_error = error[:MAX_ERROR]
    row.due = now + min(FIRST_RETRY * 2 ** (row.attempts - 1), MAX_RETRY)
    if row.attempts >= MAX_ATTEMPTS:
        row.failed_at = now
    logger.warning("delivery %s of kind %s failed (attempt %s): %s", row.pk, row.kind, row.attempts, error)
