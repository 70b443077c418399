"""How devices reach their peers, as they report it: the newest report of each, for the panel."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.changes import tell_pages
from accounts.models import Tailnet
from accounts.tenancy import scope
from nodes.models import Node, PathReport, ReportedPath
from wire.paths import MAX_PATHS, PeerPath

MIN_GAP = timedelta(seconds=5)  # Trenza's clients report twice a minute at most, and only what has changed
MAX_NODE_ID = 2**63 - 1
MAX_REGION = 65535
FACTS = ("endpoint", "derp_region", "reason", "latency_ms")


def record_paths(
    *, tailnet: Tailnet | int, node_id: int, paths: Iterable[PeerPath], now: datetime | None = None
) -> bool:
    """Keep a device's report in place of the one before; ``False`` when that is too young."""
    now = now or timezone.now()
    pk = tailnet if isinstance(tailnet, int) else tailnet.pk
    said = {path.node_id: path for path in list(paths)[:MAX_PATHS] if 0 < path.node_id <= MAX_NODE_ID}
    with scope(tailnet=tailnet):
        if PathReport.objects.filter(node_id=node_id, reported_at__gt=now - MIN_GAP).exists():
            return False
        known = set(Node.objects.filter(pk__in=[node_id, *said]).values_list("pk", flat=True))
        if node_id not in known:  # deleted a moment ago
            return True
        rows = [_row(pk, node_id, said[peer]) for peer in known & said.keys() - {node_id}]
        try:
            changed = _replace(pk, node_id, rows, now)
        except IntegrityError:  # a device was deleted between: the next report knows
            return False
    if changed:
        tell_pages(pk, "path", node_id)
    return True


def _row(tailnet_id: int, node_id: int, path: PeerPath) -> ReportedPath:
    return ReportedPath(
        tailnet_id=tailnet_id,
        node_id=node_id,
        peer_id=path.node_id,
        endpoint=path.endpoint,
        derp_region=min(path.derp_region, MAX_REGION),
        reason=str(path.reason or ""),
        latency_ms=path.latency_ms,
    )


def _facts(row: ReportedPath) -> tuple[object, ...]:
    return tuple(getattr(row, name) for name in FACTS)


def _replace(tailnet_id: int, node_id: int, rows: list[ReportedPath], now: datetime) -> bool:
    """Write only what differs from the report before; whether anything did."""
    with transaction.atomic():
        kept = {row.peer_id: _facts(row) for row in ReportedPath.objects.filter(node_id=node_id)}
        gone = kept.keys() - {row.peer_id for row in rows}
        news = [row for row in rows if kept.get(row.peer_id) != _facts(row)]
        if gone:
            ReportedPath.objects.filter(node_id=node_id, peer_id__in=gone).delete()
        ReportedPath.objects.bulk_create(
            news, update_conflicts=True, unique_fields=["node", "peer"], update_fields=FACTS
        )
        PathReport.objects.update_or_create(
            node_id=node_id, defaults={"tailnet_id": tailnet_id, "reported_at": now}
        )
    return bool(gone or news)
