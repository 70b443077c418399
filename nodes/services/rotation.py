"""New node keys for Trenza's clients: by schedule, and when a person asks for one.

The server only asks; the client makes the key, and registers it in place of the old one (a silent rotation,
see :func:`nodes.services.lifecycle.rotate_node_key`). Official clients have no such question and are left be.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import write
from accounts.models import Tailnet
from accounts.services import audit
from nodes.models import Node
from nodes.services.asking import ask_node, tell_node, understands_us
from nodes.services.lifecycle import GOOD_STATES

ROTATE_PATH = "/trenza/rotate-node-key"
ASK_AGAIN = timedelta(hours=6)  # a client that was asked and has not changed its key since
ASKED_AT_ONCE = 5  # of one tailnet in one run: peers shake hands anew with each
LOOKED_AT = 500
RENEW_PART = 4  # the last quarter of a sign-in period is when a client renews its key by itself


def rotation_due_since(tailnet: Tailnet, now: datetime) -> datetime | None:
    """Node keys made at or before this moment are to be replaced; ``None`` = the schedule is off."""
    days = tailnet.rotates_after_days
    return now - timedelta(days=days) if days else None


def renews_within(tailnet: Tailnet, node: Node) -> int:
    """Seconds before its end from which the node's key starts a fresh period when it is rotated; 0 = never.

    So a client may rotate by itself, and nobody has to sign in again, where the tailnet renews by itself.
    """
    if not tailnet.auto_renew or node.expires is None:
        return 0
    return tailnet.key_duration_days * 86400 // RENEW_PART


def connected(now: datetime) -> Q:
    """Nodes that hold a stream, of which the schedule may ask something."""
    return Q(state__in=GOOD_STATES, approved_at__isnull=False, presence__expires__gt=now)


def ask_for_due_rotations(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Ask a few of the connected nodes whose keys are old, the oldest first; returns how many.

    Each is marked as asked before it hears of it, so that two runs do not ask twice. Needs the open scope.
    """
    now = now or timezone.now()
    before = rotation_due_since(tailnet, now)
    if before is None:
        return 0
    not_asked = Q(rotation_asked_at__isnull=True) | Q(rotation_asked_at__lte=now - ASK_AGAIN)
    due = Node.objects.select_related("tailnet", "presence").filter(
        connected(now), not_asked, key_rotated_at__lte=before
    )
    rows = [node for node in due.order_by("key_rotated_at", "pk")[:LOOKED_AT] if understands_us(node)]
    asked = rows[:ASKED_AT_ONCE]
    Node.objects.filter(pk__in=[node.pk for node in asked]).update(rotation_asked_at=now)
    for node in asked:
        tell_node(node=node, path=ROTATE_PATH)
    return len(asked)


def rotate_on_demand(*, node: Node, by: Actor) -> None:
    """Have a connected device replace its key now; raises ``NodeSilent`` with the reason when it does not."""
    ask_node(node=node, path=ROTATE_PATH)
    with write(node.tailnet_id) as change:
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="ROTATE",
            target_type="NODE",
            target_id=node.stable_id,
            target_name=node.name,
            target_property="NODE_KEY",
        )
