"""Recorded policy cases: a policy, people and nodes in, what each node would be told out. Pure.

A case is an object with ``id``, ``policy`` (text), ``users`` (``login``, ``name``, ``role``) and ``nodes``
(by name: ``user`` or ``tags``, ``ipv4``, ``ipv6``, ``advertised_routes``, ``approved_routes`` before
``autoApprovers`` act). Where no roles are told the first person is the owner, and the others are admins.
Cases of one tailnet may stand beside one another: what one tells of the order in which nodes joined, which
decides who carries a subnet that several offer, counts for the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from typing import Any

from controlplane.netmap import primaries
from controlplane.netmap.policy.approvers import approves
from controlplane.netmap.policy.check import TESTS_FAILED, check
from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.parse import parse_policy
from controlplane.netmap.snapshot import EXIT_ROUTES, NodeSnapshot, Standing, TailnetSnapshot, UserSnapshot

Case = Mapping[str, Any]
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
FIRST_ADDRESSES = ip_network("100.64.0.0/24")  # of a tailnet that hands out addresses one after the other
ACCEPTED, REFUSED = 200, 400


def evaluate_cases(cases: Iterable[Case]) -> Iterable[dict[str, Any]]:
    """The answer to each case, in order."""
    cases = list(cases)
    joined = order_of_joining(cases)
    return (evaluate_case(case, joined) for case in cases)


def order_of_joining(cases: Iterable[Case]) -> dict[tuple[str, ...], dict[str, int]]:
    """For each set of people the places of their nodes, as cases with addresses in sequence tell them."""
    joined: dict[tuple[str, ...], dict[str, int]] = {}
    for case in cases:
        addresses = {name: ip_address(node["ipv4"]) for name, node in case["nodes"].items()}
        if all(address in FIRST_ADDRESSES for address in addresses.values()):
            places = joined.setdefault(_people(case), {})
            for name, address in addresses.items():
                places.setdefault(name, int(address))
    return joined


def _people(case: Case) -> tuple[str, ...]:
    return tuple(sorted(user["login"] for user in case["users"]))


def evaluate_case(case: Case, joined: Mapping[tuple[str, ...], Mapping[str, int]]) -> dict[str, Any]:
    """What the policy of a case means, or why it is refused."""
    try:
        snapshot, ids = _snapshot(case, joined.get(_people(case), {}))
        checked = check(case["policy"], snapshot)
    except PolicyError as error:
        return {"id": case["id"], "status": REFUSED, "message": error.message, "at": error.at, "expect": {}}
    if checked.failures:
        data = [{"user": failure.source, "errors": list(failure.errors)} for failure in checked.failures]
        return {"id": case["id"], "status": REFUSED, "message": TESTS_FAILED, "data": data, "expect": {}}
    told = {name: _told(node_id, checked.evaluation, ids) for name, node_id in ids.items()}
    return {"id": case["id"], "status": ACCEPTED, "message": "", "expect": told}


def _snapshot(case: Case, places: Mapping[str, int]) -> tuple[TailnetSnapshot, dict[str, int]]:
    """The tailnet of a case, its routes approved and their carriers elected, and its nodes' ids."""
    policy = parse_policy(case["policy"])
    users = {
        number: UserSnapshot(
            id=number,
            login_name=user["login"],
            display_name=user["name"],
            role=user.get("role") or ("owner" if number == 1 else "admin"),
        )
        for number, user in enumerate(case["users"], start=1)
    }
    order = sorted(case["nodes"], key=lambda name: _place(name, case["nodes"][name], places))
    ids = {name: number for number, name in enumerate(order, start=1)}
    nodes = {ids[name]: _node(ids[name], case["nodes"][name], users) for name in order}
    nodes = {number: _approved(node, case, ids, policy, users) for number, node in nodes.items()}
    nodes |= primaries.reassigned(nodes)
    snapshot = TailnetSnapshot(
        id=1, name=case["id"], suffix="tailnet.example.com", version=1, nodes=nodes, users=users
    )
    return snapshot, ids


def _place(name: str, node: Mapping[str, Any], places: Mapping[str, int]) -> tuple[int, int, int, str]:
    """Where a node stands in the order of joining; who is not known to have joined comes last."""
    if name in places:
        return 0, places[name], 0, name
    return 1, -len(node["advertised_routes"] or ()), len(name), name


def _node(number: int, node: Mapping[str, Any], users: Mapping[int, UserSnapshot]) -> NodeSnapshot:
    owner = next((user.id for user in users.values() if user.login_name == node.get("user")), 0)
    since = EPOCH + timedelta(minutes=number)
    return NodeSnapshot(
        id=number,
        stable_id=f"n{number}",
        name=f"node-{number}.tailnet.example.com.",
        user_id=owner,
        machine_key="",
        node_key="",
        ipv4=node["ipv4"],
        ipv6=node["ipv6"],
        standing=Standing.ACTIVE,
        created=since,
        tags=tuple(node.get("tags") or ()),
        attributes=node.get("attributes") or {},
        disco_key=f"discokey:{number:064x}",
        online=True,
        online_since=since,
    )


def _approved(
    node: NodeSnapshot, case: Case, ids: Mapping[str, int], policy: Policy, users: Mapping[int, UserSnapshot]
) -> NodeSnapshot:
    """The node with the routes that were approved, and those that the policy approves."""
    facts = next(facts for name, facts in case["nodes"].items() if ids[name] == node.id)
    approved = dict.fromkeys(facts.get("approved_routes") or ())
    for prefix in facts.get("advertised_routes") or ():
        if approves(policy, node, prefix, users):
            approved[prefix] = None
    return replace(node, routes=tuple(approved), approved=dict.fromkeys(approved, node.created))


def _told(node_id: int, evaluation: Evaluation, ids: Mapping[str, int]) -> dict[str, Any]:
    """What one node is told."""
    peers = {
        name: _peer(node_id, other, evaluation)
        for name, other in ids.items()
        if evaluation.sees(node_id, other)
    }
    return {
        "filter_rules": evaluation.filter_of(node_id),
        "ssh_rules": evaluation.ssh_of(node_id),
        "peers": peers,
        "self_cap_map": evaluation.capabilities_of(node_id),
    }


def _peer(viewer: int, peer: int, evaluation: Evaluation) -> dict[str, Any]:
    node = evaluation.world.nodes[peer]
    addresses = [f"{node.ipv4}/32", f"{node.ipv6}/128"]
    routes = evaluation.routes_for(viewer, peer)
    return {
        "addresses": addresses,
        "allowed_ips": [*addresses, *routes],
        "primary_routes": [route for route in routes if route not in EXIT_ROUTES],
        "tags": list(node.tags),
    }
