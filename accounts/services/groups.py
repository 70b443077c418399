"""Groups that a person is given in a tailnet, beside those that their identity provider tells."""

from __future__ import annotations

from collections.abc import Collection

from accounts.access import require
from accounts.actors import Actor
from accounts.changes import write
from accounts.errors import Forbidden, Invalid, NotFound
from accounts.groups import MAX_GROUPS, MAX_NAME, is_group
from accounts.models import Membership
from accounts.roles import Capability, can, outranks
from accounts.services import audit
from accounts.services.people import acting_membership


def set_groups(*, membership: Membership, groups: Collection[str], by: Actor) -> Membership:
    """Have a person be in exactly these groups of this tailnet (``group:NAME``); rules count with it at once.

    Whoever may write the rules may put everybody into groups; others who manage people, those below them.
    """
    wanted = sorted(set(groups))
    bad = [name for name in wanted if not is_group(name)]
    if bad:
        raise Invalid(f"{bad[0][:MAX_NAME]!r} names no group: write it like group:engineering")
    if len(wanted) > MAX_GROUPS:
        raise Invalid(f"a person is in at most {MAX_GROUPS} groups")
    with write(membership.tailnet_id) as change:
        row = Membership.objects.select_related("user").filter(pk=membership.pk).first()
        if row is None:
            raise NotFound("this person is not in the tailnet")
        _require_right(by, row)
        if row.groups == wanted:
            return row
        old, row.groups = row.groups, wanted
        row.save(update_fields=["groups"])
        change.upsert("membership", row.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="UPDATE",
            target_type="USER",
            target_id=row.user_id,
            target_name=row.user.login_name,
            target_property="GROUPS",
            old=old,
            new=wanted,
        )
        return row


def _require_right(by: Actor, row: Membership) -> None:
    actor = acting_membership(by)
    if actor is None:
        return
    require(actor, Capability.MANAGE_USERS)
    if not can(actor, Capability.MANAGE_NETWORK) and not outranks(actor, row.role):
        raise Forbidden("you may act only on people whose role ranks below your own")
