"""Which exit node a device uses, and choosing it from here."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from accounts.api.callers import Caller
from accounts.api.values import Closed, Flag, Text
from accounts.api.views import ApiView, operation
from accounts.errors import Conflict
from controlplane.api.briefly import DeviceBrief, describe_briefly
from nodes.access import MAX_ID, NodeAction, node_for, visible_nodes
from nodes.hostinfo import used_exit_node
from nodes.models import Node
from nodes.selectors import exit_nodes, is_online
from nodes.services.asking import understands_us
from nodes.services.exitnodes import use_exit_node

MAX_CHOICES = 200


class ExitNodeChoice(DeviceBrief):
    """An exit node that the device may use."""

    connected = Flag(help_text="Whether it is connected now.")


class ExitNodeUse(Closed):
    """Which exit node a device uses, by its own word."""

    exitNodeId = Text(allow_null=True, help_text="The exit node's `nodeId`; null = none is used.")
    exitNodeName = Text(required=False, help_text="Its name, where it is in the tailnet.")
    chosenHere = Flag(help_text="Whether it was chosen here, and not at the device.")
    approved = Flag(help_text="Whether what is used is an approved exit node; true where none is.")
    settable = Flag(help_text="Whether the device takes a choice from here, as Trenza's own client does.")
    choices = ExitNodeChoice(many=True, help_text=f"The exit nodes there are, at most {MAX_CHOICES}.")


class ExitNodeWanted(Closed):
    """Which exit node the device shall use."""

    exitNodeId = Text(
        allow_null=True,
        allow_blank=False,
        max_length=MAX_ID,
        help_text="The exit node's `nodeId` or `id`; null = none.",
    )


def describe_use(node: Node, caller: Caller, *, used: str) -> dict[str, Any]:
    """An ExitNodeUse of a device that uses this exit node ("" = none); a fixed number of queries."""
    now, seen = timezone.now(), visible_nodes(caller.membership).exclude(pk=node.pk)
    approved = exit_nodes().order_by().values("pk")
    choices = list(seen.filter(pk__in=approved)[:MAX_CHOICES])
    found = seen.filter(stable_id=used).first() if used else None
    described: dict[str, Any] = {
        "exitNodeId": used or None,
        "chosenHere": found is not None and node.exit_node_id == found.pk,
        "approved": not used or approved.filter(stable_id=used).exists(),
        "settable": understands_us(node),
        "choices": [
            describe_briefly(one, caller.tailnet) | {"connected": is_online(one, now)} for one in choices
        ],
    }
    if found is not None:
        described["exitNodeName"] = describe_briefly(found, caller.tailnet)["name"]
    return described


class ExitNodeView(ApiView):
    """``/device/{device_id}/exit-node``"""

    @operation("getExitNode", about="Get a device's exit node", scope="devices:core:read", answer=ExitNodeUse)
    def get(self, device_id: str) -> dict[str, Any]:
        """Which exit node the device uses, and which it could use."""
        node = node_for(membership=self.caller.membership, node_id=device_id)
        return describe_use(node, self.caller, used=used_exit_node(node.hostinfo))

    @operation(
        "setExitNode",
        about="Choose a device's exit node",
        scope="devices:core",
        body=ExitNodeWanted,
        answer=ExitNodeUse,
        example={"exitNodeId": "nQr7vT2xCNTRL"},
    )
    def post(self, device_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Asks the device, which must be connected and run Trenza's client, and answers when it has done so.

        That can take 35 seconds.
        """
        membership, wanted = self.caller.membership, body["exitNodeId"]
        node = node_for(membership=membership, node_id=device_id, action=NodeAction.SET_EXIT_NODE)
        chosen = node_for(membership=membership, node_id=wanted) if wanted is not None else None
        if chosen == node:
            raise Conflict("a device is no exit node of its own")
        use_exit_node(node=node, exit_node=chosen, by=self.caller.actor)
        node.refresh_from_db(fields=["exit_node"])
        return describe_use(node, self.caller, used=chosen.stable_id if chosen is not None else "")
