"""A snapshot together with what its policy means: the one place that is asked who sees whom. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from controlplane.netmap import primaries
from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.netmap.visibility import is_offered, may_see_peers

NODE_FIELDS = tuple(NodeSnapshot.__dataclass_fields__)
# What a policy does not look at: most changes are of these alone, and cost it nothing.
NOT_IN_POLICIES = frozenset(
    {
        "stable_id",
        "name",
        "machine_key",
        "node_key",
        "created",
        "key_expiry",
        "approved",
        "roles",
        "cloned",
        "renews_within",
        "has_ipv4",
        "disco_key",
        "endpoints",
        "home_derp",
        "hostinfo",
        "capability_version",
        "online",
        "online_since",
        "last_seen",
    }
)
# What of these elects, among the routers that ``via`` names, the one that carries a subnet.
ELECTS = frozenset({"name", "approved", "disco_key", "online", "online_since"})


def changed_fields(old: NodeSnapshot, new: NodeSnapshot) -> set[str]:
    return {name for name in NODE_FIELDS if getattr(old, name) != getattr(new, name)}


def differing_nodes(
    old: TailnetSnapshot, new: TailnetSnapshot, among: Iterable[int] | None = None
) -> frozenset[int]:
    """The ids of the nodes that differ; ``among`` names those that may, ``None`` = compare all."""
    before, after = old.nodes, new.nodes
    ids = set(among) if among is not None else before.keys() | after.keys()
    # Untouched nodes are the same object: the comparison of all their members is for the few others.
    ids = {node_id for node_id in ids if before.get(node_id) is not after.get(node_id)}
    return frozenset(node_id for node_id in ids if before.get(node_id) != after.get(node_id))


def _addressed(snapshot: TailnetSnapshot, evaluation: Evaluation, among: Iterable[int]) -> TailnetSnapshot:
    """The snapshot with what the policy says of IPv4 put right for some nodes."""
    without, nodes = evaluation.without_ipv4, snapshot.nodes
    moved = {
        i: replace(nodes[i], has_ipv4=i not in without)
        for i in among
        if i in nodes and nodes[i].has_ipv4 == (i in without)
    }
    return replace(snapshot, nodes=dict(nodes) | moved) if moved else snapshot


@dataclass(frozen=True, slots=True)
class State:
    """What the engine is at: see the module's docstring."""

    snapshot: TailnetSnapshot
    evaluation: Evaluation

    @classmethod
    def of(cls, snapshot: TailnetSnapshot) -> State:
        snapshot = primaries.elected(snapshot)
        evaluation = Evaluation.of(snapshot.policy, snapshot)
        return cls(_addressed(snapshot, evaluation, snapshot.nodes), evaluation)

    def next(
        self,
        snapshot: TailnetSnapshot,
        changed: Iterable[int] | None = None,
        prepared: State | None = None,
    ) -> tuple[State, frozenset[int]]:
        """The state at the next snapshot, and which nodes differ.

        ``changed`` names those that may; ``None`` = compare all. ``prepared`` is a state nearer to the
        next one than this is: what its policy means was found out elsewhere.
        """
        old, among = self.snapshot, None if changed is None else set(changed)
        if among is None or any(
            primaries.is_router(by_id.get(i)) for by_id in (old.nodes, snapshot.nodes) for i in among
        ):
            snapshot = primaries.elected(snapshot, among)
        ids = differing_nodes(old, snapshot, among)
        if prepared is None:
            evaluation = self._evaluated(snapshot, ids)
        else:
            evaluation = prepared._evaluated(snapshot, differing_nodes(prepared.snapshot, snapshot))
        ids |= evaluation.without_ipv4 ^ self.evaluation.without_ipv4
        new = State(_addressed(snapshot, evaluation, ids), evaluation)
        return new, differing_nodes(old, new.snapshot, ids)

    def _evaluated(self, snapshot: TailnetSnapshot, ids: frozenset[int]) -> Evaluation:
        old = self.snapshot
        if old.policy is not snapshot.policy and old.policy != snapshot.policy:
            return Evaluation.of(snapshot.policy, snapshot)
        ignored = NOT_IN_POLICIES - ELECTS if any(rule.via for rule in old.policy.rules) else NOT_IN_POLICIES
        concerned = {i for i in ids if _concerns_policy(old.nodes.get(i), snapshot.nodes.get(i), ignored)}
        if not concerned and (old.users is snapshot.users or old.users == snapshot.users):
            return self.evaluation
        return self.evaluation.updated(snapshot, concerned)

    # -- who sees whom

    def sees(self, viewer: NodeSnapshot, node: NodeSnapshot) -> bool:
        """Whether ``viewer`` has ``node`` among its peers."""
        return (
            viewer.id != node.id
            and may_see_peers(viewer)
            and is_offered(node)
            and self.evaluation.sees(viewer.id, node.id)
        )

    def has_peers(self, viewer: NodeSnapshot) -> bool:
        """Whether there is a node that a viewer would see if it were offered."""
        return may_see_peers(viewer) and bool(self.evaluation.peers_of(viewer.id))

    def peer_ids(self, viewer: NodeSnapshot) -> list[int]:
        """The ids of a node's peers, in order."""
        if not may_see_peers(viewer):
            return []
        evaluation, nodes = self.evaluation, self.snapshot.nodes
        seen = evaluation.world.ids(evaluation.peers_of(viewer.id))
        return sorted(i for i in seen if i != viewer.id and is_offered(nodes[i]))

    def view(self, viewer: NodeSnapshot) -> Hashable:
        """Equal for viewers that see the same peers, themselves aside, with the same routes."""
        return self.evaluation.view_key(viewer.id) if may_see_peers(viewer) else None

    def routes(self, viewer: NodeSnapshot, node: NodeSnapshot) -> tuple[str, ...]:
        """The prefixes that lead from ``viewer`` to its peer ``node``, besides that one's addresses."""
        return self.evaluation.routes_for(viewer.id, node.id) if node.routes else ()

    # -- what a node is told of itself

    def packet_filter(self, node: NodeSnapshot) -> list[dict[str, Any]]:
        """The rules that ``node`` enforces on what comes in."""
        return self.evaluation.filter_of(node.id) if may_see_peers(node) else []

    def packet_filters_member(self, node: NodeSnapshot) -> bytes:
        """:meth:`packet_filter` as a member of a map."""
        rules = self.evaluation.filter_json(node.id) if may_see_peers(node) else b"[]"
        return b'"PacketFilters":{"base":' + rules + b"}"

    def ssh_rules(self, node: NodeSnapshot) -> list[dict[str, Any]]:
        return self.evaluation.ssh_of(node.id) if may_see_peers(node) else []

    def capabilities(self, node: NodeSnapshot) -> dict[str, Any]:
        return self.evaluation.capabilities_of(node.id) if may_see_peers(node) else {}


def _concerns_policy(old: NodeSnapshot | None, new: NodeSnapshot | None, ignored: frozenset[str]) -> bool:
    if old is None or new is None:
        return True
    if not (primaries.is_router(old) or primaries.is_router(new)):
        ignored = NOT_IN_POLICIES
    return not changed_fields(old, new) <= ignored
