"""The audit log as a file: every event's members, read slice by slice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from typing import Any

from django.db.models import QuerySet

from accounts.models import AuditEvent

MAX_EXPORT = 200_000  # events in one file; the newest
CHUNK = 1000
COLUMNS = (
    "id",
    "eventTime",
    "origin",
    "actorType",
    "actorId",
    "actorName",
    "action",
    "targetType",
    "targetId",
    "targetName",
    "targetProperty",
    "old",
    "new",
    "details",
)


def described(event: AuditEvent) -> dict[str, Any]:
    """An event as exports have it, one member for each of :data:`COLUMNS`."""
    return {
        "id": event.pk,
        "eventTime": event.event_time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "origin": event.origin,
        "actorType": event.actor_type,
        "actorId": event.actor_id,
        "actorName": event.actor_name,
        "action": event.action,
        "targetType": event.target_type,
        "targetId": event.target_id,
        "targetName": event.target_name,
        "targetProperty": event.target_property,
        "old": event.old,
        "new": event.new,
        "details": event.details,
    }


def exported(events: QuerySet[AuditEvent]) -> Iterator[list[dict[str, Any]]]:
    """The newest :data:`MAX_EXPORT` of these events, in slices that each begin where the last ended.

    A slice is a query of its own, so that a slow reader holds no transaction open.
    """
    before: int | None = None
    for _slice in range(MAX_EXPORT // CHUNK):
        chosen = events if before is None else events.filter(pk__lt=before)
        found = list(chosen.order_by("-pk")[:CHUNK])
        if found:
            yield [described(event) for event in found]
        if len(found) < CHUNK:
            return
        before = found[-1].pk
