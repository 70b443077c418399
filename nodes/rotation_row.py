"""When a device's key was replaced and will be, as its page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.models import Membership
from nodes.access import NodeAction, may
from nodes.models import Node
from nodes.services.asking import understands_us
from nodes.state import KEY_IS_GOOD


@dataclass(frozen=True, slots=True)
class RotationRow:
    """``days``: its schedule (0 = none), ``waits``: it was asked and has not done so, ``may``: the button."""

    ours: bool
    days: int
    waits: bool
    may: bool


def rotation_row(node: Node, *, membership: Membership) -> RotationRow:
    """Only Trenza's clients are asked for new keys."""
    ours = understands_us(node)
    asked = node.rotation_asked_at
    return RotationRow(
        ours=ours,
        days=node.tailnet.rotates_after_days if ours else 0,
        waits=asked is not None and asked > node.key_rotated_at,
        may=ours
        and node.life in KEY_IS_GOOD
        and node.is_approved
        and may(membership, NodeAction.ROTATE, node),
    )
