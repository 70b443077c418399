"""The section ``sshTests``, run against the rules themselves: nobody needs to have a device for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.netmap.policy.model import Policy, SSHRule, SSHTest
from controlplane.netmap.policy.parse_ssh import ACCEPT, CHECK
from controlplane.netmap.policy.postures import meets
from controlplane.netmap.policy.ranges import IPSet, number, parse_prefix
from controlplane.netmap.policy.selectors import SELF, Selector
from controlplane.netmap.policy.ssh import in_order, local_users, localpart_of, names_people
from controlplane.netmap.policy.subjects import (
    Subject,
    is_named,
    of_group,
    of_login,
    of_node,
    of_tags,
    same_login,
)
from controlplane.netmap.policy.testbench import Bench, TestFailure
from controlplane.netmap.policy.world import World

DENY = "deny"


def run_ssh_tests(world: World) -> list[TestFailure]:
    """The failing entries of ``sshTests``; none when all hold."""
    bench = _Bench(world)
    return bench.failures(world.policy.ssh_tests, lambda test: _errors(test, bench), is_ssh=True)


class _Bench(Bench[SSHRule]):
    def __init__(self, world: World) -> None:
        super().__init__(world, in_order(world.policy.ssh))
        self._to = {id(rule): self.weight(rule.targets) for rule in self.rules}

    def look_at(self, rule: SSHRule) -> None:
        """Count that a rule is held against one target."""
        self.steps.spend(1 + self._to[id(rule)])


@dataclass(frozen=True, slots=True)
class _Question:
    """What each user of one test is asked about; ``targets`` by their texts."""

    sources: list[Subject]
    targets: Mapping[str, list[Subject]]
    attributes: Mapping[str, Any]


def _errors(test: SSHTest, bench: _Bench) -> Iterator[str]:
    try:
        sources = _subjects(test.source, bench.world)
        targets = {target: _targets(target, bench.world) for target in test.targets}
        question = _Question(sources, targets, test.posture_attributes)
        for wanted, users in ((ACCEPT, test.accept), (CHECK, test.check), (DENY, test.deny)):
            for user in users:
                if user:
                    yield from _of_user(wanted, user, question, bench)
                else:
                    yield f'user "" is not valid in {wanted}'
    except ValueError as error:
        yield str(error)


def _of_user(wanted: str, user: str, question: _Question, bench: _Bench) -> Iterator[str]:
    for text, there in question.targets.items():
        outcomes = {
            _outcome(user, source, target, question.attributes, bench)
            for source in question.sources
            for target in there
        }
        yield from _wrong(wanted, user, text, outcomes)


def _wrong(wanted: str, user: str, target: str, outcomes: Iterable[str]) -> Iterator[str]:
    found = {outcome for outcome in outcomes if outcome != wanted}
    for outcome in sorted(found):
        yield f'as "{user}" on "{target}": want: {wanted}, got: {outcome}'


def _outcome(
    user: str, source: Subject, target: Subject, attributes: Mapping[str, Any], bench: _Bench
) -> str:
    """What the first rule does that lets this source in there as that user."""
    bench.steps.spend(1)
    for rule in bench.rules_of(source):
        bench.look_at(rule)
        if (
            meets(bench.policy, rule.postures, attributes)
            and _reaches(rule, source, target, bench.policy)
            and _may_be(user, source, rule)
        ):
            return rule.action
    return DENY


def _reaches(rule: SSHRule, source: Subject, target: Subject, policy: Policy) -> bool:
    if any(_is_target(selector, source, target, policy) for selector in rule.targets):
        return True
    return names_people(rule.users) and _is_own(source, target)


def _is_target(selector: Selector, source: Subject, target: Subject, policy: Policy) -> bool:
    if selector.text == SELF:
        return _is_own(source, target)
    return is_named(target, selector, policy)


def _is_own(source: Subject, target: Subject) -> bool:
    return bool(source.login) and same_login(source.login, target.login) and not target.tags


def _may_be(user: str, source: Subject, rule: SSHRule) -> bool:
    users = local_users(rule.users)
    if users.get(user, users.get("*", "")):
        return True
    return not source.tags and localpart_of(source.login, rule.users) == user


def _targets(text: str, world: World) -> list[Subject]:
    """What a destination stands for. IPv6 addresses are refused as Tailscale does it; a host may have one."""
    if ":" in text and _is_address(text):
        raise ValueError(f'dst "{text}": an IPv6 address cannot be tested: give it a name in hosts')
    return _subjects(text, world)


def _subjects(text: str, world: World) -> list[Subject]:
    """The people, tagged devices or addresses that a test names. ``ValueError`` when it names nothing."""
    if not text:
        raise ValueError("src must be specified")
    if text.startswith("tag:"):
        return [of_tags([text])]
    if text.startswith("group:"):
        return _people(text, world)
    if text in world.policy.hosts:
        return _at(world.policy.hosts[text], text, world)
    if _is_address(text):
        prefix = parse_prefix(text)
        return _at(IPSet.of_prefixes([prefix]), text, world)
    if "@" in text:
        return [of_login(text, world.users.values())]
    raise ValueError(f'"{text}" is no user, group, tag or host')


def _people(group: str, world: World) -> list[Subject]:
    people = of_group(group, world.policy, world.users)
    if not people and group not in world.policy.groups:
        raise ValueError(f'group not found: "{group}"')
    return people


def _at(addresses: IPSet, text: str, world: World) -> list[Subject]:
    """The devices that have an address; none has it: nobody in particular."""
    if len(addresses.spans) != 1 or addresses.spans[0][0] != addresses.spans[0][1]:
        raise ValueError(f'"{text}" is a network: name a host with one address')
    nodes = world.ids(world.with_address_in(addresses))
    return [of_node(world.nodes[node_id], world.users) for node_id in nodes] or [Subject()]


def _is_address(text: str) -> bool:
    try:
        return number(text) >= 0
    except ValueError:
        return False
