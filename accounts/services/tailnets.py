"""Tailnets: made, set up, deleted."""

from __future__ import annotations

import logging
import re
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from accounts.access import require_right
from accounts.actors import Actor
from accounts.changes import ChangeSet, record_end, write
from accounts.errors import Conflict, Invalid
from accounts.models import Membership, Tailnet, User
from accounts.models.tailnets import DNS_LABEL
from accounts.roles import Capability, Role
from accounts.services import audit
from accounts.tenancy import memberships_of, scope

logger = logging.getLogger("trenza.audit")

FIRST_TAILNET = "default"
MAX_OWNED = 20  # tailnets of one person
SETTINGS = (
    "display_name",
    "device_approval",
    "users_approval",
    "key_duration_days",
    "auto_renew",
    "rotation_days",
    "google_domain",
    "flow_logging",
)


class NameTaken(Conflict):
    """Another tailnet of the server has this name."""


def check_name(name: str) -> str:
    """The name, if it can be a tailnet's; raises :class:`Invalid`."""
    if not re.fullmatch(DNS_LABEL, name):
        raise Invalid(f"{name!r} cannot name a tailnet: use 1 to 63 of a-z, 0-9 and inner hyphens")
    return name


def create_tailnet(
    *, name: str, owner: User, by: Actor, display_name: str = ""
) -> tuple[Tailnet, Membership]:
    """Make a tailnet with its owner. ``name`` is a DNS label, unique on the server: part of node names."""
    check_name(name)
    if by.user is not None and sum(one.role == Role.OWNER for one in memberships_of(owner.pk)) >= MAX_OWNED:
        raise Conflict(f"a person owns at most {MAX_OWNED} tailnets: delete or transfer one first")
    try:
        with transaction.atomic():
            tailnet = Tailnet.objects.create(name=name, display_name=display_name)
    except IntegrityError as error:
        raise NameTaken(f"there is a tailnet named {name} already") from error
    with write(tailnet) as change:
        membership = Membership.objects.create(tailnet=change.tailnet, user=owner, role=Role.OWNER)
        change.upsert("tailnet", tailnet.pk)
        change.upsert("membership", membership.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="CREATE",
            target_type="TAILNET",
            target_id=tailnet.pk,
            target_name=name,
            new={"owner": owner.login_name},
        )
    tailnet.refresh_from_db()
    return tailnet, membership


def update_settings(*, tailnet: Tailnet, by: Actor, **values: Any) -> Tailnet:
    """Change settings by name (:data:`SETTINGS`); raises :class:`Invalid` on a value out of range."""
    unknown = set(values) - set(SETTINGS)
    if unknown:
        raise Invalid(f"a tailnet has no setting {', '.join(sorted(unknown))}")
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_SETTINGS)
        row = change.tailnet
        old = {name: getattr(row, name) for name in values}
        for name, value in values.items():
            setattr(row, name, value)
        try:
            row.full_clean(exclude=["name", "audit_head"])
        except ValidationError as error:
            raise Invalid("; ".join(error.messages)) from error
        changed = {name: getattr(row, name) for name in values if getattr(row, name) != old[name]}
        if changed:
            _save(change, by, "SETTINGS", {name: old[name] for name in changed}, changed)
    return row


def rename_tailnet(*, tailnet: Tailnet, name: str, by: Actor) -> Tailnet:
    """Give a tailnet another name, and so its devices other domains. What else bears it is the caller's."""
    check_name(name)
    with write(tailnet) as change:
        require_right(by, Capability.MANAGE_SETTINGS)
        row = change.tailnet
        old = row.name
        if name == old:
            return row
        if Tailnet.objects.filter(name=name).exists():
            raise NameTaken(f"there is a tailnet named {name} already")
        row.name = name
        _save(change, by, "NAME", {"name": old}, {"name": name})
    return row


def _save(change: ChangeSet, by: Actor, prop: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    row = change.tailnet
    row.save(update_fields=list(new))
    change.upsert("tailnet", row.pk)
    audit.record(
        tailnet=row,
        by=by,
        action="UPDATE",
        target_type="TAILNET",
        target_id=row.pk,
        target_name=row.name,
        target_property=prop,
        old=old,
        new=new,
    )


def delete_tailnet(*, tailnet: Tailnet, by: Actor) -> None:
    """Delete a tailnet with everything in it; its owner or a command only."""
    with transaction.atomic():
        last = Tailnet.objects.select_for_update().get(pk=tailnet.pk)
        with scope(tailnet=last):
            require_right(by, Capability.OWN_TAILNET)
            Tailnet.objects.filter(pk=last.pk).delete()
        record_end(last)
    # Its audit log went with it: the server's own log keeps who did it, and how that log ended.
    logger.warning(
        "tailnet %s (%d) was deleted by %s %s (%s); its audit log ended at %s",
        last.name,
        last.pk,
        by.type.value,
        by.name,
        by.origin.value,
        last.audit_head or "nothing",
    )


def first_start(*, owner_email: str) -> tuple[Tailnet, User] | None:
    """On an empty database, make the first tailnet and its owner; ``None`` when there is one already."""
    from accounts.services.people import ensure_local_person

    with transaction.atomic():
        if Tailnet.objects.exists():
            return None
        owner = ensure_local_person(email=owner_email)
        tailnet, _membership = create_tailnet(name=FIRST_TAILNET, owner=owner, by=Actor.command())
        return tailnet, owner
