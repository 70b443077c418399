"""Prefixes that nodes offer, and their approval."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime
from ipaddress import ip_network

from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.errors import Conflict, Invalid, NotFound
from accounts.services import audit
from nodes.addresses import is_nodes_own
from nodes.hostinfo import EXIT_ROUTES, MAX_ROUTES
from nodes.models import Node, Route
from nodes.offers import Routes, routes_of
from nodes.selectors import waiting_routes

MAX_PREFIX = 50


def sync_routes(
    change: ChangeSet, node: Node, offered: Collection[str], approved: Collection[str], now: datetime
) -> bool:
    """Make the node's routes those it offers now; ``approved`` are the ones policy approves by itself.

    A withdrawn prefix loses its row and so its approval: offering it again asks again, unless it was approved
    once and for all (:func:`set_enabled_routes`). Returns whether anything changed.
    """
    by_policy, approved = set(approved), {*approved, *node.preapproved_routes}
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
    granted = sorted(route.prefix for route in new if route.prefix in by_policy)
    if granted:
        _record(change, node, Actor.policy(), "ALLOWED_IPS", new=granted)
    found = approve_waiting(change, node, by_policy, now)
    return bool(gone or new or found)


def approve_waiting(change: ChangeSet, node: Node, prefixes: Collection[str], now: datetime) -> list[str]:
    """Approve those of the node's waiting routes that policy approves by itself; returns which they were.

    What somebody has declined stays so.
    """
    waiting = [route for route in waiting_routes().filter(node_id=node.pk) if route.prefix in prefixes]
    for route in waiting:
        _settle(route, approved=True, now=now)
    granted = sorted(route.prefix for route in waiting)
    if granted:
        _record(change, node, Actor.policy(), "ALLOWED_IPS", new=granted)
    return granted


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
        _refuse_own(wanted)
        old = sorted(prefix for prefix, route in routes.items() if route.approved_at is not None)
        for prefix, route in routes.items():
            if (prefix in wanted) != (route.approved_at is not None):
                _settle(route, approved=prefix in wanted, now=now)
        new = sorted(wanted & set(routes))
        if lost := set(old) - wanted:
            _forget(node, lost)
        if old != new:
            _record(change, node, by, "ALLOWED_IPS", old=old, new=new)
        return sorted(routes.values(), key=lambda route: route.prefix)


def set_enabled_routes(
    *, node: Node, prefixes: Collection[str], by: Actor, now: datetime | None = None
) -> Routes:
    """Approve exactly these prefixes, offered or not; one that is offered later, or again, serves at once.

    The two default routes go together. Approval ends when somebody withdraws it.
    """
    wanted = set(map(_canonical, prefixes))
    if wanted & EXIT_ROUTES:
        wanted |= EXIT_ROUTES
    if len(wanted) > MAX_ROUTES:
        raise Invalid(f"a device has at most {MAX_ROUTES} routes")
    _refuse_own(wanted)
    now = now or timezone.now()
    with write(node.tailnet_id) as change:
        row = Node.objects.select_for_update(of=("self",)).filter(pk=node.pk).first()
        if row is None:
            raise NotFound("this device is no longer in the tailnet")
        routes = list(Route.objects.filter(node_id=row.pk))
        old = _told(row, routes)
        for route in routes:
            if (route.prefix in wanted) != (route.approved_at is not None):
                _settle(route, approved=route.prefix in wanted, now=now)
        _keep(row, wanted)
        new = _told(row, routes)
        if old != new:
            _record(change, row, by, "ALLOWED_IPS", old=old.enabled, new=new.enabled)
        return new


def _told(node: Node, routes: Collection[Route]) -> Routes:
    offered = [(route.prefix, route.approved_at is not None) for route in routes]
    return routes_of(node.preapproved_routes, offered)


def _canonical(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as error:
        raise Conflict(f"{text!r} cannot be routed: {error}") from error


def _refuse_own(prefixes: Collection[str]) -> None:
    if own := sorted(prefix for prefix in prefixes if prefix not in EXIT_ROUTES and is_nodes_own(prefix)):
        raise Conflict(f"{', '.join(own)} lies within the tailnet's own addresses: nobody can route it")


def _keep(node: Node, prefixes: Collection[str]) -> None:
    """Have these, and no others, approved once and for all."""
    if set(node.preapproved_routes) != set(prefixes):
        node.preapproved_routes = sorted(prefixes)
        node.save(update_fields=["preapproved_routes"])


def _forget(node: Node, prefixes: Collection[str]) -> None:
    """Somebody has withdrawn the approval of these: it does not come back by itself."""
    row = Node.objects.only("preapproved_routes").get(pk=node.pk)
    _keep(row, set(row.preapproved_routes) - set(prefixes))


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
