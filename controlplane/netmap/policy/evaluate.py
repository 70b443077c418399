"""What a policy means for each node of a tailnet. Each is derived from the one before. Pure.

Whom a node sees depends on it and the other alone, so after a change only pairs with a changed node are
looked at again; a filter is made anew for the nodes that a rule with other senders reaches.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import orjson

from controlplane.netmap.policy import approvers
from controlplane.netmap.policy.carriers import Carriers
from controlplane.netmap.policy.compiled import Compiled, FilterRule, compile_plan, filter_rules, union
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.nodeattrs import Capabilities
from controlplane.netmap.policy.plans import Plan, plans_of
from controlplane.netmap.policy.ssh import SSHRules
from controlplane.netmap.policy.world import World, bit_numbers
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot

MAX_PATCHED = 64  # with more changed nodes than that, who sees whom is worked out anew
SPARE_BITS = 64  # numbers of nodes that are gone, beyond as many as there are nodes


class Evaluation:
    """A policy against one snapshot; what is asked for a node is made when it is first asked for."""

    def __init__(
        self,
        plans: Sequence[Plan],
        world: World,
        rules: Sequence[Compiled],
        ssh: SSHRules,
        capabilities: Capabilities,
    ) -> None:
        self.policy: Policy = world.policy
        self.world = world
        self._plans = plans
        self._rules = rules
        self._ssh = ssh
        self._capabilities = capabilities
        self._carriers = Carriers(world, rules)
        self._peers: dict[int, int] = {}
        self._filters: dict[int, list[FilterRule]] = {}

    @classmethod
    def of(cls, policy: Policy, snapshot: TailnetSnapshot) -> Evaluation:
        world, plans = World.of(policy, snapshot.nodes, snapshot.users), plans_of(policy)
        rules = [compile_plan(plan, world) for plan in plans]
        return cls(plans, world, rules, SSHRules.of(world), Capabilities.of(world))

    # -- the next one

    def updated(self, snapshot: TailnetSnapshot, changed: Iterable[int] | None = None) -> Evaluation:
        """The same policy against the next snapshot; ``changed`` are the nodes that may differ (None = all).

        Equals :meth:`of` of that snapshot, at the price of what changed. What did not change for a node is
        the same object.
        """
        touched = self._touched(snapshot, changed)
        if len(self.world.slots) > 2 * len(snapshot.nodes) + SPARE_BITS:
            return Evaluation.of(self.policy, snapshot)
        world = self.world.changed(snapshot.nodes, snapshot.users, touched)
        bits = union(
            1 << bit for i in touched for w in (self.world, world) if (bit := w.bits.get(i)) is not None
        )
        rules = [self._carried(old, compile_plan(old.plan, world), bits) for old in self._rules]
        following = Evaluation(
            self._plans, world, rules, self._ssh.updated(world, touched), self._capabilities.updated(world)
        )
        self._hand_on_filters(following, bits)
        self._hand_on_peers(following, touched, bits)
        return following

    def _touched(self, snapshot: TailnetSnapshot, changed: Iterable[int] | None) -> set[int]:
        """The nodes that differ: in themselves, or in what is known of the person whose they are."""
        old, new = self.world.nodes, snapshot.nodes
        among = old.keys() | new.keys() if changed is None else set(changed)
        touched = {i for i in among if old.get(i) is not new.get(i) and old.get(i) != new.get(i)}
        before, after = self.world.users, snapshot.users
        if before is not after:
            people = {i for i in before.keys() | after.keys() if before.get(i) != after.get(i)}
            if people:
                touched |= {node.id for node in new.values() if node.user_id in people}
        return touched

    def _carried(self, old: Compiled, new: Compiled, changed: int) -> Compiled:
        """The new form of a rule, with the sources' texts of the old one where they are the same still."""
        if new.plan.is_own:
            return new
        same = old.senders == new.senders and not new.senders & changed
        if same or (old.plan.has_wildcard and not old.plan.postures):
            old_spans = old.__dict__.get("source_spans")
            if same and not old.plan.has_wildcard and old_spans is not None:
                new.__dict__["source_spans"] = old_spans
                if "source_texts" in old.__dict__:
                    new.__dict__["source_texts"] = old.source_texts
            elif old_spans is not None and old_spans == new.source_spans and "source_texts" in old.__dict__:
                new.__dict__["source_texts"] = old.source_texts
        return new

    def _hand_on_filters(self, following: Evaluation, changed: int) -> None:
        """A filter stays if its node did not change, and no rule that reaches it has other senders."""
        affected = changed
        for old, new in zip(self._rules, following._rules, strict=True):
            if new.plan.is_own:
                moved = (old.senders ^ new.senders) | changed
                affected |= new.world.owned_with(moved) | old.world.owned_with(moved)
            elif "source_texts" not in new.__dict__:
                affected |= old.receivers | new.receivers
            else:
                affected |= old.receivers ^ new.receivers
        bits = self.world.bits
        following._filters = {
            i: made
            for i, made in self._filters.items()
            if not affected >> bits[i] & 1 and i in following.world.bits
        }

    def _hand_on_peers(self, following: Evaluation, touched: set[int], changed: int) -> None:
        if len(touched) > MAX_PATCHED or not self._peers:
            return
        seen_by = [
            (1 << bit, following.peers_of(i))
            for i in touched
            if (bit := following.world.bits.get(i)) is not None
        ]
        for node_id, peers in self._peers.items():
            if node_id in touched:
                continue
            bit, now = following.world.bits[node_id], peers & ~changed if peers & changed else peers
            for one, seen in seen_by:
                if seen >> bit & 1:
                    now |= one
            following._peers[node_id] = peers if now == peers else now

    # -- who sees whom

    def peers_of(self, node_id: int) -> int:
        """The nodes that this one sees, as a mask: a rule lets one of the two reach the other."""
        peers = self._peers.get(node_id)
        if peers is None:
            peers = self._peers[node_id] = self._find_peers(node_id)
        return peers

    def _find_peers(self, node_id: int) -> int:
        bit, peers = self.world.bit(node_id), 0
        if not bit:
            return 0
        for rule in self._rules:
            sends, receives = rule.senders & bit, rule.receivers & bit
            if rule.plan.is_back or not (sends or receives):
                continue
            others = (rule.receivers if sends else 0) | (rule.senders if receives else 0)
            if rule.plan.is_own:
                others &= self.world.by_user.get(self.world.nodes[node_id].user_id, 0)
            peers |= others
        return peers & ~bit

    def sees(self, viewer: int, peer: int) -> bool:
        bit = self.world.bits.get(peer)
        return bit is not None and bool(self.peers_of(viewer) >> bit & 1)

    def routes_for(self, viewer: int, peer: int) -> tuple[str, ...]:
        """The prefixes of ``peer`` that this viewer is to use: subnets that it may reach, and exit routes."""
        bit, number = self.world.bit(viewer), self.world.bits.get(peer)
        if number is None or not self.peers_of(viewer) >> number & 1:
            return ()
        return tuple(prefix for prefix, mask in self._carriers.viewers_of(number) if mask & bit)

    def view_key(self, node_id: int) -> Hashable:
        """Equal for viewers that see the same peers (themselves aside) with the same routes."""
        own = self.world.bit(node_id)
        peers = self.peers_of(node_id)
        routes = tuple(
            (number, prefix)
            for number in self._routing
            if peers >> number & 1
            for prefix, mask in self._carriers.viewers_of(number)
            if mask & own
        )
        return (peers | own if peers else 0, routes)

    @property
    def _routing(self) -> list[int]:
        """The numbers of the nodes with approved routes, in order."""
        return sorted({*self.world.routers, *bit_numbers(self.world.exits)})

    # -- what a node is told

    def filter_of(self, node_id: int) -> list[FilterRule]:
        """The packet filter of a node as on the wire, reduced to its addresses and routes."""
        made = self._filters.get(node_id)
        if made is None:
            bit = self.world.bits.get(node_id)
            made = [] if bit is None else [one for rule in self._rules for one in filter_rules(rule, bit)]
            if bit is not None:
                self._filters[node_id] = made
        return made

    def filter_json(self, node_id: int) -> bytes:
        """:meth:`filter_of` as JSON."""
        return orjson.dumps(self.filter_of(node_id))

    def ssh_of(self, node_id: int) -> list[dict[str, Any]]:
        """The SSH rules of a node as on the wire."""
        return self._ssh.of_node(node_id)

    @property
    def ssh(self) -> SSHRules:
        """Who gets in by SSH, and after which check."""
        return self._ssh

    def capabilities_of(self, node_id: int) -> dict[str, Any]:
        """What the policy adds to a node's own capabilities (``CapMap``)."""
        return self._capabilities.of_node(node_id)

    # -- who may do what

    def may_own(self, tag: str, *, user_id: int = 0, tags: Iterable[str] = ()) -> bool:
        """Whether this person, or a node or key with these tags, may give ``tag`` to a node."""
        subject = approvers.subject_of(self.world.users.get(user_id), tags)
        return approvers.may_own(self.policy, tag, subject)

    def approves(self, node: NodeSnapshot, prefix: str) -> bool:
        """Whether ``autoApprovers`` lets this node serve this prefix without anybody's approval."""
        return approvers.approves(self.policy, node, prefix, self.world.users)
