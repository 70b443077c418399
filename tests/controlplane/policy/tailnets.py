"""Small tailnets for policies to act on."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from controlplane.netmap import primaries
from controlplane.netmap.policy.check import Checked, check
from controlplane.netmap.snapshot import NodeSnapshot, Standing, TailnetSnapshot, UserSnapshot

START = datetime(2026, 3, 1, tzinfo=UTC)
ANN, BOB, EVE = 1, 2, 3
PEOPLE = {
    ANN: UserSnapshot(id=ANN, login_name="ann@corp.example", display_name="Ann", role="owner"),
    BOB: UserSnapshot(id=BOB, login_name="bob@corp.example", display_name="Bob", role="member"),
    EVE: UserSnapshot(id=EVE, login_name="eve@guest.example", display_name="Eve", role="auditor"),
}
EXIT = ("0.0.0.0/0", "::/0")


def node(number: int, *, user: int = 0, tags: Iterable[str] = (), **facts: Any) -> NodeSnapshot:
    """A node: 100.64.1.<number> and fd7a:115c:a1e0::<number>."""
    defaults: dict[str, Any] = {
        "id": number,
        "stable_id": f"n{number}",
        "name": f"node-{number}.net.example.com.",
        "user_id": user,
        "machine_key": "",
        "node_key": "",
        "ipv4": f"100.64.1.{number}",
        "ipv6": f"fd7a:115c:a1e0::{number:x}",
        "standing": Standing.ACTIVE,
        "created": START + timedelta(minutes=number),
        "tags": tuple(tags),
        "disco_key": f"discokey:{number:064x}",
        "online": True,
        "online_since": START + timedelta(hours=number),
    }
    return NodeSnapshot(**defaults | facts)


def tailnet(
    nodes: Iterable[NodeSnapshot], users: dict[int, UserSnapshot] | None = None, version: int = 1
) -> TailnetSnapshot:
    """A tailnet of these nodes with the carriers of their subnets elected."""
    by_id = {one.id: one for one in nodes}
    by_id |= primaries.reassigned(by_id)
    return TailnetSnapshot(
        id=1,
        name="net",
        suffix="net.example.com",
        version=version,
        nodes=by_id,
        users=PEOPLE if users is None else users,
    )


def tags(*names: str) -> dict[str, list[str]]:
    return {f"tag:{name}": [] for name in names}


def apply(policy: dict[str, Any], *nodes: NodeSnapshot, **more: Any) -> Checked:
    """A policy as it acts on these nodes."""
    return check(json.dumps(policy), tailnet(nodes, **more))


def grants(*rules: dict[str, Any], **sections: Any) -> dict[str, Any]:
    """A policy of grants; each lets everything through unless it says what."""
    filled = [rule if "ip" in rule or "app" in rule else rule | {"ip": ["*"]} for rule in rules]
    return {"grants": filled, **sections}


def reached(checked: Checked, number: int) -> set[tuple[str, str]]:
    """The pairs of source and ``address:ports`` in a node's filter."""
    return {
        (source, f"{target['IP']}:{target['Ports']['First']}-{target['Ports']['Last']}")
        for rule in checked.evaluation.filter_of(number)
        for source in rule["SrcIPs"]
        for target in rule.get("DstPorts", ())
    }


def sources(checked: Checked, number: int) -> set[str]:
    return {source for rule in checked.evaluation.filter_of(number) for source in rule["SrcIPs"]}


def peers(checked: Checked, number: int) -> set[int]:
    evaluation = checked.evaluation
    return set(evaluation.world.ids(evaluation.peers_of(number)))
