"""Which nodes take part in maps at all, whatever the policy says. Pure."""

from __future__ import annotations

import re

from controlplane.netmap.snapshot import NodeSnapshot, Standing

NAME = re.compile(r"(?=.{3,255}\.?$)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.){2,}", re.ASCII)


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
