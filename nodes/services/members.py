"""A person's end in a tailnet, with all that is theirs there."""

from __future__ import annotations

from datetime import datetime

from accounts.actors import Actor
from accounts.changes import write
from accounts.models import Membership
from accounts.services import people
from nodes.models import PreAuthKey
from nodes.services.authkeys import revoke_auth_key
from nodes.services.lifecycle import delete_nodes_of


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
