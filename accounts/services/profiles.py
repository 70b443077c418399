"""What a person is called, and which groups they are in, follows their provider, at each sign-in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db import transaction

from accounts.actors import Actor
from accounts.changes import write
from accounts.models import User
from accounts.services import audit
from accounts.tenancy import memberships_of


def refresh_profile(*, user: User, identity: Mapping[str, Any]) -> None:
    """Take over what the verified token of the person's own provider says; an added identity changes nothing.

    Other devices show name and address, and access rules go by groups: every tailnet of the person learns of
    them. A token that tells no groups any more ends them.
    """
    if (identity["iss"], identity["sub"]) != (user.iss, user.sub):
        return
    said = {
        "email": identity["email"],
        "display_name": identity["name"],
        "picture_url": identity["picture"],
        "groups": identity.get("groups", []),
    }
    changed = {name: value for name, value in said.items() if getattr(user, name) != value}
    if not changed:
        return
    old = {name: getattr(user, name) for name in changed}
    with transaction.atomic():
        for name, value in changed.items():
            setattr(user, name, value)
        user.save(update_fields=list(changed))
        for membership in memberships_of(user.pk):
            with write(membership.tailnet) as change:
                change.upsert("membership", membership.pk)
        audit.record_of_person(
            user=user, by=Actor.person(user), action="UPDATE", target_property="PROFILE", old=old, new=changed
        )
