"""People and their places in tailnets."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import random_text
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import LOCAL_ISSUER, ApiToken, Membership, Tailnet, User
from accounts.roles import Capability, Role, can, outranks
from accounts.services import audit
from accounts.services.tailnets import create_tailnet
from accounts.tenancy import memberships_of, scope

PERSONAL_NAME_LENGTH = 40
NAME_ATTEMPTS = 5
SEEN_RESOLUTION = timedelta(minutes=5)
MAX_EMAIL = 254  # characters, RFC 5321 section 4.5.3.1.3 less the brackets

Status = Membership.Status


def check_email(email: str) -> str:
    """The address, trimmed; raises :class:`Invalid`. ``owner@localhost`` is fine: nothing is mailed to it."""
    email = email.strip()
    try:
        validate_email(email)
    except ValidationError as error:
        raise Invalid(f"{email!r} is not an e-mail address") from error
    return email


def create_person(*, email: str, display_name: str = "") -> User:
    """Make a person whom no provider vouches for; they sign in by link and may add a provider then."""
    return User.objects.create_user(email=check_email(email), display_name=display_name)


def ensure_local_person(*, email: str) -> User:
    """The person that commands mean by an address: the one they made before, else a new one.

    Only people made here are matched by address; those who came through a provider never are.
    """
    email = check_email(email)
    found = User.objects.filter(iss=LOCAL_ISSUER, email__iexact=email).order_by("pk").first()
    return found or create_person(email=email)


def find_member(*, tailnet: Tailnet, email: str) -> Membership:
    """The one member of a tailnet with this address; raises when none or several have it. Needs its scope."""
    found = list(Membership.objects.select_related("user").filter(user__email__iexact=email.strip())[:2])
    if not found:
        raise NotFound(f"nobody in the tailnet {tailnet.name} has the address {email}")
    if len(found) > 1:
        raise Conflict(f"several people in the tailnet {tailnet.name} have the address {email}")
    return found[0]


def add_member(
    *, tailnet: Tailnet, user: User, role: str = Role.MEMBER, by: Actor, needs_approval: bool = False
) -> Membership:
    """Give a person a place in a tailnet; one they have already stays as it is."""
    with write(tailnet) as change:
        found = Membership.objects.filter(user=user).first()
        if found is not None:
            return found
        status = Status.NEEDS_APPROVAL if needs_approval else Status.ACTIVE
        membership = Membership.objects.create(
            tailnet=change.tailnet, user=user, role=Role(role), status=status
        )
        _recorded(
            change, membership, by, "CREATE", new={"role": membership.role, "status": membership.status}
        )
        return membership


def approve_member(*, membership: Membership, by: Actor, role: str | None = None) -> Membership:
    """Let a person in who waits for approval, with another role than a member's if one is given."""
    with write(membership.tailnet_id):
        if role is not None:
            set_role(membership=membership, role=role, by=by)
        return _set_status(membership, by, Status.ACTIVE, "APPROVE", allowed={Status.NEEDS_APPROVAL})


def suspend_member(*, membership: Membership, by: Actor) -> Membership:
    """Cut a person off, and so their devices, keys and tokens; restoring brings all back."""
    return _set_status(
        membership, by, Status.SUSPENDED, "SUSPEND", allowed={Status.ACTIVE, Status.NEEDS_APPROVAL}
    )


def restore_member(*, membership: Membership, by: Actor) -> Membership:
    """Undo a suspension."""
    return _set_status(membership, by, Status.ACTIVE, "RESTORE", allowed={Status.SUSPENDED})


def set_role(*, membership: Membership, role: str, by: Actor) -> Membership:
    """Give a member another role; ownership moves by :func:`transfer_ownership` only."""
    if role == Role.OWNER:
        raise Forbidden("ownership is transferred, not given")
    with write(membership.tailnet_id) as change:
        row = _locked(membership)
        if role not in list(Role):
            raise Invalid(f"there is no role {role!r}")
        _require_rank(by, row, role)
        if row.role == role:
            return row
        _require_another_owner(row)
        old, row.role = row.role, Role(role).value
        row.save(update_fields=["role"])
        _recorded(change, row, by, "UPDATE", prop="ROLE", old=old, new=row.role)
        return row


def remove_member(*, membership: Membership, by: Actor, now: datetime | None = None) -> None:
    """Take a person's place away, or one's own; their API tokens of this tailnet end with it.

    Their devices and auth keys are the caller's to end first, in the same transaction (the app above has
    them).
    """
    with write(membership.tailnet_id) as change:
        row = _locked(membership)
        if by.user is None or by.user.pk != row.user_id:
            _require_rank(by, row, row.role)
        _require_another_owner(row)
        change.delete("membership", row.pk)
        tokens = ApiToken.objects.filter(user=row.user_id, revoked_at__isnull=True)
        ended = tokens.update(revoked_at=now or timezone.now())
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="DELETE",
            target_type="USER",
            target_id=row.user_id,
            target_name=row.user.login_name,
            old={"role": row.role, "status": row.status},
            details=f"API tokens ended with it: {ended}" if ended else "",
        )
        row.delete()


