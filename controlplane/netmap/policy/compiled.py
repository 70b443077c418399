"""Rules in a world: who may send, whom it reaches, and what the filter of a reached node says of it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controlplane.netmap.policy.model import Target
from controlplane.netmap.policy.plans import Plan
from controlplane.netmap.policy.postures import asks, meeting
from controlplane.netmap.policy.ranges import IPSet, Span, span_text
from controlplane.netmap.policy.selectors import DANGER_ALL, MEMBER, Addresses, Anything, Selector
from controlplane.netmap.policy.world import World, own_spans
from controlplane.netmap.snapshot import NodeSnapshot

FilterRule = dict[str, Any]


class Compiled:
    """A plan in one world, or in several in which it is the same: who may send, and whom each target reaches.

    For a plan of own devices these are all that do so to or from anybody; a pair needs one owner.
    """

    __slots__ = ("_texts", "plan", "reaches", "receivers", "senders")

    def __init__(self, plan: Plan, senders: int, reaches: tuple[int, ...]) -> None:
        self.plan = plan
        self.senders = senders
        self.reaches = reaches
        self.receivers = union(reaches)  # the nodes that get a part of it in their filters
        self._texts: list[str] | None = None

    def source_texts(self, world: World) -> list[str]:
        """The addresses that packets of the senders bear: one list, shared by the filters of all nodes."""
        if self._texts is None:
            self._texts = self._source_spans(world).texts()
        return self._texts

    def _source_spans(self, world: World) -> IPSet:
        plan = self.plan
        if self._sends_by_node(world):
            return world.addresses_of(self.senders)
        if plan.is_back:
            return addresses_of((target.selector for target in plan.targets), world)
        return addresses_of(plan.sources, world)

    def _sends_by_node(self, world: World) -> bool:
        """Whether the senders are nodes by themselves, and not all that the file names."""
        return bool(self.plan.via) if self.plan.is_back else asks(world.policy, self.plan.postures)

    def sources_for(self, node: NodeSnapshot, world: World) -> list[str]:
        """Who may send to a node, in the wire's words."""
        if not self.plan.is_own:
            return self.source_texts(world)
        return world.addresses_of(self.senders & world.by_user.get(node.user_id, 0)).texts()

    def following(self, world: World, before: World, changed: int) -> Compiled:
        """The plan in the next world, where the nodes of a mask changed; itself if it is the same there."""
        concerned = (self.senders | self.receivers) & changed or any(
            selector.mask(world) & changed for selector in self.plan.selectors
        )
        if not concerned:
            return self
        new = compile_plan(self.plan, world)
        same_masks = self.senders == new.senders and self.reaches == new.reaches
        if self.plan.is_own:
            return self if same_masks and not (self.senders | self.receivers) & changed else new
        if self._same_sources(new, world, before, changed):
            if same_masks:
                return self
            new._texts = self._texts
        return new

    def _same_sources(self, new: Compiled, world: World, before: World, changed: int) -> bool:
        if self.plan.has_wildcard and not self._sends_by_node(world):
            return world.wildcard_sources == before.wildcard_sources  # nodes are within it anyhow
        return self.senders == new.senders and not new.senders & changed

    def shares_sources(self, other: Compiled) -> bool:
        """Whether filters say the same of both about who sends."""
        return self._texts is other._texts and self._texts is not None


def union(masks: Iterable[int]) -> int:
    result = 0
    for mask in masks:
        result |= mask
    return result


def addresses_of(selectors: Iterable[Selector], world: World) -> IPSet:
    """The addresses of all of them; nodes that several name are looked up once."""
    nodes, spans = 0, IPSet()
    for selector in selectors:
        if isinstance(selector, Addresses | Anything) or selector.text == DANGER_ALL:
            spans = spans | selector.addresses(world)
        else:
            nodes |= selector.mask(world)
    return spans | world.addresses_of(nodes) if nodes else spans


