"""Which exit node a device uses, and who chose it, as its page shows them."""

from __future__ import annotations

from dataclasses import dataclass

from django.utils import timezone

from accounts.models import Membership
from nodes.access import NodeAction, may
from nodes.hostinfo import used_exit_node
from nodes.models import Node
from nodes.selectors import exit_nodes, is_online
from nodes.services.asking import understands_us
from nodes.state import KEY_IS_GOOD

MAX_CHOICES = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """One exit node to choose."""

    stable_id: str
    name: str
    online: bool
    chosen: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitChoice:
    """``used``: the exit node's name by the device's own word, "" = none. ``broken``: it is approved no more.

    ``by_admin``: it was chosen here. ``ours``: a client that takes such a choice.
    """

    used: str
    by_admin: bool
    broken: bool
    ours: bool
    may: bool
    online: bool
    choices: list[Choice]


def exit_choice(node: Node, *, membership: Membership, online: bool) -> ExitChoice:
    """What the page says, and what may be chosen by whom."""
    used_id, ours = used_exit_node(node.hostinfo), understands_us(node)
    allowed = ours and node.life in KEY_IS_GOOD and may(membership, NodeAction.SET_EXIT_NODE, node)
    found = list(exit_nodes().exclude(pk=node.pk)[:MAX_CHOICES]) if allowed or used_id else []
    used = next((one for one in found if one.stable_id == used_id), None)
    broken = bool(used_id) and used is None
    if broken:
        used = Node.objects.filter(stable_id=used_id).first()
    now = timezone.now()
    return ExitChoice(
        used=used.name if used is not None else used_id,
        by_admin=used is not None and node.exit_node_id == used.pk,
        broken=broken,
        ours=ours,
        may=allowed,
        online=online,
        choices=[
            Choice(one.stable_id, one.name, is_online(one, now), one.stable_id == used_id) for one in found
        ],
    )
