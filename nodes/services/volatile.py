"""What a running device reports of itself: endpoints, disco key, home relay, Hostinfo.

Most of it is volatile: the hub pushes it at once and writes it behind with :func:`write_volatile`, without a
new ``netmap_version``. What others rely on durably (name, offered routes), and the exit node that it uses, go
through :func:`update_node_state`, which publishes and records them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.models import Tailnet
from accounts.services import audit
from accounts.tenancy import scope
from nodes.hostinfo import hostname, merged, offered_routes, preferred_derp, used_exit_node
from nodes.models import Node, Route
from nodes.policy import Policy, access_policy
from nodes.services.enrolment import take_hostinfo
from nodes.services.routes import sync_routes

MAX_ENDPOINTS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Volatile:
    """One node's latest report; ``None`` = not reported, keep what is stored. Addresses as ``ip:port``."""

    node_id: int
    disco_key: str | None = None
    endpoints: tuple[str, ...] | None = None
    endpoint_types: tuple[int, ...] | None = None
    home_derp: int | None = None
    hostinfo: dict[str, Any] | None = None
    capability_version: int | None = None
    last_seen: datetime | None = None


def write_volatile(*, tailnet: Tailnet | int, reports: Iterable[Volatile]) -> int:
    """Store the latest reports of some nodes of one tailnet; returns how many rows were written."""
    by_id = {report.node_id: report for report in reports}
    with transaction.atomic(), scope(tailnet=tailnet):
        # Locked: a Hostinfo is merged into what is stored, and nobody else's change of it may be lost.
        rows = list(Node.objects.select_for_update().filter(pk__in=by_id).only(*_FIELDS).order_by("pk"))
        for row in rows:
            _take(row, by_id[row.pk])
        if rows:
            Node.objects.bulk_update(rows, _FIELDS, batch_size=100)
        return len(rows)


_FIELDS = [
    "disco_key",
    "endpoints",
    "endpoint_types",
    "home_derp",
    "hostinfo",
    "capability_version",
    "last_seen",
]


def _take(row: Node, report: Volatile) -> None:
    if report.disco_key is not None:
        row.disco_key = report.disco_key
    if report.endpoints is not None:
        row.endpoints = list(report.endpoints[:MAX_ENDPOINTS])
        row.endpoint_types = list((report.endpoint_types or ())[:MAX_ENDPOINTS])
    if report.hostinfo:
        row.hostinfo = merged(row.hostinfo, report.hostinfo)
        row.home_derp = preferred_derp(row.hostinfo) or row.home_derp
    if report.home_derp:
        row.home_derp = report.home_derp
    if report.capability_version is not None:
        row.capability_version = report.capability_version
    if report.last_seen is not None:
        row.last_seen = report.last_seen


def has_durable_news(node: Node, hostinfo: dict[str, Any]) -> bool:
    """Whether this Hostinfo changes the node's name, offered routes or exit node. Needs the open scope."""
    if not hostinfo:
        return False
    reported = hostname(hostinfo)
    if reported and reported != node.hostname:
        return True
    if used_exit_node(hostinfo) != used_exit_node(node.hostinfo):
        return True
    known = set(Route.objects.filter(node_id=node.pk).values_list("prefix", flat=True))
    return known != set(offered_routes(hostinfo))


def update_node_state(
    *,
    tailnet: Tailnet | int,
    report: Volatile,
    policy: Policy | None = None,
    now: datetime | None = None,
) -> Node | None:
    """Store one node's report and, when its name or offered routes change, publish that as a durable change.

    Returns the node as it is now, ``None`` when it is gone.
    """
    now = now or timezone.now()
    with scope(tailnet=tailnet):
        node = Node.objects.filter(pk=report.node_id).first()
        if node is None:
            return None
        if report.hostinfo is None or not has_durable_news(node, report.hostinfo):
            write_volatile(tailnet=tailnet, reports=[report])
            return Node.objects.filter(pk=report.node_id).first()
    with write(tailnet) as change:
        node = Node.objects.select_for_update(of=("self",)).filter(pk=report.node_id).first()
        if node is None:
            return None
        before = _durable(node)
        take_hostinfo(node, report.hostinfo)
        _take(node, report)
        node.save(update_fields=[*_FIELDS, "hostname", "name"])
        offered = offered_routes(node.hostinfo)
        sync_routes(change, node, offered, (policy or access_policy()).approved_routes(node, offered), now)
        change.upsert("node", node.pk)
        _audit(change, node, before)
        return node


def _durable(node: Node) -> dict[str, Any]:
    """What of a report the audit log tells, by the log's words."""
    prefixes = Route.objects.filter(node_id=node.pk).order_by("prefix").values_list("prefix", flat=True)
    return {
        "HOSTNAME": node.hostname,
        "MACHINE_NAME": node.name,
        "OFFERED_ROUTES": list(prefixes),
        "USED_EXIT_NODE": _name_of(used_exit_node(node.hostinfo)),
    }


def _name_of(stable_id: str) -> str:
    """A device's name for people, or its ID when there is none of it here; "" for none."""
    name = Node.objects.filter(stable_id=stable_id).values_list("name", flat=True).first()
    return str(name) if name is not None else stable_id


def _audit(change: ChangeSet, node: Node, before: dict[str, Any]) -> None:
    for name, new in _durable(node).items():
        if new != before[name]:
            audit.record(
                tailnet=change.tailnet,
                by=Actor.node(node.pk, node.name),
                action="UPDATE",
                target_type="NODE",
                target_id=node.stable_id,
                target_name=node.name,
                target_property=name,
                old=before[name],
                new=new,
            )
