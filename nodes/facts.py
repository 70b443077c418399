"""What the public API tells of devices, as plain values: many of them are read in slices, without their rows.

A row of :class:`nodes.models.Node` costs several times as much to make as these few columns.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from datetime import datetime
from typing import Any, NamedTuple

from django.db.models import QuerySet

from nodes.models import Node, Presence, Route

SLICE = 500  # devices in memory at once


class Facts(NamedTuple):
    """One device. Its fields are :data:`COLUMNS`, in their order, and then its routes."""

    id: int
    stable_id: str
    name: str
    hostname: str
    user_id: int | None
    login_name: str | None
    tags: list[str]
    ipv4: str
    ipv6: str
    machine_key: str
    node_key: str
    created: datetime
    last_seen: datetime | None
    key_expiry: datetime | None
    key_expiry_disabled: bool
    approved_at: datetime | None
    cloned_at: datetime | None
    online_until: datetime | None
    ephemeral: bool
    hostinfo: dict[str, Any]
    app: str | None
    system: str | None
    version: str | None
    endpoints: list[str]
    home_derp: int
    preapproved_routes: list[str]
    routes: list[tuple[str, bool]]  # each prefix that it offers, and whether it is approved


COLUMNS = (
    "pk",
    "stable_id",
    "name",
    "hostname",
    "user_id",
    "user__email",
    "tags",
    "ipv4",
    "ipv6",
    "machine_key",
    "node_key",
    "created",
    "last_seen",
    "key_expiry",
    "key_expiry_disabled",
    "approved_at",
    "cloned_at",
    "presence__expires",
    "ephemeral",
    "hostinfo",
    "reported_app",
    "reported_os",
    "reported_version",
    "endpoints",
    "home_derp",
    "preapproved_routes",
)


def facts_of(node: Node) -> Facts:
    """Those of a device that was read whole (:func:`nodes.selectors.nodes`)."""
    try:
        online_until = node.presence.expires
    except Presence.DoesNotExist:
        online_until = None
    return Facts(
        id=node.pk,
        stable_id=node.stable_id,
        name=node.name,
        hostname=node.hostname,
        user_id=node.user_id,
        login_name=node.user.login_name if node.user is not None else None,
        tags=node.tags,
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        machine_key=node.machine_key,
        node_key=node.node_key,
        created=node.created,
        last_seen=node.last_seen,
        key_expiry=node.key_expiry,
        key_expiry_disabled=node.key_expiry_disabled,
        approved_at=node.approved_at,
        cloned_at=node.cloned_at,
        online_until=online_until,
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


def read_slice(devices: QuerySet[Node], *, after: int, routes: bool) -> list[Facts]:
    """The first :data:`SLICE` of the devices with ids ``after`` this; one query, two with ``routes``."""
    bare = devices.prefetch_related(None).select_related(None).order_by("pk")
    rows = list(bare.filter(pk__gt=after).values_list(*COLUMNS)[:SLICE])
    offered: dict[int, list[tuple[str, bool]]] = defaultdict(list)
    if rows and routes:
        for node_id, prefix, approved_at in _routes_of(rows[0][0], rows[-1][0]):
            offered[node_id].append((prefix, approved_at is not None))
    return [Facts(*row, offered.get(row[0], [])) for row in rows]


def _routes_of(first: int, last: int) -> Iterator[tuple[int, str, datetime | None]]:
    """By the ends of the slice: a list of 500 ids is dearer than the few routes that it would spare."""
    found = Route.objects.filter(node_id__gte=first, node_id__lte=last).order_by("node_id", "prefix")
    return found.values_list("node_id", "prefix", "approved_at").iterator()
