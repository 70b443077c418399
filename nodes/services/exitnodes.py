"""Which exit node a device uses: its own choice, or one that a person makes for it here.

Every client says in its Hostinfo which one it uses. Trenza's also takes a choice from its server (c2n) and
shows that it was the administrator's; official clients have no such question.
"""

from __future__ import annotations

from accounts.actors import Actor
from accounts.changes import write
from accounts.errors import Conflict, NotFound
from accounts.services import audit
from nodes.models import Node
from nodes.selectors import exit_nodes
from nodes.services.asking import ask_node, understands_us

USE_PATH = "/trenza/exit-node"


def use_exit_node(*, node: Node, exit_node: Node | None, by: Actor) -> None:
    """Have a connected device send its internet traffic through an approved exit node, ``None`` = directly.

    Asked without a transaction, kept only after the device has said yes; raises ``NodeSilent`` when it does
    not, ``Conflict`` for what cannot be chosen. Blocks up to 35 s. Needs the open scope.
    """
    if not understands_us(node):
        raise Conflict("only Trenza's own client lets its server choose its exit node")
    if exit_node is not None and not exit_nodes().exclude(pk=node.pk).filter(pk=exit_node.pk).exists():
        raise Conflict(f"{exit_node.name} is no approved exit node for {node.name}")
    ask_node(node=node, path=USE_PATH, body={"ExitNodeID": exit_node.stable_id if exit_node else ""})
    with write(node.tailnet_id) as change:
        rows = Node.objects.select_for_update(of=("self",)).select_related("exit_node")
        row = rows.filter(pk=node.pk).first()
        if row is None:
            raise NotFound("this device is no longer in the tailnet")
        old = row.exit_node
        row.exit_node = exit_node
        row.save(update_fields=["exit_node"])
        change.upsert("node", row.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="UPDATE",
            target_type="NODE",
            target_id=row.stable_id,
            target_name=row.name,
            target_property="EXIT_NODE",
            old=old.name if old is not None else None,
            new=exit_node.name if exit_node is not None else None,
        )
