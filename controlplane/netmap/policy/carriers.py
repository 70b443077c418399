"""Which routers serve which prefixes to which viewers: by rules, by ``via``, and by the election. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from controlplane.netmap.policy.compiled import Compiled, union
from controlplane.netmap.policy.ranges import parse_prefix
from controlplane.netmap.policy.world import World, is_exit, subnets_of
from controlplane.netmap.ranking import rank
from controlplane.netmap.snapshot import EXIT_ROUTES, NodeSnapshot, Standing

Viewers = tuple[tuple[str, int], ...]  # prefixes of a router, each with the mask of who is to use it


class Carriers:
    """The viewers of every router's prefixes in one world, made when first asked for."""

    def __init__(self, world: World, rules: Sequence[Compiled]) -> None:
        self._world = world
        self._rules = [rule for rule in rules if not rule.plan.is_back and not rule.plan.is_own]
        self._viewers: dict[int, Viewers] = {}
        self._covering: dict[str, tuple[list[Compiled], list[Compiled]]] = {}
        self._elected: dict[tuple[str, tuple[str, ...]], int] = {}

    def viewers_of(self, bit: int) -> Viewers:
        """The prefixes of the node with this bit, and who is to use each."""
        found = self._viewers.get(bit)
        if found is None:
            node = self._world.slots[bit]
            found = self._viewers[bit] = () if node is None or not node.routes else self._make(node, bit)
        return found

    def _make(self, node: NodeSnapshot, bit: int) -> Viewers:
        subnets = [(prefix, self._of_subnet(prefix, node, bit)) for prefix in subnets_of(node)]
        exits: list[tuple[str, int]] = []
        if is_exit(node):
            mask = self._of_exit(bit)
            exits = [(route, mask) for route in EXIT_ROUTES]
        others = ~(1 << bit)
        return tuple((prefix, mask & others) for prefix, mask in (*subnets, *exits) if mask & others)

    def _of_exit(self, bit: int) -> int:
        """Who may leave for the internet by this exit node."""
        return union(
            rule.senders for rule in self._rules if rule.plan.reaches_internet and rule.receivers >> bit & 1
        )

    def _of_subnet(self, prefix: str, node: NodeSnapshot, bit: int) -> int:
        """Who is to send what goes to a subnet to this router.

        Those that may reach it, or that it may reach, and the other routers of the same subnet. ``via`` comes
        before the election: its viewers use what is elected among the routers that it names.
        """
        to, back = self._rules_of(prefix)
        steered = chosen = general = 0
        for rule in to:
            if rule.plan.via:
                mine = self._elect(prefix, rule.plan.via) == bit
                chosen |= rule.senders & ~steered if mine else 0
                steered |= rule.senders
            else:
                general |= rule.senders
        if prefix not in node.primary_routes:
            return chosen
        general |= union(rule.receivers for rule in back) | self._sharers(prefix)
        return chosen | (general & ~steered)

    def _rules_of(self, prefix: str) -> tuple[list[Compiled], list[Compiled]]:
        """The rules that reach a subnet, and those that let it in."""
        found = self._covering.get(prefix)
        if found is None:
            span = parse_prefix(prefix)
            found = self._covering[prefix] = (
                [rule for rule in self._rules if rule.plan.target_overlaps(span.first, span.last)],
                [rule for rule in self._rules if rule.plan.source_overlaps(span.first, span.last)],
            )
        return found

    def _offering(self, prefix: str) -> Iterable[tuple[int, NodeSnapshot]]:
        for bit in self._world.routers:
            node = self._world.slots[bit]
            if node is not None and prefix in node.routes:
                yield bit, node

    def _sharers(self, prefix: str) -> int:
        return union(1 << bit for bit, _ in self._offering(prefix))

    def _elect(self, prefix: str, via: tuple[str, ...]) -> int:
        """The router (as a number of a bit, -1 = none) of a subnet for those whom ``via`` sends there."""
        key = (prefix, via)
        if key not in self._elected:
            named = union(self._world.of_tag(tag) for tag in via)
            ranked = [
                (rank(node, prefix), bit)
                for bit, node in self._offering(prefix)
                if named >> bit & 1 and node.standing is Standing.ACTIVE
            ]
            self._elected[key] = min(ranked)[1] if ranked else -1
        return self._elected[key]
