"""Which worker holds a node's map stream: a lease of 30 s, and an epoch that only grows.

A newer epoch closes an older stream wherever it is; an old stream's late end cannot touch the newer one.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from accounts.models import Tailnet
from accounts.tenancy import each_tailnet, scope
from nodes.models import Node, Presence

LEASE = timedelta(seconds=30)


def claim_presence(*, tailnet: Tailnet | int, node_id: int, worker: str, now: datetime | None = None) -> int:
    """Make ``worker`` the holder of the node's stream; returns the new epoch, higher than any before."""
    now = now or timezone.now()
    with transaction.atomic(), scope(tailnet=tailnet):
        Presence.objects.get_or_create(node_id=node_id, defaults={"tailnet_id": _pk(tailnet)})
        row = Presence.objects.select_for_update(of=("self",)).get(node_id=node_id)
        row.worker, row.epoch = worker, row.epoch + 1
        row.connected_at, row.expires = now, now + LEASE
        row.save()
        return row.epoch


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