def transfer_ownership(*, membership: Membership, by: Actor) -> Membership:
    """Make another active member the owner; the owner who does it becomes an admin."""
    with write(membership.tailnet_id) as change:
        new_owner = _locked(membership)
        old_owner = acting_membership(by)
        if not can(old_owner, Capability.OWN_TAILNET) or old_owner is None:
            raise Forbidden("only the owner transfers a tailnet")
        if not new_owner.is_active:
            raise Conflict("only an active member can become the owner")
        if new_owner.pk == old_owner.pk:
            return new_owner
        for row, role in ((new_owner, Role.OWNER), (old_owner, Role.ADMIN)):
            old, row.role = row.role, role.value
            row.save(update_fields=["role"])
            _recorded(change, row, by, "UPDATE", prop="ROLE", old=old, new=row.role)
        return new_owner


def note_seen(*, membership: Membership, now: datetime | None = None) -> None:
    """Note that a person has a page of the tailnet open; to five minutes, and no news to anybody."""
    now = now or timezone.now()
    if membership.last_seen is None or now - membership.last_seen > SEEN_RESOLUTION:
        with scope(tailnet=membership.tailnet):
            Membership.objects.filter(pk=membership.pk).update(last_seen=now)


def welcome(*, user: User, hosted_domain: str | None, invited: bool = False) -> Membership | None:
    """A person's first sign-in through a provider: into their domain's tailnet, else one of their own.

    ``hosted_domain`` is the verified token's ``hd``; the e-mail address decides nothing. Whoever comes by an
    invitation gets no tailnet of their own beside the one that they are about to join.
    """
    existing = memberships_of(user.pk)
    if existing:
        return existing[0]
    if hosted_domain:
        tailnet = Tailnet.objects.filter(google_domain=hosted_domain.lower()).first()
        if tailnet is not None:
            return add_member(
                tailnet=tailnet, user=user, by=Actor.person(user), needs_approval=tailnet.users_approval
            )
    if invited:
        return None
    return _personal_tailnet(user)


def _personal_tailnet(user: User) -> Membership:
    """A tailnet of a person's own, named after their address where that name is free."""
    base = re.sub(r"[^a-z0-9]+", "-", user.email.partition("@")[0].lower()).strip("-") or "tailnet"
    base = base[:PERSONAL_NAME_LENGTH].strip("-")
    for attempt in range(NAME_ATTEMPTS):
        name = base if attempt == 0 else f"{base}-{random_text(4).lower()}"
        if not Tailnet.objects.filter(name=name).exists():
            break
    return create_tailnet(name=name, owner=user, by=Actor.person(user))[1]


def _locked(membership: Membership) -> Membership:
    row = Membership.objects.select_related("user").filter(pk=membership.pk).first()
    if row is None:
        raise NotFound("this person is not in the tailnet")
    return row


def acting_membership(by: Actor) -> Membership | None:
    """The acting person's membership; ``None`` for commands and the system, which stand above roles."""
    if by.user is None:
        return None
    membership = Membership.objects.filter(user=by.user).first()
    if membership is None:
        raise Forbidden("you are not in this tailnet")
    return membership


def _require_rank(by: Actor, row: Membership, role: str) -> None:
    actor = acting_membership(by)
    if actor is None:
        return
    if not can(actor, Capability.MANAGE_USERS) or not (outranks(actor, row.role) and outranks(actor, role)):
        raise Forbidden("you may act only on people whose role ranks below your own")


def _require_another_owner(row: Membership) -> None:
    if row.role != Role.OWNER:
        return
    others = Membership.objects.filter(role=Role.OWNER, status=Status.ACTIVE).exclude(pk=row.pk)
    if not others.exists():
        raise Conflict("a tailnet always keeps one active owner: transfer it first")


def _set_status(
    membership: Membership,
    by: Actor,
    status: Membership.Status,
    action: str,
    *,
    allowed: set[Membership.Status],
) -> Membership:
    with write(membership.tailnet_id) as change:
        row = _locked(membership)
        if row.status == status:
            return row
        if row.status not in allowed:
            raise Conflict(f"this person is {row.status}")
        _require_rank(by, row, row.role)
        if status == Status.SUSPENDED:
            _require_another_owner(row)
        old, row.status = row.status, status.value
        row.save(update_fields=["status"])
        _recorded(change, row, by, action, prop="STATUS", old=old, new=row.status)
        return row


def _recorded(
    change: ChangeSet,
    row: Membership,
    by: Actor,
    action: str,
    *,
    prop: str = "",
    old: Any = None,
    new: Any = None,
) -> None:
    change.upsert("membership", row.pk)
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action=action,
        target_type="USER",
        target_id=row.user_id,
        target_name=row.user.login_name,
        target_property=prop,
        old=old,
        new=new,
    )
