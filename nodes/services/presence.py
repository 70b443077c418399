"""Which worker holds a node's map stream: a lease of 30 s, and an epoch that only grows.

A newer epoch closes an older stream wherever it is; an old stream's late end cannot touch the newer one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from django.db import transaction
from django.db.models import Case, F, Value, When
from django.utils import timezone

from accounts.models import Tailnet
from accounts.tenancy import each_tailnet, scope
from nodes.models import Node, Presence

LEASE = timedelta(seconds=30)


class Claim(NamedTuple):
    """A stream's epoch, and since when its node is online without a break."""

    epoch: int
    since: datetime


def claim_presence(*, tailnet: Tailnet | int, node_id: int, worker: str, now: datetime | None = None) -> int:
    """Make ``worker`` the holder of the node's stream; returns the new epoch, higher than any before."""
    return claim_presences(tailnet=tailnet, node_ids=[node_id], worker=worker, now=now)[node_id].epoch


def claim_presences(
    *, tailnet: Tailnet | int, node_ids: Iterable[int], worker: str, now: datetime | None = None
) -> dict[int, Claim]:
    """Claim many nodes' streams in one transaction; what those nodes that exist have from now on.

    A stream that follows another while its lease runs (a reconnect, a restarted server) is no break.
    """
    now = now or timezone.now()
    pk = _pk(tailnet)
    with transaction.atomic(), scope(tailnet=tailnet):
        ids = list(Node.objects.filter(pk__in=list(node_ids)).order_by("pk").values_list("pk", flat=True))
        Presence.objects.bulk_create(
            [Presence(node_id=node_id, tailnet_id=pk) for node_id in ids], ignore_conflicts=True
        )
        rows = Presence.objects.filter(node_id__in=ids)
        since = Case(When(expires__gt=now, then=F("connected_at")), default=Value(now))
        rows.update(worker=worker, epoch=F("epoch") + 1, connected_at=since, expires=now + LEASE)
        claimed = rows.values_list("node_id", "epoch", "connected_at")
        return {node_id: Claim(epoch, since or now) for node_id, epoch, since in claimed}


def renew_presence(
    *, tailnet: Tailnet | int, worker: str, node_ids: Iterable[int], now: datetime | None = None
) -> int:
    """Renew this worker's leases; returns how many it still holds."""
    now = now or timezone.now()
    with scope(tailnet=tailnet):
        held = Presence.objects.filter(worker=worker, node_id__in=list(node_ids), expires__isnull=False)
        return held.update(expires=now + LEASE)


def release_presence(
    *, tailnet: Tailnet | int, node_id: int, epoch: int, now: datetime | None = None
) -> bool:
    """End the stream of this epoch; ``False`` when a newer one has taken over, which is left alone."""
    now = now or timezone.now()
    with transaction.atomic(), scope(tailnet=tailnet):
        ended = Presence.objects.filter(node_id=node_id, epoch=epoch, expires__isnull=False).update(
            expires=None
        )
        if ended:
            Node.objects.filter(pk=node_id).update(last_seen=now)
        return bool(ended)


def release_worker(*, worker: str, now: datetime | None = None) -> int:
    """End every stream of a worker that has stopped (or starts anew); returns how many it held."""
    from django.db.models import Q

    now = now or timezone.now()
    ended = 0
    held = Q(worker=worker, expires__isnull=False)
    for _tailnet in each_tailnet(due="nodes.Presence", where=held):
        with transaction.atomic():
            Node.objects.filter(presence__in=list(Presence.objects.filter(held))).update(last_seen=now)
            ended += Presence.objects.filter(held).update(expires=None)
    return ended


def _pk(tailnet: Tailnet | int) -> int:
    return tailnet if isinstance(tailnet, int) else tailnet.pk
