"""What a policy means for each node of a tailnet. Each is derived from the one before. Pure.

Whom a node sees depends on it and the other alone, so after a change only pairs with a changed node are
looked at again; a filter is made anew for the nodes that a rule with other senders reaches.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import orjson

from controlplane.netmap.policy import approvers
from controlplane.netmap.policy.carriers import Carriers, Coverage
from controlplane.netmap.policy.compiled import Compiled, FilterRule, compile_plan, filter_rules, union
from controlplane.netmap.policy.memberships import Memberships, Part
from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.nodeattrs import Capabilities
from controlplane.netmap.policy.plans import plans_of
from controlplane.netmap.policy.ssh import SSHRules
from controlplane.netmap.policy.world import World, bit_numbers
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot

MAX_PATCHED = 64  # with more changed nodes than that, who sees whom is worked out anew
SPARE_BITS = 64  # numbers of nodes that are gone, beyond as many as there are nodes


class Evaluation:
    """A policy against one snapshot; what is asked for a node is made when it is first asked for."""

    def __init__(
        self,
        coverage: Coverage,
        world: World,
        rules: Sequence[Compiled],
        ssh: SSHRules,
        capabilities: Capabilities,
    ) -> None:
        self.policy: Policy = world.policy
        self._has_own = any(rule.plan.is_own for rule in rules)
        self.world = world
        self._rules = rules
        self._ssh = ssh
        self._capabilities = capabilities
        self._memberships = Memberships(rules)
        self._carriers = Carriers(world, rules, coverage, self.peers_of)
        self._coverage = coverage
        self._reached_by: dict[Part, int] = {}
        self._peers: dict[int, int] = {}  # by the number of the node's bit, as all here
        self._view_of: dict[int, int] = {}
        self._views: dict[Hashable, int] = {}  # and their numbers
        self._filters: dict[int, list[FilterRule]] = {}
        self._sources_json: dict[int, tuple[list[str], orjson.Fragment]] = {}

    @classmethod
    def of(cls, policy: Policy, snapshot: TailnetSnapshot) -> Evaluation:
        world, plans = World.of(policy, snapshot.nodes, snapshot.users), plans_of(policy)
        rules = [compile_plan(plan, world) for plan in plans]
        return cls(Coverage(plans), world, rules, SSHRules.of(world), Capabilities.of(world))

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
        rules = [rule.following(world, self.world, bits) for rule in self._rules]
        following = Evaluation(
            self._coverage,
            world,
            rules,
            self._ssh.updated(world, touched),
            self._capabilities.updated(world, touched),
        )
        following._memberships = self._memberships.following(rules, bit_numbers(bits))
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

    def _hand_on_filters(self, following: Evaluation, changed: int) -> None:
        """A filter stays if its node did not change, and no rule that reaches it has other senders."""
        affected = changed
        for old, new in zip(self._rules, following._rules, strict=True):
            if new is old:
                continue
            if new.plan.is_own:
                moved = (old.senders ^ new.senders) | changed
                affected |= following.world.owned_with(moved) | self.world.owned_with(moved)
            elif new.shares_sources(old):
                affected |= old.receivers ^ new.receivers
            else:
                affected |= old.receivers | new.receivers
        following._filters = dict(self._filters)
        for bit in bit_numbers(affected):
            following._filters.pop(bit, None)

    def _hand_on_peers(self, following: Evaluation, touched: set[int], changed: int) -> None:
        """Seeing is mutual: only those that a changed node sees, or saw, see something else now."""
        if len(touched) > MAX_PATCHED or not self._peers:
            return
        sees = [
            (1 << bit, following.peers_of(i))
            for i in touched
            if (bit := following.world.bits.get(i)) is not None
        ]
        concerned = union(peers for _, peers in sees) | union(self.peers_of(i) for i in touched)
        patched = dict(self._peers)
        for bit in bit_numbers(concerned | changed):
            peers = patched.pop(bit, None)
            if peers is not None and not changed >> bit & 1:
                patched[bit] = peers & ~changed | union(one for one, seen in sees if seen >> bit & 1)
        following._peers = patched | following._peers

    # -- who sees whom

    def peers_of(self, node_id: int) -> int:
        """The nodes that this one sees, as a mask: a rule lets one of the two reach the other."""
        bit = self.world.bits.get(node_id)
        if bit is None:
            return 0
        peers = self._peers.get(bit)
        if peers is None:
            peers = self._peers[bit] = self._find_peers(node_id)
        return peers

    def _find_peers(self, node_id: int) -> int:
        bit = self.world.bit(node_id)
        if not bit:
            return 0
        part = self._memberships.of(self.world.bits[node_id])
        peers = self._reached_by.get(part)
        if peers is None:
            peers = self._reached_by[part] = self._others(part, own=False)
        if self._has_own:
            owned = self.world.by_user.get(self.world.nodes[node_id].user_id, 0)
            peers |= self._others(part, own=True) & owned
        return peers & ~bit

    def _others(self, part: Part, *, own: bool) -> int:
        """The other ends of the rules in which nodes of a part stand."""
        rules = self._rules
        reached = union(rules[number].receivers for number in part.sends if rules[number].plan.is_own == own)
        return reached | union(
            rules[number].senders for number in part.receives if rules[number].plan.is_own == own
        )

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
        """Equal, in this evaluation, for viewers that see the same peers (themselves aside) and routes.

        A number, as every push asks for that of every viewer; 0 for one that sees nobody.
        """
        bit = self.world.bits.get(node_id, -1)
        number = self._view_of.get(bit)
        if number is None:
            number = self._view_of[bit] = self._number_of_view(node_id)
        return number

    def _number_of_view(self, node_id: int) -> int:
        peers = self.peers_of(node_id)
        if not peers:
            return 0
        view = peers | self.world.bit(node_id), self._carriers.view_of(self.world.bits[node_id])
        return self._views.setdefault(view, len(self._views) + 1)

    # -- what a node is told

    def filter_of(self, node_id: int) -> list[FilterRule]:
        """The packet filter of a node as on the wire, reduced to its addresses and routes."""
        bit = self.world.bits.get(node_id)
        if bit is None:
            return []
        made = self._filters.get(bit)
        if made is None:
            rules = (self._rules[number] for number in self._memberships.of(bit).receives)
            made = [one for rule in rules for one in filter_rules(rule, bit, self.world)]
            self._filters[bit] = made
        return made

    def filter_json(self, node_id: int) -> bytes:
        """:meth:`filter_of` as JSON; the lists of sources, which many filters share, are written once."""
        return orjson.dumps(
            [rule | {"SrcIPs": self._written(rule["SrcIPs"])} for rule in self.filter_of(node_id)]
        )

    def _written(self, sources: list[str]) -> orjson.Fragment:
        found = self._sources_json.get(id(sources))
        if found is None:  # the list is kept with it: its id stays its own
            found = self._sources_json[id(sources)] = sources, orjson.Fragment(orjson.dumps(sources))
        return found[1]

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

    @property
    def without_ipv4(self) -> frozenset[int]:
        """The nodes whose IPv4 address maps are to leave out."""
        return self._capabilities.without_ipv4

    # -- who may do what

    def may_own(self, tag: str, *, user_id: int = 0, tags: Iterable[str] = ()) -> bool:
        """Whether this person, or a node or key with these tags, may give ``tag`` to a node."""
        subject = approvers.subject_of(self.world.users.get(user_id), tags)
        return approvers.may_own(self.policy, tag, subject)

    def approves(self, node: NodeSnapshot, prefix: str) -> bool:
        """Whether ``autoApprovers`` lets this node serve this prefix without anybody's approval."""
        return approvers.approves(self.policy, node, prefix, self.world.users)
