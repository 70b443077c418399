"""Prefixes that nodes offer, and their approval."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.errors import Conflict
from accounts.services import audit
from nodes.addresses import is_nodes_own
from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node, Route
from nodes.selectors import waiting_routes

MAX_PREFIX = 50


def sync_routes(
    change: ChangeSet, node: Node, offered: Collection[str], approved: Collection[str], now: datetime
) -> bool:
    """Make the node's routes those it offers now; ``approved`` are the ones policy approves by itself.

    A withdrawn prefix loses its row and so its approval: offering it again asks again. Returns whether
    anything changed.
    """
    current = {route.prefix: route for route in Route.objects.filter(node=node)}
    gone = [route.pk for prefix, route in current.items() if prefix not in offered]
    new = [
        Route(
            tailnet=change.tailnet, node=node, prefix=prefix, approved_at=now if prefix in approved else None
        )
        for prefix in sorted(offered)
        if prefix not in current
    ]
    if gone:
        Route.objects.filter(pk__in=gone).delete()
    Route.objects.bulk_create(new)
    return bool(gone or new)


def set_approved_routes(
    *, node: Node, prefixes: Iterable[str], by: Actor, now: datetime | None = None
) -> list[Route]:
    """Approve exactly these of the node's offered prefixes. The two default routes go together.

    Those that lose their approval are declined; those that wait and are not named go on waiting.
    """
    wanted = set(prefixes)
    if wanted & EXIT_ROUTES:
        wanted |= EXIT_ROUTES
    now = now or timezone.now()
    with write(node.tailnet_id) as change:
        routes = {route.prefix: route for route in Route.objects.filter(node_id=node.pk)}
        unknown = sorted(wanted - set(routes) - EXIT_ROUTES)
        if unknown:
            raise Conflict(f"the device does not offer {', '.join(unknown)}")
        if own := sorted(prefix for prefix in wanted - EXIT_ROUTES if is_nodes_own(prefix)):
            raise Conflict(f"{', '.join(own)} lies within the tailnet's own addresses: nobody can route it")
        old = sorted(prefix for prefix, route in routes.items() if route.approved_at is not None)
        for prefix, route in routes.items():
            if (prefix in wanted) != (route.approved_at is not None):
                _settle(route, approved=prefix in wanted, now=now)
        new = sorted(wanted & set(routes))
        if old != new:
            _record(change, node, by, "ALLOWED_IPS", old=old, new=new)
        return sorted(routes.values(), key=lambda route: route.prefix)


def _settle(route: Route, *, approved: bool, now: datetime) -> None:
    """Keep what was decided; an approval that is withdrawn counts as declined: it does not wait anew."""
    route.approved_at, route.declined_at = (now, None) if approved else (None, now)
    route.save(update_fields=["approved_at", "declined_at"])


def _record(
    change: ChangeSet, node: Node, by: Actor, prop: str, *, new: list[str], old: list[str] | None = None
) -> None:
    change.upsert("node", node.pk)
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action="UPDATE",
        target_type="NODE",
        target_id=node.stable_id,
        target_name=node.name,
        target_property=prop,
        old=old,
        new=new,
    )


def decline_routes(
    *, node: Node, prefixes: Collection[str], by: Actor, now: datetime | None = None
) -> list[str]:
    """Say no to those of these prefixes that wait; the default routes go together. Returns which they were.

    They may be approved later all the same; offered anew they ask anew.
    """
    wanted = set(prefixes) | (EXIT_ROUTES if set(prefixes) & EXIT_ROUTES else set())
    now = now or timezone.now()
    with write(node.tailnet_id) as change:
        waiting = [route for route in waiting_routes().filter(node_id=node.pk) if route.prefix in wanted]
        for route in waiting:
            _settle(route, approved=False, now=now)
        declined = sorted(route.prefix for route in waiting)
        if declined:
            _record(change, node, by, "DECLINED_ROUTES", new=declined)
        return declined


def set_route(*, node: Node, prefix: str, approved: bool, by: Actor) -> list[Route]:
    """Approve or withdraw one offered prefix, leaving the others as they are."""
    with write(node.tailnet_id):
        found = Route.objects.filter(node_id=node.pk, approved_at__isnull=False)
        now_approved = set(found.values_list("prefix", flat=True))
        given = EXIT_ROUTES if prefix in EXIT_ROUTES else frozenset({prefix})
        wanted = now_approved | {prefix} if approved else now_approved - given
        return set_approved_routes(node=node, prefixes=wanted, by=by)


def set_exit_node(*, node: Node, enabled: bool, by: Actor) -> list[Route]:
    """Approve or withdraw the node as an exit node, leaving its subnets as they are."""
    with write(node.tailnet_id):
        if enabled and Route.objects.filter(node_id=node.pk, prefix__in=EXIT_ROUTES).count() < len(
            EXIT_ROUTES
        ):
            raise Conflict("the device does not offer itself as exit node")
        approved = Route.objects.filter(node_id=node.pk, approved_at__isnull=False)
        subnets = {route.prefix for route in approved if not route.is_exit}
        return set_approved_routes(node=node, prefixes=subnets | (EXIT_ROUTES if enabled else set()), by=by)
