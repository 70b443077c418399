"""A small tailnet for tests of policies: three people, some devices of theirs, some tagged ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.policy.world import World
from controlplane.netmap.snapshot import NodeSnapshot, Standing, UserSnapshot

MAYA, NOOR, OTTO = "maya@acme.test", "noor@acme.test", "otto@partner.test"
USERS = {
    1: UserSnapshot(id=1, login_name=MAYA, display_name="Maya", role="owner"),
    2: UserSnapshot(id=2, login_name=NOOR, display_name="Noor", role="member", groups=("group:oncall",)),
    3: UserSnapshot(id=3, login_name=OTTO, display_name="Otto", role="admin"),
}


def node(node_id: int, name: str, owner: int = 0, *tags: str, **facts: Any) -> NodeSnapshot:
    """A device: ``owner`` for a person's, ``tags`` for a tagged one; its addresses end with its id."""
    return NodeSnapshot(
        id=node_id,
        stable_id=f"n{node_id}",
        name=f"{name}.acme.test.",
        user_id=owner,
        machine_key=f"mkey:{node_id}",
        node_key=f"nodekey:{node_id}",
        ipv4=f"100.64.0.{node_id}",
        ipv6=f"fd7a:115c:a1e0::{node_id:x}",
        standing=Standing.ACTIVE,
        created=datetime(2026, 1, 2, tzinfo=UTC),
        tags=tags,
        **facts,
    )


LAPTOP, DESKTOP, PHONE, TABLET, WEB, DATABASE, RUNNER = range(1, 8)
NODES: Mapping[int, NodeSnapshot] = {
    LAPTOP: node(LAPTOP, "laptop", 1, attributes={"node:os": "macos", "node:osVersion": "14.2"}),
    DESKTOP: node(DESKTOP, "desktop", 1, attributes={"node:os": "linux"}),
    PHONE: node(PHONE, "phone", 2),
    TABLET: node(TABLET, "tablet", 3),
    WEB: node(WEB, "web", 0, "tag:web"),
    DATABASE: node(DATABASE, "database", 0, "tag:db"),
    RUNNER: node(RUNNER, "runner", 0, "tag:ci", "tag:web"),
}
TAGS = '"tagOwners": {"tag:web": [], "tag:db": [], "tag:ci": []}'


def world_of(sections: str, nodes: Mapping[int, NodeSnapshot] = NODES) -> World:
    """The tailnet under a policy of these sections, tags defined."""
    return World.of(parse_policy(f"{{{TAGS}, {sections}}}"), nodes, USERS)
