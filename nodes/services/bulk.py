"""The same step for many devices: a slice in one transaction, each device by its own right and state.

Who asks for more than a slice asks again with the rest, so that no transaction holds the tailnet for long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.errors import Invalid
from accounts.models import Membership
from nodes.access import NodeAction, may, visible_nodes
from nodes.models import Node
from nodes.services import lifecycle
from nodes.state import NodeState

SLICE = 100


class BulkAction(StrEnum):
    """What can be done to many devices at once; the values are those of forms."""

    APPROVE = "approve"
    REJECT = "reject"
    EXPIRE = "expire"
    KEEP_KEY = "keep-key"
    LET_EXPIRE = "let-expire"
    DELETE = "delete"


class Refusal(StrEnum):
    """Why a device was left as it is."""

    GONE = "gone"  # also: of others, when only one's own are seen
    ROLE = "role"
    STATE = "state"


NEEDS: dict[BulkAction, NodeAction] = {
    BulkAction.APPROVE: NodeAction.APPROVE,
    BulkAction.REJECT: NodeAction.APPROVE,
    BulkAction.EXPIRE: NodeAction.EXPIRE,
    BulkAction.KEEP_KEY: NodeAction.SET_EXPIRY,
    BulkAction.LET_EXPIRE: NodeAction.SET_EXPIRY,
    BulkAction.DELETE: NodeAction.DELETE,
}
# Which devices an action would change; the others need not be asked.
FITS: dict[BulkAction, Callable[[Node], bool]] = {
    BulkAction.APPROVE: lambda node: node.life == NodeState.PENDING,
    BulkAction.REJECT: lambda node: node.life == NodeState.PENDING,
    BulkAction.EXPIRE: lambda node: node.life == NodeState.ACTIVE,
    BulkAction.KEEP_KEY: lambda node: not node.is_tagged and not node.key_expiry_disabled,
    BulkAction.LET_EXPIRE: lambda node: not node.is_tagged and node.key_expiry_disabled,
    BulkAction.DELETE: lambda node: True,
}
Step = Callable[[ChangeSet, Node, Actor, datetime], None]
STEPS: dict[BulkAction, Step] = {
    BulkAction.APPROVE: lifecycle.approve_row,
    BulkAction.REJECT: lambda change, row, by, now: lifecycle.reject_row(change, row, by),
    BulkAction.EXPIRE: lifecycle.expire_row,
    BulkAction.KEEP_KEY: lambda change, row, by, now: lifecycle.set_row_expiry(
        change, row, by, now, disabled=True
    ),
    BulkAction.LET_EXPIRE: lambda change, row, by, now: lifecycle.set_row_expiry(
        change, row, by, now, disabled=False
    ),
    BulkAction.DELETE: lambda change, row, by, now: lifecycle.delete_row(change, row, by),
}


@dataclass(slots=True)
class Outcome:
    """How many devices were changed, and which were not."""

    done: int = 0
    refused: dict[int, Refusal] = field(default_factory=dict)


def refusal(action: BulkAction, node: Node, membership: Membership) -> Refusal | None:
    """Why this person cannot do this to this device now; ``None`` = they can."""
    if not may(membership, NEEDS[action], node):
        return Refusal.ROLE
    return None if FITS[action](node) else Refusal.STATE


def act_on_nodes(
    *,
    membership: Membership,
    node_ids: Sequence[int],
    action: BulkAction,
    by: Actor,
    now: datetime | None = None,
) -> Outcome:
    """Do it to those of (at most ``SLICE``) devices that it can be done to, in one transaction."""
    if len(node_ids) > SLICE:
        raise Invalid(f"at most {SLICE} devices at once")
    now = now or timezone.now()
    outcome = Outcome()
    with write(membership.tailnet_id) as change:
        found = visible_nodes(membership).filter(pk__in=list(node_ids)).select_for_update(of=("self",))
        rows = {row.pk: row for row in found}
        for node_id in dict.fromkeys(node_ids):
            row = rows.get(node_id)
            why = Refusal.GONE if row is None else refusal(action, row, membership)
            if row is not None and why is None:
                STEPS[action](change, row, by, now)
                outcome.done += 1
            elif why is not None:
                outcome.refused[node_id] = why
    return outcome
