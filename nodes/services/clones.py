"""Devices whose keys two machines use at once: flagged and audited when that begins, cleared when it ends."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.models import Tailnet
from accounts.services import audit
from accounts.tenancy import scope
from nodes.models import Node

RENEW = timedelta(seconds=20)  # how often the moment of the last sign is written while it goes on
CLEARED_AFTER = timedelta(seconds=60)
MAX_DETAILS = 200
BATCH = 500


def saw_clones(*, tailnet: Tailnet | int, seen: Mapping[int, str], now: datetime | None = None) -> int:
    """Two machines use these nodes' keys right now (by node id, in words which); returns how many are new."""
    now = now or timezone.now()
    with scope(tailnet=tailnet):
        rows = Node.objects.filter(pk__in=list(seen))
        fresh = list(rows.filter(cloned_at__isnull=True).values_list("pk", flat=True))
        rows.filter(cloned_at__lt=now - RENEW).update(cloned_at=now)  # no news to any netmap
    if not fresh:
        return 0
    with write(tailnet) as change:
        new = list(Node.objects.select_for_update(of=("self",)).filter(pk__in=fresh, cloned_at__isnull=True))
        for row in new:
            row.cloned_at, row.clone_details = now, seen[row.pk][:MAX_DETAILS]
            _saved(change, row, "CLONE", details=row.clone_details)
        return len(new)


def clear_clones(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Forget clones of which nothing has been seen for a while; returns how many."""
    now = now or timezone.now()
    with write(tailnet) as change:
        rows = list(Node.objects.select_for_update(of=("self",)).filter(no_longer_cloned(now))[:BATCH])
        for row in rows:
            details, row.cloned_at, row.clone_details = row.clone_details, None, ""
            _saved(change, row, "CLONE_ENDED", details=details)
        return len(rows)


def no_longer_cloned(now: datetime) -> Q:
    """Which nodes :func:`clear_clones` clears."""
    return Q(cloned_at__lte=now - CLEARED_AFTER)


def _saved(change: ChangeSet, row: Node, action: str, *, details: str) -> None:
    row.save(update_fields=["cloned_at", "clone_details"])
    change.upsert("node", row.pk)
    audit.record(
        tailnet=change.tailnet,
        by=Actor.system(),
        action=action,
        target_type="NODE",
        target_id=row.stable_id,
        target_name=row.name,
        details=details,
    )