def compile_plan(plan: Plan, world: World) -> Compiled:
    """A plan in a world."""
    named = union(selector.mask(world) for selector in plan.sources)
    if plan.is_own:
        # Selectors mean all untagged nodes of a person or none: whether one is reached is its own matter.
        named &= world.of_autogroup(MEMBER)
        reaches: tuple[int, ...] = (named,)
    else:
        carriers = union(world.of_tag(tag) for tag in plan.via)
        reaches = tuple(_reach(target.selector, plan, carriers, world) for target in plan.targets)
    sources = named
    if asks(world.policy, plan.postures):
        sources &= world.memo(("meeting", plan.postures), lambda: meeting(world, plan.postures))
    if plan.is_back:
        return Compiled(plan, union(reaches), (sources,))
    return Compiled(plan, sources, reaches)


def _reach(selector: Selector, plan: Plan, carriers: int, world: World) -> int:
    """The nodes that get a target in their filters; ``via`` leaves those that carry it for others."""
    if not plan.via:
        return selector.mask(world)
    if isinstance(selector, Addresses):
        exits = world.exits if selector.internet else 0
        return (world.with_subnet_in(selector.spans) | exits) & carriers
    return selector.mask(world) & carriers


# -- the filter of one node


def filter_rules(compiled: Compiled, bit: int, world: World) -> list[FilterRule]:
    """What the filter of the node with this bit says of a rule; nothing if that does not reach it."""
    plan = compiled.plan
    node = world.slots[bit]
    if node is None or not compiled.receivers >> bit & 1:
        return []
    sources = compiled.sources_for(node, world)
    if not sources:
        return []
    rules = []
    if plan.is_back:
        return [_app_rule(sources, _own_prefixes(node), plan)]
    reached = [target for target, mask in zip(plan.targets, _masks(compiled), strict=True) if mask >> bit & 1]
    rules += _packet_rules(sources, reached, bit, world, node)
    if plan.app and (destinations := _app_destinations(reached, node)):
        rules.append(_app_rule(sources, destinations, plan))
    return rules


def _masks(compiled: Compiled) -> tuple[int, ...]:
    """The reach of each target: several of own devices have one in common."""
    return compiled.reaches * len(compiled.plan.targets) if compiled.plan.is_own else compiled.reaches


def _packet_rules(
    sources: list[str], targets: list[Target], bit: int, world: World, node: NodeSnapshot
) -> list[FilterRule]:
    """A rule for each choice of protocols."""
    ports: dict[tuple[int, ...], list[dict[str, Any]]] = {}
    for target in targets:
        addresses = _destinations(target.selector, bit, world, node)
        for service in target.services:
            ports.setdefault(service.protocols, []).extend(
                {"IP": address, "Ports": {"First": first, "Last": last}}
                for address in addresses
                for first, last in service.ports
            )
    return [
        {"SrcIPs": sources, "DstPorts": destinations} | ({"IPProto": list(protocols)} if protocols else {})
        for protocols, destinations in ports.items()
        if destinations
    ]


def _destinations(selector: Selector, bit: int, world: World, node: NodeSnapshot) -> list[str]:
    """A target as the node's filter is to have it: the addresses of the file, or the node's own."""
    if isinstance(selector, Anything):
        return ["*"]
    if not isinstance(selector, Addresses):
        return [node.ipv4, node.ipv6]
    if selector.internet and world.exits >> bit & 1:
        return selector.spans.texts()
    subnets = world.routers.get(bit, IPSet())
    return [
        span_text(first, last)
        for first, last in selector.spans.spans
        if subnets.overlaps(first, last) or _holds(world.own_spans(bit), first, last)
    ]


def _holds(addresses: Iterable[Span], first: int, last: int) -> bool:
    return any(first <= address <= last for address, _ in addresses)


def _own_prefixes(node: NodeSnapshot) -> list[str]:
    return [f"{node.ipv4}/32", f"{node.ipv6}/128"]


def _app_destinations(targets: Iterable[Target], node: NodeSnapshot) -> list[str]:
    """The node's own addresses that the targets mean: applications run on nodes, not behind them."""
    meant: dict[str, None] = {}
    for target in targets:
        selector = target.selector
        for text, (address, _) in zip(_own_prefixes(node), own_spans(node), strict=True):
            if not isinstance(selector, Addresses) or selector.spans.contains(address):
                meant[text] = None
    return list(meant)


def _app_rule(sources: list[str], destinations: list[str], plan: Plan) -> FilterRule:
    return {"SrcIPs": sources, "CapGrant": [{"Dsts": destinations, "CapMap": dict(plan.app)}]}
