"""Posture attributes that people and programs note about devices."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Q
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.errors import Conflict, Invalid, NotFound
from accounts.models import Tailnet
from accounts.services import audit
from nodes.models import Node, PostureAttribute
from nodes.posture import MAX_ATTRIBUTES, MAX_KEY, Value, is_key, kind_of
from nodes.selectors import live_attributes

MAX_CHANGES = 1000  # attributes in one call
SWEEP_BATCH = 500  # attributes that end in one transaction


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an attribute shall be; ``expires`` = when it goes by itself."""

    value: Value
    expires: datetime | None = None


Changes = Mapping[str, Wanted | None]


def set_attributes(
    *, changes: Mapping[Node, Changes], by: Actor, comment: str = "", now: datetime | None = None
) -> None:
    """Set, or with ``None`` remove, attributes of devices of one tailnet: all of them or none.

    Removing what is not there changes nothing.
    """
    now = now or timezone.now()
    _check(changes, now)
    if not changes:
        return
    with write(next(iter(changes)).tailnet_id) as change:
        PostureAttribute.objects.filter(node__in=list(changes), expires__lte=now).delete()
        known, current = _known(changes, now), _current(changes)
        for node, wanted in changes.items():
            old, new = _apply(change, node, wanted, known, current[node.pk])
            if old != new:
                change.upsert("node", node.pk)  # postures judge by them
                audit.record(
                    tailnet=change.tailnet,
                    by=by,
                    action="UPDATE",
                    target_type="NODE",
                    target_id=node.stable_id,
                    target_name=node.name,
                    target_property="POSTURE_ATTRIBUTES",
                    old=old or None,
                    new=new or None,
                    details=comment,
                )


def remove_attribute(*, node: Node, key: str, by: Actor) -> None:
    """Remove one attribute; raises :class:`NotFound` where there is none."""
    if not live_attributes(timezone.now()).filter(node=node, key=key).exists():
        raise NotFound("this device has no such attribute")
    set_attributes(changes={node: {key: None}}, by=by)


def expired(now: datetime) -> Q:
    """Which attributes :func:`delete_expired` deletes."""
    return Q(expires__lte=now)


def delete_expired(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Delete attributes whose time is over, so that postures no longer count them; returns how many."""
    with write(tailnet) as change:
        rows = list(
            PostureAttribute.objects.filter(expired(now or timezone.now())).order_by("pk")[:SWEEP_BATCH]
        )
        PostureAttribute.objects.filter(pk__in=[row.pk for row in rows]).delete()
        change.upsert("node", *sorted({row.node_id for row in rows}))
        return len(rows)


def _check(changes: Mapping[Node, Changes], now: datetime) -> None:
    if sum(map(len, changes.values())) > MAX_CHANGES:
        raise Invalid(f"at most {MAX_CHANGES} attributes are changed at once")
    for wanted in changes.values():
        for key, one in wanted.items():
            if not is_key(key):
                raise Invalid(f"{key[:MAX_KEY]!r} cannot be set: use custom: and letters, digits or _")
            if one is not None and one.expires is not None and one.expires <= now:
                raise Invalid(f"{key} would have expired already")


Known = dict[str, tuple[str, str]]  # how the tailnet writes a key, and the kind of its values, by ``folded``
Rows = dict[str, PostureAttribute]  # of one device, by ``folded``


def _known(changes: Mapping[Node, Changes], now: datetime) -> Known:
    folded = {key.lower() for wanted in changes.values() for key in wanted}
    rows = live_attributes(now).filter(folded__in=folded).order_by().values_list("folded", "key", "kind")
    return {name: (key, kind) for name, key, kind in rows.distinct()}


def _current(changes: Mapping[Node, Changes]) -> dict[int, Rows]:
    found: dict[int, Rows] = {node.pk: {} for node in changes}
    for row in PostureAttribute.objects.filter(node__in=list(changes)):
        found[row.node_id][row.folded] = row
    return found


def _apply(
    change: ChangeSet, node: Node, wanted: Changes, known: Known, rows: Rows
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Change one device's ``rows``; returns what they said before and after of what has changed."""
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for key, one in wanted.items():
        row = rows.get(key.lower())
        if one is None:
            if row is not None and row.key == key:
                old[key] = _told(row)
                row.delete()
                del rows[key.lower()]
            continue
        _agree(known, key, one)
        if row is None:
            row = PostureAttribute(tailnet=change.tailnet, node=node, key=key, folded=key.lower())
        else:
            old[key] = _told(row)
        row.kind, row.value, row.expires = kind_of(one.value), one.value, one.expires
        row.save()
        rows[row.folded] = row
        new[key] = _told(row)
    if len(rows) > MAX_ATTRIBUTES:
        raise Conflict(f"a device has at most {MAX_ATTRIBUTES} attributes")
    return old, new


def _agree(known: Known, key: str, one: Wanted) -> None:
    kind = kind_of(one.value)
    written, kept = known.setdefault(key.lower(), (key, kind))
    if written != key:
        raise Conflict(f"this attribute is written {written} on other devices: use that")
    if kept != kind:
        raise Conflict(f"the values of {key} are of type {kept}: remove them all to begin with another type")


def _told(row: PostureAttribute) -> Any:
    if row.expires is None:
        return row.value
    return {"value": row.value, "expires": row.expires.isoformat()}
