"""Network flow logs: what Trenza's clients tell of whom they talk to, kept for a month and read by the API.

Only a tailnet whose setting ``flow_logging`` is on keeps any. They are what devices say: a device can lie
about its own traffic, and never speak for another one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

import orjson
import zstandard
from django.db.models import Count, QuerySet, Sum
from django.utils import timezone

from accounts.describe import timestamp
from accounts.errors import Conflict, Forbidden
from accounts.limits import check_limit, count_attempt
from accounts.models import Tailnet
from accounts.tenancy import scope
from controlplane.models import FlowLog
from nodes.models import Node
from wire.codec import compress
from wire.flows import FlowReport

KEPT = timedelta(days=30)
MAX_BYTES = 512 * 1024 * 1024  # of one tailnet's logs, shared fairly by its devices
ROW_BYTES = 100  # of each beside its traffic, about
REPORTS, MAX_REPORTS = "flows", 15  # a minute of one device; a client that catches up sends twelve
MAX_TRAFFIC_BYTES = 4 * 1024 * 1024  # of one report
MAX_ANSWER = 200_000  # reports in one answer
SLICE = 100  # reports in memory at once
DELETED_AT_ONCE = 2000
COMPRESSION = 3


def record_flows(
    *, tailnet_id: int, node_id: int, report: FlowReport, now: datetime | None = None
) -> FlowLog | None:
    """Keep a device's report; ``None`` when it was deleted a moment ago.

    Raises :class:`Forbidden` where flows are not logged, and :class:`LimitExceeded`.
    """
    now = now or timezone.now()
    if not Tailnet.objects.filter(pk=tailnet_id, flow_logging=True).exists():
        raise Forbidden("this tailnet does not log network flows")
    check_limit(REPORTS, f"node-{node_id}", limit=MAX_REPORTS, now=now)
    count_attempt(REPORTS, f"node-{node_id}", now=now)
    traffic = report.traffic()
    with scope(tailnet=tailnet_id):
        stable_id = Node.objects.filter(pk=node_id).values_list("stable_id", flat=True).first()
        if stable_id is None or not traffic:
            return None
        packed = compress(orjson.dumps(traffic), COMPRESSION)
        return FlowLog.objects.create(
            tailnet_id=tailnet_id,
            stable_id=stable_id,
            logged=now,
            start=report.start,
            end=report.end,
            size=len(packed),
            traffic=packed,
        )


def logged_between(start: datetime, end: datetime) -> QuerySet[FlowLog]:
    """What the server was told from ``start`` to ``end``; raises :class:`Conflict` where that is too much."""
    if end < start:
        raise Conflict("the end is before the start: give the earlier moment as start")
    found = FlowLog.objects.filter(logged__gte=start, logged__lte=end)
    if found[: MAX_ANSWER + 1].count() > MAX_ANSWER:
        raise Conflict(f"there are more than {MAX_ANSWER} reports in this time: ask for a shorter one")
    return found


def described(logs: QuerySet[FlowLog], *, tailnet: Tailnet) -> Iterator[bytes]:
    """The JSON of an API v2 answer in pieces, oldest first; each slice is read in a scope of its own."""
    yield b'{"logs":['
    after: tuple[datetime, int] | None = None
    more = True
    while more:
        with scope(tailnet=tailnet):
            found = list(_slice(logs, after))
        if found:
            yield (b"," if after else b"") + b",".join(map(_described, found))
            after = found[-1].logged, found[-1].pk
        more = len(found) == SLICE
    yield b"]}"


def _slice(
    logs: QuerySet[FlowLog], after: tuple[datetime, int] | None, length: int = SLICE
) -> QuerySet[FlowLog]:
    if after is not None:
        logged, pk = after
        logs = logs.filter(logged__gte=logged).exclude(logged=logged, pk__lte=pk)
    return logs.order_by("logged", "pk")[:length]


def _described(log: FlowLog) -> bytes:
    """One object: what the row says, and the members that were packed."""
    head = orjson.dumps(
        {
            "logged": timestamp(log.logged),
            "nodeId": log.stable_id,
            "start": timestamp(log.start),
            "end": timestamp(log.end),
        }
    )
    traffic = zstandard.ZstdDecompressor().decompress(log.traffic, max_output_size=MAX_TRAFFIC_BYTES)
    return head[:-1] + b"," + traffic[1:]


def forget_old_flows(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Delete what is older than :data:`KEPT`, and what is beyond :data:`MAX_BYTES`; returns how many.

    Needs the open scope.
    """
    now = now or timezone.now()
    forgotten = 0
    while gone := _delete(FlowLog.objects.filter(logged__lt=now - KEPT)):
        forgotten += gone
    return forgotten + _forget_excess()


def fair_share(sizes: Iterable[int], most: int) -> int:
    """How much each may keep for all together to keep at most ``most``: who has less keeps everything."""
    ordered = sorted(sizes)
    for index, size in enumerate(ordered):
        share = most // (len(ordered) - index)
        if size > share:
            return share
        most -= size
    return ordered[-1] if ordered else 0


def _forget_excess() -> int:
    """Of devices that have more than their share the oldest go: none pushes out what another one told."""
    held = FlowLog.objects.values_list("stable_id").annotate(bytes=Sum("size") + ROW_BYTES * Count("pk"))
    sizes = dict(held.order_by())
    share = fair_share(sizes.values(), MAX_BYTES)
    excess = {device: size - share for device, size in sizes.items() if size > share}
    forgotten, after = 0, None
    while excess and (rows := list(_slice(FlowLog.objects.defer("traffic"), after, DELETED_AT_ONCE))):
        chosen = []
        for row in rows:
            if row.stable_id in excess:
                chosen.append(row.pk)
                excess[row.stable_id] -= row.size + ROW_BYTES
                if excess[row.stable_id] <= 0:
                    del excess[row.stable_id]
        forgotten += FlowLog.objects.filter(pk__in=chosen).delete()[0]
        after = rows[-1].logged, rows[-1].pk
    return forgotten


def _delete(logs: QuerySet[FlowLog]) -> int:
    """So many at once, each in a transaction of its own: others write meanwhile."""
    chosen = list(logs.order_by("logged", "pk").values_list("pk", flat=True)[:DELETED_AT_ONCE])
    return FlowLog.objects.filter(pk__in=chosen).delete()[0] if chosen else 0
