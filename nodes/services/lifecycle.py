"""A node's life after it joined; each step is a row of the table in :mod:`nodes.state`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from ipaddress import IPv4Address
from typing import Any

from django.db import IntegrityError
from django.db.models import Q
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import Tailnet, User
from accounts.services import audit
from nodes.addresses import IPV4_POOL, is_assignable
from nodes.hostinfo import offered_routes
from nodes.models import Node
from nodes.names import dns_label, free_name, is_label
from nodes.policy import access_policy
from nodes.services.enrolment import is_name_taken, key_expiry
from nodes.services.routes import approve_waiting
from nodes.services.tagging import refuse_foreign_tags, refuse_unknown_tags
from nodes.state import (
    KEY_IS_GOOD,
    ForbiddenTransition,
    NodeEvent,
    NodeState,
    login_event,
    next_state,
)
from nodes.tags import MAX_TAGS, invalid_tags, normalise_tags

SWEEP_BATCH = 500
EPHEMERAL_GRACE = timedelta(minutes=5)
MAX_NOTES = 4000
GOOD_STATES = [state.value for state in KEY_IS_GOOD]


@contextmanager
def _changing(node: Node) -> Iterator[tuple[ChangeSet, Node]]:
    """The tailnet's write transaction, and the node's current row locked in it."""
    with write(node.tailnet_id) as change:
        row = Node.objects.select_for_update(of=("self",)).select_related("user").filter(pk=node.pk).first()
        if row is None:
            raise NotFound("this device is no longer in the tailnet")
        yield change, row


def _move(row: Node, event: NodeEvent) -> NodeState:
    try:
        return next_state(row.life, event)
    except ForbiddenTransition as error:
        raise Conflict(str(error)) from error


def _saved(
    change: ChangeSet,
    row: Node,
    by: Actor,
    action: str,
    fields: list[str],
    *,
    prop: str = "",
    old: Any = None,
    new: Any = None,
) -> None:
    row.save(update_fields=fields)
    change.upsert("node", row.pk)
    _audit(change, row, by, action, prop=prop, old=old, new=new)


def _audit(
    change: ChangeSet, row: Node, by: Actor, action: str, *, prop: str = "", old: Any = None, new: Any = None
) -> None:
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action=action,
        target_type="NODE",
        target_id=row.stable_id,
        target_name=row.name,
        target_property=prop,
        old=old,
        new=new,
    )


def approve_node(*, node: Node, by: Actor, now: datetime | None = None) -> Node:
    """Let a pending device see and be seen; approving an approved one changes nothing."""
    with _changing(node) as (change, row):
        approve_row(change, row, by, now or timezone.now())
        return row


def approve_row(change: ChangeSet, row: Node, by: Actor, now: datetime) -> None:
    """The same for a row that is locked already, as every ``…_row`` here."""
    if row.approved_at is not None:
        return
    state = _move(row, NodeEvent.APPROVE)
    row.state, row.approved_at = state.value, now
    _saved(change, row, by, "APPROVE", ["state", "approved_at"], new={"state": row.state})


def unapprove_node(*, node: Node, by: Actor) -> Node:
    """Have a device wait for approval again; one that waits already stays as it is."""
    with _changing(node) as (change, row):
        if row.approved_at is not None:
            state = _move(row, NodeEvent.UNAPPROVE)
            row.state, row.approved_at = state.value, None
            _saved(change, row, by, "UNAPPROVE", ["state", "approved_at"], new={"state": row.state})
        return row


def reject_node(*, node: Node, by: Actor) -> None:
    """Turn a pending device away: its row goes, its client needs a new login."""
    with _changing(node) as (change, row):
        reject_row(change, row, by)


def reject_row(change: ChangeSet, row: Node, by: Actor) -> None:
    _move(row, NodeEvent.REJECT)
    _delete(change, row, by, "REJECT")


def delete_node(*, node: Node, by: Actor) -> None:
    """Remove a device for good; its ID is never used again."""
    with _changing(node) as (change, row):
        delete_row(change, row, by)


def delete_row(change: ChangeSet, row: Node, by: Actor) -> None:
    _move(row, NodeEvent.DELETE)
    _delete(change, row, by, "DELETE")


def _delete(change: ChangeSet, row: Node, by: Actor, action: str) -> None:
    _audit(change, row, by, action, old={"state": row.state, "addresses": [row.ipv4, row.ipv6]})
    change.delete("node", row.pk)
    Node.objects.filter(pk=row.pk).delete()


def rename_node(*, node: Node, name: str, by: Actor) -> Node:
    """Give a device a name of a person's choice; an empty one returns to the host name's."""
    name = name.strip().lower()
    if name and not is_label(name):
        raise Invalid(f"{name!r} cannot name a device: use 1 to 63 of a-z, 0-9 and inner hyphens")
    with _changing(node) as (change, row):
        if name and is_name_taken(name, but=row.pk):
            raise Conflict(f"another device is named {name}")
        old = row.name
        row.name = name or free_name(dns_label(row.hostname), lambda one: is_name_taken(one, but=row.pk))
        row.name_is_chosen = bool(name)
        _saved(
            change, row, by, "UPDATE", ["name", "name_is_chosen"], prop="MACHINE_NAME", old=old, new=row.name
        )
        return row


def set_ipv4(*, node: Node, ipv4: str, by: Actor) -> Node:
    """Give a device another IPv4 address, which nobody in the tailnet has; its IPv6 address stays."""
    try:
        address = IPv4Address(ipv4)
    except ValueError as error:
        raise Invalid(f"{ipv4!r} is no IPv4 address") from error
    if address not in IPV4_POOL:
        raise Invalid(f"{address} is not in {IPV4_POOL}, where addresses of devices are")
    if not is_assignable(address):
        raise Conflict(f"{address} is reserved: choose another one")
    with _changing(node) as (change, row):
        if Node.objects.filter(ipv4=str(address)).exclude(pk=row.pk).exists():
            raise Conflict(f"another device has the address {address}")
        old, row.ipv4 = row.ipv4, str(address)
        if row.ipv4 != old:
            _saved(change, row, by, "UPDATE", ["ipv4"], prop="IP_ADDRESS", old=old, new=row.ipv4)
        return row


def expire_node(*, node: Node, by: Actor, now: datetime | None = None) -> Node:
    """End a device's key now; it needs a new login or an extension."""
    with _changing(node) as (change, row):
        expire_row(change, row, by, now or timezone.now())
        return row


