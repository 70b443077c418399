"""What the public API tells of devices, as plain values: many of them are read in slices, without their rows.

Making 5,000 instances of :class:`nodes.models.Node` takes a second, and Django's reading of moments and JSON
another: so the database gives these columns as text, of which most is passed on as it is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
from django.db.models import QuerySet, TextField
from django.db.models.functions import Cast

from nodes.models import Node, Presence, Route

SLICE = 500  # devices in memory at once


class Facts(NamedTuple):
    """One device. Moments are texts in RFC 3339, "" for none."""

    id: int
    stable_id: str
    name: str
    hostname: str
    login_name: str | None  # none = it is its tags'
    tags: list[str]
    ipv4: str
    ipv6: str
    machine_key: str
    node_key: str
    created: str
    last_seen: str
    key_expiry: str
    key_expiry_disabled: bool
    approved: bool
    cloned: bool
    online: bool
    ephemeral: bool
    hostinfo: dict[str, Any]
    app: str | None
    system: str | None
    version: str | None
    endpoints: list[str]
    home_derp: int
    preapproved_routes: list[str]
    routes: list[tuple[str, bool]]  # each prefix that it offers, and whether it is approved


def timestamp(moment: datetime | None) -> str:
    """RFC 3339 in UTC to the second; "" for none (what the API shows of a device)."""
    return f"{moment.astimezone(UTC).isoformat()[:19]}Z" if moment is not None else ""


def facts_of(node: Node, now: datetime) -> Facts:
    """Those of a device that was read whole (:func:`nodes.selectors.nodes`)."""
    try:
        online = node.presence.is_online(now)
    except Presence.DoesNotExist:
        online = False
    return Facts(
        id=node.pk,
        stable_id=node.stable_id,
        name=node.name,
        hostname=node.hostname,
        login_name=node.user.login_name if node.user is not None else None,
        tags=node.tags,
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        machine_key=node.machine_key,
        node_key=node.node_key,
        created=timestamp(node.created),
        last_seen=timestamp(node.last_seen),
        key_expiry=timestamp(node.key_expiry),
        key_expiry_disabled=node.key_expiry_disabled,
        approved=node.is_approved,
        cloned=node.cloned_at is not None,
        online=online,
        ephemeral=node.ephemeral,
        hostinfo=node.hostinfo,
        app=node.reported_app,
        system=node.reported_os,
        version=node.reported_version,
        endpoints=node.endpoints,
        home_derp=node.home_derp,
        preapproved_routes=node.preapproved_routes,
        routes=[(route.prefix, route.approved_at is not None) for route in node.routes.all()],
    )


def _as_text(column: str) -> Cast:
    return Cast(column, TextField())


# In the order of the arguments of _facts.
COLUMNS = (
    "pk",
    "stable_id",
    "name",
    "hostname",
    "user__email",
    _as_text("tags"),
    "ipv4",
    "ipv6",
    "machine_key",
    "node_key",
    _as_text("created"),
    _as_text("last_seen"),
    _as_text("key_expiry"),
    "key_expiry_disabled",
    _as_text("approved_at"),
    _as_text("cloned_at"),
    _as_text("presence__expires"),
    "ephemeral",
    _as_text("hostinfo"),
    "reported_app",
    "reported_os",
    "reported_version",
    _as_text("endpoints"),
    "home_derp",
    _as_text("preapproved_routes"),
)


@dataclass(frozen=True, slots=True)
class Slice:
    """At most :data:`SLICE` devices as the database gave them; ``last`` is the last one's id, 0 = no more."""

    last: int
    rows: Sequence[tuple[Any, ...]]
    routes: Mapping[int, list[tuple[str, bool]]]
    now: str

    def facts(self) -> Iterator[Facts]:
        """One by one: of thousands that live at once the garbage collector would make half of all work."""
        return (_facts(row, self.routes.get(row[0], []), self.now) for row in self.rows)


def read_slice(devices: QuerySet[Node], *, after: int, now: datetime, routes: bool) -> Slice:
    """The first of the devices with ids ``after`` this; one query, two with ``routes``."""
    bare = devices.prefetch_related(None).select_related(None).order_by("pk")
    rows = list(bare.filter(pk__gt=after).values_list(*COLUMNS)[:SLICE])
    offered: dict[int, list[tuple[str, bool]]] = defaultdict(list)
    if rows and routes:
        for node_id, prefix, approved_at in _routes_of(rows[0][0], rows[-1][0]):
            offered[node_id].append((prefix, approved_at is not None))
    last = rows[-1][0] if len(rows) == SLICE else 0
    return Slice(last, rows, offered, f"{now.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}")


def _routes_of(first: int, last: int) -> Iterator[tuple[int, str, datetime | None]]:
    """By the ends of the slice: a list of 500 ids is dearer than the few routes that it would spare."""
    found = Route.objects.filter(node_id__gte=first, node_id__lte=last).order_by("node_id", "prefix")
    return found.values_list("node_id", "prefix", "approved_at").iterator()


def _facts(row: tuple[Any, ...], routes: list[tuple[str, bool]], now: str) -> Facts:
    """Databases write moments as ``2026-11-30 18:37:00.123456``, in UTC: in the same order as texts."""
    online_until = row[16]
    return Facts._make(
        (
            *row[:5],
            _read(row[5], []),
            *row[6:10],
            _moment(row[10]),
            _moment(row[11]),
            _moment(row[12]),
            row[13],
            row[14] is not None,
            row[15] is not None,
            online_until is not None and online_until > now,
            row[17],
            _read(row[18], {}),
            *row[19:22],
            _read(row[22], []),
            row[23],
            _read(row[24], []),
            routes,
        )
    )


def _moment(text: str | None) -> str:
    return f"{text[:10]}T{text[11:19]}Z" if text else ""


def _read(text: str, otherwise: Any) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:  # half a character, which JSON's words let pass
        return otherwise
