"""What is done to a person of a tailnet: in which state it may be done, by whom, and what goes with it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from accounts.access import may_manage
from accounts.actors import Actor
from accounts.changes import write
from accounts.errors import Invalid
from accounts.models import Membership
from accounts.services import people
from nodes.models import PreAuthKey
from nodes.services.authkeys import revoke_auth_key
from nodes.services.lifecycle import delete_nodes_of

Status = Membership.Status


class PersonAction(StrEnum):
    """Something that is done to one person, or to several at once."""

    APPROVE = "approve"
    SUSPEND = "suspend"
    RESTORE = "restore"
    ROLE = "role"
    DELETE = "delete"


# In which states of a person each makes sense.
FITS: dict[PersonAction, frozenset[str]] = {
    PersonAction.APPROVE: frozenset({Status.NEEDS_APPROVAL}),
    PersonAction.SUSPEND: frozenset({Status.ACTIVE, Status.NEEDS_APPROVAL}),
    PersonAction.RESTORE: frozenset({Status.SUSPENDED}),
    PersonAction.ROLE: frozenset(Status),
    PersonAction.DELETE: frozenset(Status),
}


def may_act(actor: Membership, action: PersonAction, person: Membership) -> bool:
    """Whether one person may do this to another now: never to oneself, nor to whoever ranks as high."""
    return person.status in FITS[action] and person.pk != actor.pk and may_manage(actor, person.role)


def act_on_person(*, action: PersonAction, person: Membership, by: Actor, role: str = "") -> None:
    """Do one of the actions; ``role`` goes with ROLE. Services check state and rank again."""
    if action is PersonAction.APPROVE:
        people.approve_member(membership=person, by=by)
    elif action is PersonAction.SUSPEND:
        people.suspend_member(membership=person, by=by)
    elif action is PersonAction.RESTORE:
        people.restore_member(membership=person, by=by)
    elif action is PersonAction.ROLE:
        if not role:
            raise Invalid("choose a role")
        people.set_role(membership=person, role=role, by=by)
    else:
        remove_person(membership=person, by=by)


def remove_person(*, membership: Membership, by: Actor, now: datetime | None = None) -> int:
    """Take a person out of a tailnet (or oneself): their devices are deleted, their keys and tokens end.

    Tagged devices stay, whoever brought them. Returns how many devices went. All of it happens or nothing.
    """
    with write(membership.tailnet_id) as change:
        deleted = delete_nodes_of(tailnet=change.tailnet, user=membership.user, by=by)
        for key in PreAuthKey.objects.filter(user=membership.user, revoked_at__isnull=True):
            revoke_auth_key(key=key, by=by, now=now)
        people.remove_member(membership=membership, by=by, now=now)
    return deleted
