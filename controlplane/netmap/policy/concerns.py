"""Which rules of a policy concern a node, and what its rules let nodes reach. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from controlplane.netmap.policy.evaluate import Evaluation
from controlplane.netmap.policy.model import Rule, SSHRule, Target
from controlplane.netmap.policy.parse_rules import is_self
from controlplane.netmap.policy.postures import asks, meeting
from controlplane.netmap.policy.selectors import Addresses, Selector
from controlplane.netmap.policy.world import World


@dataclass(frozen=True, slots=True)
class Concerns:
    """Where the rules stand that let a node reach others, and those that let others reach it."""

    outwards: tuple[int, ...]
    inwards: tuple[int, ...]


def concerns_of(evaluation: Evaluation, node_id: int) -> Concerns:
    """The rules of ``acls``, ``grants`` and ``ssh`` that a node is a source or a target of."""
    world, policy = evaluation.world, evaluation.policy
    rules: list[Rule | SSHRule] = [*policy.rules, *policy.ssh]
    sent = [(rule, senders_of(rule, world)) for rule in rules]
    bit = world.bit(node_id)
    return Concerns(
        outwards=tuple(rule.offset for rule, senders in sent if senders & bit),
        inwards=tuple(rule.offset for rule, senders in sent if _reaches(rule, senders, node_id, world)),
    )


def senders_of(rule: Rule | SSHRule, world: World) -> int:
    """The nodes that are sources of a rule and meet what it asks of them."""
    mask = 0
    for selector in rule.sources:
        mask |= selector.mask(world)
    return mask & meeting(world, rule.postures) if asks(world.policy, rule.postures) else mask


def _reaches(rule: Rule | SSHRule, senders: int, node_id: int, world: World) -> bool:
    targets: Iterable[Selector] = (
        (target.selector for target in rule.targets) if isinstance(rule, Rule) else rule.targets
    )
    return any(_meant(selector, senders, node_id, world) for selector in targets)


def _meant(selector: Selector, senders: int, node_id: int, world: World) -> bool:
    """Whether a target of these senders is this node, or lies behind it."""
    bit = world.bit(node_id)
    if is_self(selector):
        owned = world.by_user.get(world.nodes[node_id].user_id, 0) & ~world.tagged
        return bool(bit & owned and senders & owned)
    return bool(selector.mask(world) & bit)


@dataclass(frozen=True, slots=True)
class _Lane:
    """A rule that opens ports: its sources, and the nodes that it means; ``None`` = their owners' own."""

    senders: int
    receivers: int | None


class Reach:
    """To which nodes, not what they route, nodes may open connections by the rules."""

    def __init__(self, evaluation: Evaluation) -> None:
        self.world = evaluation.world
        self._lanes = [lane for rule in evaluation.policy.rules for lane in _lanes(rule, self.world)]

    def of(self, nodes: int) -> int:
        """The nodes that at least one of these reaches; masks of ``world``."""
        reached = 0
        for lane in self._lanes:
            if sending := lane.senders & nodes:
                own = lane.receivers is None
                reached |= self.world.owned_with(sending) if own else lane.receivers or 0
        return reached

    def reaching(self, node_id: int) -> int:
        """The nodes that reach this one."""
        bit, reaching = self.world.bit(node_id), 0
        owned = self.world.by_user.get(self.world.nodes[node_id].user_id, 0)
        for lane in self._lanes:
            if lane.receivers is None:
                reaching |= lane.senders & owned if bit & owned else 0
            elif lane.receivers & bit:
                reaching |= lane.senders
        return reaching & ~bit


def _lanes(rule: Rule, world: World) -> Iterator[_Lane]:
    senders = senders_of(rule, world)
    carriers = 0
    for tag in rule.via:
        carriers |= world.of_tag(tag)
    for target in rule.targets:
        if not target.services:
            continue
        if is_self(target.selector):
            yield _Lane(senders & ~world.tagged, None)
        else:
            yield _Lane(senders, _meant_itself(target.selector, carriers, world, is_via=bool(rule.via)))


def _meant_itself(selector: Selector, carriers: int, world: World, *, is_via: bool) -> int:
    """The nodes whose own addresses a target means; ``via`` leaves those that carry it for others."""
    if not isinstance(selector, Addresses):
        return selector.mask(world) & carriers if is_via else selector.mask(world)
    reached = world.with_address_in(selector.spans)
    if is_via:
        reached &= carriers & (
            world.with_subnet_in(selector.spans) | (world.exits if selector.internet else 0)
        )
    return reached


def targets_between(evaluation: Evaluation, senders: int, node_id: int) -> list[Target]:
    """The targets of rules by which at least one of these nodes reaches this one, or what lies behind it."""
    world = evaluation.world
    return [
        target
        for rule in evaluation.policy.rules
        if senders_of(rule, world) & senders
        for target in rule.targets
        if target.services and _meant(target.selector, senders_of(rule, world) & senders, node_id, world)
    ]
