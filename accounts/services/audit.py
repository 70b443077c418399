"""The audit log: append-only, each event chained by SHA-256 to the tailnet's event before it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import write
from accounts.models import AuditEvent, Tailnet, User
from accounts.tenancy import memberships_of

CHAINED = (
    "event_time",
    "origin",
    "actor_type",
    "actor_id",
    "actor_name",
    "action",
    "target_type",
    "target_id",
    "target_name",
    "target_property",
    "old",
    "new",
    "details",
)
MAX_DETAILS = 500
MAX_NAME = 255
STEP_SECONDS = 1.0  # of one step of a check
CHUNK = 500  # events in memory at once


Listener = Callable[[AuditEvent], None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> None:
    """Have a function of an app above called with each event, in its transaction and its tailnet's scope."""
    _listeners.append(listener)


def chain_digest(event: AuditEvent) -> str:
    """SHA-256 over the previous digest and every field of the event, as 64 hex digits."""
    fields = {name: getattr(event, name) for name in CHAINED}
    fields["event_time"] = event.event_time.isoformat()
    text = json.dumps([event.previous, fields], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def record(
    *,
    tailnet: Tailnet,
    by: Actor,
    action: str,
    target_type: str,
    target_id: object = "",
    target_name: str = "",
    target_property: str = "",
    old: Any = None,
    new: Any = None,
    details: str = "",
) -> AuditEvent:
    """Append one event. ``tailnet`` must be the row that :func:`accounts.changes.write` has locked.

    ``action`` is an upper-case verb (CREATE, UPDATE, DELETE, APPROVE, …) and ``target_type`` a kind of object
    (NODE, USER, AUTH_KEY, …) in the public API's words.
    """
    event = AuditEvent(
        tailnet=tailnet,
        event_time=timezone.now(),
        origin=by.origin.value,
        actor_type=by.type.value,
        actor_id=by.id,
        actor_name=by.name[:MAX_NAME],
        action=action,
        target_type=target_type,
        target_id=str(target_id),
        target_name=target_name[:MAX_NAME],
        target_property=target_property,
        old=old,
        new=new,
        details=details[:MAX_DETAILS],
        previous=Tailnet.objects.values_list("audit_head", flat=True).get(pk=tailnet.pk),
    )
    event.digest = chain_digest(event)
    event.save(force_insert=True)
    Tailnet.objects.filter(pk=tailnet.pk).update(audit_head=event.digest)
    for listener in _listeners:
        listener(event)
    return event


def record_of_person(
    *,
    user: User,
    by: Actor,
    action: str,
    target_property: str = "",
    old: Any = None,
    new: Any = None,
    details: str = "",
) -> None:
    """Append one event about a person to the log of each tailnet in which they have a place."""
    for membership in memberships_of(user.pk):
        with write(membership.tailnet) as change:
            record(
                tailnet=change.tailnet,
                by=by,
                action=action,
                target_type="USER",
                target_id=user.pk,
                target_name=user.login_name,
                target_property=target_property,
                old=old,
                new=new,
                details=details,
            )


# --- whether it is whole ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ChainCheck:
    """How far a check has come: all ``events`` up to the id ``last`` are as they were written.

    ``broken`` is the id of the first one that is not, or stands behind one that is gone; 0 when the newest
    are gone; ``None`` while nothing is wrong. ``ended``: there is nothing more to look at.
    """

    last: int
    events: int
    broken: int | None
    ended: bool


def check_chain(*, tailnet: Tailnet, after: int = 0, events: int = 0) -> ChainCheck:
    """Compute digests anew, behind the event ``after`` (0: from the first), for :data:`STEP_SECONDS` at most.

    A log of any length is checked in such steps; ``events`` is how many the steps before have looked at.
    Needs the tailnet's scope.
    """
    deadline = time.monotonic() + STEP_SECONDS
    previous = AuditEvent.objects.filter(pk=after).values_list("digest", flat=True).first() or ""
    while True:
        found = list(AuditEvent.objects.filter(pk__gt=after).order_by("pk")[:CHUNK])
        for event in found:
            if event.previous != previous or event.digest != chain_digest(event):
                return ChainCheck(after, events, event.pk, ended=True)
            after, previous, events = event.pk, event.digest, events + 1
        if len(found) < CHUNK:
            head = Tailnet.objects.values_list("audit_head", flat=True).get(pk=tailnet.pk)
            if head == previous:
                return ChainCheck(after, events, None, ended=True)
            if not AuditEvent.objects.filter(pk__gt=after).exists():  # else one was added meanwhile
                return ChainCheck(after, events, 0, ended=True)
        if time.monotonic() >= deadline:
            return ChainCheck(after, events, None, ended=False)