def expire_row(change: ChangeSet, row: Node, by: Actor, now: datetime) -> None:
    state = _move(row, NodeEvent.EXPIRE)
    row.state, row.key_expiry = state.value, now
    fields = ["state", "key_expiry"]
    _saved(change, row, by, "EXPIRE", fields, prop="KEY_EXPIRY_TIME", new=_iso(row.key_expiry))


def set_expiry(
    *,
    node: Node,
    by: Actor,
    disabled: bool | None = None,
    expires: datetime | None = None,
    now: datetime | None = None,
) -> Node:
    """Switch key expiry off or on, or move its time. An expired device whose key is good again is let in.

    Switching it on again after its time has passed starts a fresh period, so that nothing is cut off at once.
    A device that has logged out needs a login, not an extension.
    """
    with _changing(node) as (change, row):
        set_row_expiry(change, row, by, now or timezone.now(), disabled=disabled, expires=expires)
        return row


def set_row_expiry(
    change: ChangeSet,
    row: Node,
    by: Actor,
    now: datetime,
    *,
    disabled: bool | None = None,
    expires: datetime | None = None,
) -> None:
    if expires is not None and row.life == NodeState.LOGGED_OUT:
        raise Conflict("this device has logged out: it needs a new login")
    old = {"disabled": row.key_expiry_disabled, "expires": _iso(row.key_expiry)}
    if disabled is not None:
        row.key_expiry_disabled = disabled
    if expires is not None:
        row.key_expiry = expires
    elif disabled is False and (row.key_expiry is None or row.key_expiry <= now):
        row.key_expiry = key_expiry(change.tailnet, None, now)
    good = row.key_expiry_disabled or row.is_tagged or (row.key_expiry is not None and row.key_expiry > now)
    if good and row.life == NodeState.EXPIRED:
        row.state = _move(row, login_event(approved=row.is_approved)).value
    elif not good and row.life in KEY_IS_GOOD:
        row.state = _move(row, NodeEvent.EXPIRE).value
    new = {"disabled": row.key_expiry_disabled, "expires": _iso(row.key_expiry)}
    fields = ["state", "key_expiry", "key_expiry_disabled"]
    _saved(change, row, by, "UPDATE", fields, prop="KEY_EXPIRY", old=old, new=new)


def set_tags(*, node: Node, tags: Collection[str], by: Actor) -> Node:
    """Give a device tags: it belongs to them from now on, and no longer to a person. At least one."""
    wanted = normalise_tags(tags)
    bad = invalid_tags(wanted)
    if bad or not wanted or len(wanted) > MAX_TAGS:
        raise Invalid(f"not a tag: {', '.join(bad)}" if bad else f"a tagged device has 1 to {MAX_TAGS} tags")
    try:
        with _changing(node) as (change, row):
            given = set(wanted) - set(row.tags)
            refuse_unknown_tags(change.tailnet, given)
            refuse_foreign_tags(change.tailnet, by.user, given)
            old = {"tags": row.tags, "user": row.user.login_name if row.user is not None else None}
            row.tags, row.user = wanted, None
            _saved(
                change, row, by, "UPDATE", ["tags", "user"], prop="ACL_TAGS", old=old, new={"tags": wanted}
            )
            offered = offered_routes(row.hostinfo)
            approve_waiting(change, row, access_policy().approved_routes(row, offered), timezone.now())
            return row
    except IntegrityError as error:
        raise Conflict("this machine has a tagged device already") from error


