"""Which routers serve which prefixes to which viewers: by rules, by ``via``, and by the election. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from controlplane.netmap.policy.compiled import Compiled, union
from controlplane.netmap.policy.plans import Plan
from controlplane.netmap.policy.ranges import parse_prefix
from controlplane.netmap.policy.world import World, bit_numbers, is_exit, subnets_of
from controlplane.netmap.ranking import rank
from controlplane.netmap.snapshot import EXIT_ROUTES, NodeSnapshot, Standing
from controlplane.netmap.visibility import is_offered

MAX_KNOWN_PREFIXES = 20_000
Viewers = tuple[tuple[str, int], ...]  # prefixes of a router, each with the mask of who is to use it


class Coverage:
    """Which rules concern a prefix, by number: the same in every world of a policy."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        numbered = [(number, plan) for number, plan in enumerate(plans) if not (plan.is_back or plan.is_own)]
        self._plans = numbered
        self._known: dict[str, tuple[list[int], list[int]]] = {}
        self.internet = [number for number, plan in numbered if plan.reaches_internet]

    def of(self, prefix: str) -> tuple[list[int], list[int]]:
        """The rules that reach a subnet, and those that let packets from it in."""
        found = self._known.get(prefix)
        if found is None:
            if len(self._known) >= MAX_KNOWN_PREFIXES:
                self._known.clear()
            span = parse_prefix(prefix)
            found = self._known[prefix] = (
                [number for number, plan in self._plans if plan.target_overlaps(span.first, span.last)],
                [number for number, plan in self._plans if plan.source_overlaps(span.first, span.last)],
            )
        return found


class Carriers:
    """The viewers of every router's prefixes in one world, made when first asked for."""

    def __init__(
        self,
        world: World,
        rules: Sequence[Compiled],
        coverage: Coverage,
        peers_of: Callable[[int], int],
    ) -> None:
        self._world = world
        self._peers_of = peers_of  # of a node's id
        self._rules = rules
        self._coverage = coverage
        self._viewers: dict[int, Viewers] = {}
        self._elected: dict[tuple[str, tuple[str, ...]], int] = {}
        self._masks: list[bytes] | None = None
        self._reached: dict[str, tuple[list[Compiled], int]] = {}
        self._sharing: dict[str, int] = {}
        self._leaving: tuple[int, list[Compiled]] | None = None
        self._offers: dict[str, list[tuple[int, NodeSnapshot]]] | None = None

    def viewers_of(self, bit: int) -> Viewers:
        """The prefixes of the node with this bit, and who is to use each."""
        found = self._viewers.get(bit)
        if found is None:
            node = self._world.slots[bit]
            found = self._viewers[bit] = () if node is None or not node.routes else self._make(node, bit)
        return found

    def view_of(self, bit: int) -> tuple[int, ...]:
        """A name, good in this world, for the routes that the node with this bit is to use, all in all.

        Routers' prefixes with the same viewers count as one; whether a router views its own does not matter.
        """
        if self._masks is None:
            self._masks = self._viewing()
        at, one = bit >> 3, 1 << (bit & 7)
        return tuple(number for number, mask in enumerate(self._masks) if mask[at] & one)

    def _viewing(self) -> list[bytes]:
        """The masks of viewers that differ, as bytes: of a long int, one bit costs as much as all."""
        bits = sorted({*self._world.routers, *bit_numbers(self._world.exits)})
        masks = {mask | (1 << bit): None for bit in bits for _, mask in self.viewers_of(bit)}
        length = len(self._world.slots) // 8 + 1
        return [mask.to_bytes(length, "little") for mask in masks]

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
        if self._leaving is None:
            rules = [self._rules[number] for number in self._coverage.internet]
            exits = self._world.exits
            some = [rule for rule in rules if rule.receivers & exits != exits]
            self._leaving = union(rule.senders for rule in rules if rule.receivers & exits == exits), some
        by_all, some = self._leaving
        return by_all | union(rule.senders for rule in some if rule.receivers >> bit & 1)

    def _reaching(self, prefix: str) -> tuple[list[Compiled], int]:
        """The rules that steer to a subnet by ``via``, and who else reaches it or is reached from it."""
        found = self._reached.get(prefix)
        if found is None:
            to, back = self._coverage.of(prefix)
            rules = [self._rules[number] for number in to]
            general = union(rule.senders for rule in rules if not rule.plan.via)
            general |= union(self._rules[number].receivers for number in back)
            found = self._reached[prefix] = [rule for rule in rules if rule.plan.via], general
        return found

    def _of_subnet(self, prefix: str, node: NodeSnapshot, bit: int) -> int:
        """Who is to send what goes to a subnet to this router.

        Those that may reach it, or that it may reach, and the other routers of the same subnet. ``via`` comes
        before the election: its viewers use what is elected among the routers that it names.
        """
        steering, general = self._reaching(prefix)
        steered = chosen = 0
        for rule in steering:
            mine = self._elect(prefix, rule.plan.via) == bit
            chosen |= rule.senders & ~steered if mine else 0
            steered |= rule.senders
        if prefix not in node.primary_routes:
            return chosen
        general |= self._sharers(prefix) & self._peers_of(node.id)
        return chosen | (general & ~steered)

    def _offering(self, prefix: str) -> Sequence[tuple[int, NodeSnapshot]]:
        """The routers that are approved for a subnet, with the numbers of their bits."""
        if self._offers is None:
            offers: dict[str, list[tuple[int, NodeSnapshot]]] = {}
            for bit in self._world.routers:
                if (node := self._world.slots[bit]) is not None:
                    for one in subnets_of(node):
                        offers.setdefault(one, []).append((bit, node))
            self._offers = offers  # whole, since pages of one tailnet are made in several threads
        return self._offers.get(prefix, ())

    def _sharers(self, prefix: str) -> int:
        found = self._sharing.get(prefix)
        if found is None:
            found = self._sharing[prefix] = union(1 << bit for bit, _ in self._offering(prefix))
        return found

    def _elect(self, prefix: str, via: tuple[str, ...]) -> int:
        """The router (as a number of a bit, -1 = none) of a subnet for those whom ``via`` sends there."""
        key = (prefix, via)
        if key not in self._elected:
            named = union(self._world.of_tag(tag) for tag in via)
            ranked = [
                (rank(node, prefix), bit)
                for bit, node in self._offering(prefix)
                if named >> bit & 1 and node.standing is Standing.ACTIVE and is_offered(node)
            ]
            self._elected[key] = min(ranked)[1] if ranked else -1
        return self._elected[key]
