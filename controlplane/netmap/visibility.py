"""Who sees whom, and what may be sent to whom: the one place that asks the policy.

The default policy: everyone in a tailnet reaches everyone. Pure.
"""

from __future__ import annotations

import re
from typing import Any

from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot

NAME = re.compile(r"(?=.{3,255}\.?$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.){2,}", re.ASCII)
ALLOW_ALL: list[dict[str, Any]] = [
    {"SrcIPs": ["*"], "DstPorts": [{"IP": "*", "Ports": {"First": 0, "Last": 65535}}]}
]
BLOCK_ALL: list[dict[str, Any]] = []


def may_see_peers(viewer: NodeSnapshot) -> bool:
    """Whether a node gets a map of others at all: not while it waits for approval or its key has ended."""
    return viewer.standing is Standing.ACTIVE


def is_offered(node: NodeSnapshot) -> bool:
    """Whether a node can be shown to others.

    One without a disco key cannot be reached yet, and one invalid name breaks everyone's map, so both are
    held back. A node whose key has expired stays visible, marked as such.
    """
    if node.standing not in (Standing.ACTIVE, Standing.EXPIRED):
        return False
    return bool(node.disco_key) and NAME.fullmatch(node.name) is not None


def sees(viewer: NodeSnapshot, node: NodeSnapshot) -> bool:
    """Whether ``viewer`` has ``node`` among its peers."""
    return viewer.id != node.id and may_see_peers(viewer) and is_offered(node)


def packet_filter(tailnet: TailnetSnapshot, node: NodeSnapshot) -> list[dict[str, Any]]:
    """The rules that ``node`` enforces on what comes in."""
    return ALLOW_ALL if may_see_peers(node) else BLOCK_ALL
