"""How devices reach their peers, as they report it: the newest report of each, for the panel."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.utils import timezone

from accounts.models import Tailnet
from accounts.tenancy import scope
from nodes.models import Node, PathReport
from wire.paths import MAX_PATHS, PeerPath

MIN_GAP = timedelta(seconds=5)  # Trenza's clients report twice a minute at most, and only what has changed


def record_paths(
    *, tailnet: Tailnet | int, node_id: int, paths: Iterable[PeerPath], now: datetime | None = None
) -> bool:
    """Keep a device's report in place of the one before; ``False`` when that is too young."""
    now = now or timezone.now()
    pk = tailnet if isinstance(tailnet, int) else tailnet.pk
    content = [path.to_json() for path in paths][:MAX_PATHS]
    with scope(tailnet=tailnet):
        if PathReport.objects.filter(node_id=node_id, reported_at__gt=now - MIN_GAP).exists():
            return False
        if not Node.objects.filter(pk=node_id).exists():  # deleted a moment ago
            return True
        PathReport.objects.update_or_create(
            node_id=node_id, defaults={"tailnet_id": pk, "paths": content, "reported_at": now}
        )
        return True
