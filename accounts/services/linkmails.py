"""Mails that bear a link of one use: noted in the outbox, and taken out of it when the link stops working.

A tailnet is anybody's to make, and its name and whom it writes to are theirs to choose: lest the server
writes to the whole world, whoever sends such mails bounds how many go out within :data:`WITHIN`.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from datetime import datetime, timedelta

from django.db.models import QuerySet
from django.utils import translation

from accounts.actors import Actor
from accounts.credentials import NewSecret
from accounts.models import AuditEvent, Outbox, Tailnet
from accounts.services import outbox

LIFETIME = timedelta(days=7)  # of a link
WITHIN = timedelta(days=1)
DIGEST_CHARACTERS = 16  # of the link's, which make the key of one mail


def in_language_of(by: Actor) -> AbstractContextManager[None]:
    """Texts are in the language of whoever sends; in the open one where they have none."""
    language = by.user.language if by.user is not None else ""
    return translation.override(language or translation.get_language() or "en")


def note_mail(*, tailnet: Tailnet, key: str, secret: NewSecret, to: str, subject: str, text: str) -> None:
    """Put a mail into the outbox in the open transaction; ``key`` tells what it is about."""
    outbox.enqueue(
        tailnet=tailnet,
        kind=Outbox.Kind.MAIL,
        target=to,
        subject=subject,
        payload={"text": text},
        idempotency_key=f"{key}{secret.digest[:DIGEST_CHARACTERS]}",
    )


def forget_mails(key: str) -> None:
    """None is kept longer than its link works, and none is sent for nothing."""
    Outbox.objects.filter(idempotency_key__startswith=key).delete()


def full_until(asked: QuerySet[AuditEvent], *, most: int, now: datetime) -> datetime | None:
    """When one more may go out, where ``most`` of these events are not older than :data:`WITHIN`."""
    times = (
        asked.filter(event_time__gt=now - WITHIN).order_by("-event_time").values_list("event_time", flat=True)
    )
    full = times[:most]
    return full[most - 1] + WITHIN if len(full) == most else None