def set_notes(*, node: Node, notes: str, by: Actor) -> Node:
    """Keep a person's remarks with a device."""
    if len(notes) > MAX_NOTES:
        raise Invalid(f"notes have at most {MAX_NOTES} characters")
    with _changing(node) as (change, row):
        old, row.notes = row.notes, notes
        _saved(change, row, by, "UPDATE", ["notes"], prop="NOTES", old=old, new=notes)
        return row


def logout_node(*, node: Node, now: datetime | None = None) -> None:
    """The device itself logs out: its key ends; an ephemeral one is deleted."""
    with _changing(node) as (change, row):
        state = _move(row, NodeEvent.LOGOUT)
        by = Actor.node(row.pk, row.name)
        if row.ephemeral:
            _delete(change, row, by, "LOGOUT")
        elif row.life != state:
            row.state, row.key_expiry = state.value, now or timezone.now()
            _saved(change, row, by, "LOGOUT", ["state", "key_expiry"])


def restart_node(
    *, node: Node, requested_expiry: datetime | None = None, now: datetime | None = None
) -> Node:
    """The device registers again with its good key. Nothing is extended; a sooner expiry is taken.

    Where the tailnet renews by itself, a live, approved device's expiry starts afresh instead.
    """
    now = now or timezone.now()
    sooner = (
        requested_expiry is not None
        and requested_expiry > now
        and node.expires is not None
        and requested_expiry < node.expires
    )
    if not sooner and not node.tailnet.auto_renew:
        return node
    with _changing(node) as (change, row):
        _move(row, NodeEvent.RESTART)
        before = row.key_expiry
        if sooner:
            row.key_expiry = requested_expiry
        else:
            _renew(change.tailnet, row, now)
        if row.key_expiry != before:
            by = Actor.node(row.pk, row.name)
            new = _iso(row.key_expiry)
            _saved(
                change, row, by, "UPDATE", ["key_expiry"], prop="KEY_EXPIRY_TIME", old=_iso(before), new=new
            )
        return row


RENEW_RESOLUTION = timedelta(hours=1)


def _renew(tailnet: Tailnet, row: Node, now: datetime) -> None:
    """Start the sign-in period afresh where the tailnet wants that; at most hourly."""
    fresh = key_expiry(tailnet, None, now)
    live = row.life == NodeState.ACTIVE and row.key_is_good(now)
    if tailnet.auto_renew and live and (row.key_expiry is None or fresh - row.key_expiry > RENEW_RESOLUTION):
        row.key_expiry = fresh


def rotate_node_key(*, node: Node, new_node_key: str, now: datetime | None = None) -> Node:
    """Replace the node key silently; expiry, addresses and approval stay. The machine key is proven."""
    now = now or timezone.now()
    try:
        with _changing(node) as (change, row):
            if not row.key_is_good(now):
                raise Conflict("the old key has expired: log in again")
            _move(row, NodeEvent.ROTATE)
            row.node_key, row.key_rotated_at = new_node_key, now
            _renew(change.tailnet, row, now)
            by = Actor.node(row.pk, row.name)
            _saved(change, row, by, "UPDATE", ["node_key", "key_rotated_at", "key_expiry"], prop="NODE_KEY")
            return row
    except IntegrityError as error:
        raise Conflict("this node key belongs to another machine") from error


def delete_nodes_of(*, tailnet: Tailnet, user: User, by: Actor) -> int:
    """Delete every device that a person has in a tailnet (before they leave it); returns how many."""
    with write(tailnet) as change:
        rows = list(Node.objects.filter(user=user))
        for row in rows:
            _delete(change, row, by, "DELETE")
        return len(rows)


def expire_due(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Mark devices whose key ended; whoever uses the key is refused by time already. Returns how many."""
    now = now or timezone.now()
    with write(tailnet) as change:
        rows = list(Node.objects.filter(due_to_expire(now)).order_by("pk")[:SWEEP_BATCH])
        for row in rows:
            row.state = _move(row, NodeEvent.EXPIRE).value
            _saved(change, row, Actor.system(), "EXPIRE", ["state"], new=_iso(row.key_expiry))
        return len(rows)


def due_to_expire(now: datetime) -> Q:
    """Which nodes :func:`expire_due` marks."""
    return Q(state__in=GOOD_STATES, user__isnull=False, key_expiry_disabled=False, key_expiry__lte=now)


def inactive_ephemeral(now: datetime) -> Q:
    """Ephemeral nodes without a stream that were last seen, or joined, longer ago than the grace."""
    cutoff = now - EPHEMERAL_GRACE
    unseen = Q(last_seen__isnull=True) | Q(last_seen__lte=cutoff)
    offline = Q(presence__isnull=True) | Q(presence__expires__isnull=True) | Q(presence__expires__lte=cutoff)
    return Q(ephemeral=True, last_login__lte=cutoff) & unseen & offline


def delete_inactive_ephemeral(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Delete ephemeral devices that have been away for longer than the grace; returns how many."""
    now = now or timezone.now()
    with write(tailnet) as change:
        rows = list(Node.objects.filter(inactive_ephemeral(now)).order_by("pk")[:SWEEP_BATCH])
        for row in rows:
            _delete(change, row, Actor.system(), "DELETE")
        return len(rows)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment is not None else None
