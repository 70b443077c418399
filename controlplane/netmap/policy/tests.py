"""The section ``tests``, run against the rules themselves: nobody needs to have a device for it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from controlplane.netmap.policy.errors import quoted
from controlplane.netmap.policy.model import AccessTest, Rule, Service
from controlplane.netmap.policy.parse_rules import is_self
from controlplane.netmap.policy.parse_selectors import parse_addresses
from controlplane.netmap.policy.ports import PortError, parse_protocol, parse_range
from controlplane.netmap.policy.postures import meets
from controlplane.netmap.policy.ranges import IPSet, span_text
from controlplane.netmap.policy.selectors import MEMBER, ROLE_AUTOGROUPS, SELF, TAGGED
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

_Bench = Bench[Rule]
TCP, UDP = 6, 17
UNSAID_PROTOCOLS = (TCP, UDP)  # what a test is about that names none
DEFAULT_PROTOCOLS = (TCP, UDP, 1, 58)  # what a rule is about that names none


def run_tests(world: World) -> list[TestFailure]:
    """The failing entries of ``tests``; none when all hold."""
    bench = _Bench(world, world.policy.rules)
    return bench.failures(world.policy.tests, lambda test: _errors(test, bench))


@dataclass(frozen=True, slots=True)
class _Question:
    """What the addresses of one test are asked about."""

    sources: list[Subject]
    protocols: tuple[int, ...]
    attributes: Mapping[str, Any]


def _errors(test: AccessTest, bench: _Bench) -> Iterator[str]:
    try:
        protocols = parse_protocol(test.protocol) or UNSAID_PROTOCOLS
        question = _Question(_sources(test.source, bench.world), protocols, test.posture_attributes)
    except ValueError as error:
        yield str(error)
        return
    if not test.accept and not test.deny:
        yield "accept or deny must be specified"
    for wanted, addresses in (("Accept", test.accept), ("Drop", test.deny)):
        for address in addresses:
            yield from _wrong(wanted, address, question, bench)


def _wrong(wanted: str, address: str, question: _Question, bench: _Bench) -> Iterator[str]:
    """What is wrong with one address of a test: everybody must get there, or nobody."""
    try:
        name, port = _split(address)
        targets = _targets(name, question.sources, bench.world)
        let_in = [_lets_in(question, pair, port, bench) for pair in _pairs(name, question.sources, targets)]
    except ValueError as error:
        yield f"address {quoted(address)}: {error}"
        return
    if wanted == "Accept" and not (let_in and all(let_in)):
        yield f"address {quoted(address)}: want: Accept, got: Drop"
    if wanted == "Drop" and any(let_in):
        yield f"address {quoted(address)}: want: Drop, got: Accept"


def _pairs(
    name: str, sources: Iterable[Subject], targets: Iterable[Subject]
) -> Iterator[tuple[Subject, Subject]]:
    if name == SELF:
        return ((source, source) for source in sources)
    return ((source, target) for source in sources for target in targets)


def _split(address: str) -> tuple[str, int]:
    """An address and its one port."""
    name, colon, port = address.rpartition(":")
    if not colon:
        raise ValueError("a port must be specified")
    first, last = parse_range(port)
    if first != last:
        raise PortError(f"port range {quoted(port)}: a test needs one port")
    return name, first


def _sources(text: str, world: World) -> list[Subject]:
    if not text:
        raise ValueError("src must be specified")
    if text in (SELF, "*"):
        raise ValueError(f"src {quoted(text)} is nobody in particular")
    return _subjects(text, world)


def _targets(text: str, sources: list[Subject], world: World) -> list[Subject]:
    if text != SELF:
        return _subjects(text, world)
    if any(source.tags or not source.login for source in sources):
        raise ValueError("autogroup:self is for people in src only")
    return sources


def _subjects(text: str, world: World) -> list[Subject]:
    """Those that a name in a test stands for; ``ValueError`` when for nobody, or for a whole network."""
    policy = world.policy
    if text.startswith("tag:"):
        if text not in policy.tag_owners:
            raise ValueError(f"tag not found: {quoted(text)}")
        return [of_tags((text,))]
    if text.startswith("group:"):
        if text not in policy.groups and all(text not in user.groups for user in world.users.values()):
            raise ValueError(f"group not found: {quoted(text)}")
        return of_group(text, policy, world.users)
    if text.startswith("autogroup:"):
        return _of_autogroup(text, world)
    if "@" in text:
        return [of_login(text, world.users.values())]
    return [_at(_one_address(text, policy.hosts), world)]


def _of_autogroup(name: str, world: World) -> list[Subject]:
    if name == TAGGED:
        return [of_tags((tag,)) for tag in world.policy.tag_owners]
    if name != MEMBER and name not in ROLE_AUTOGROUPS:
        raise ValueError(f"{quoted(name)} cannot be tested")
    roles = ROLE_AUTOGROUPS.get(name)
    users = world.users.values()
    return [Subject(user.login_name, user) for user in users if roles is None or user.role in roles]


def _one_address(text: str, hosts: Mapping[str, IPSet]) -> str:
    host = hosts.get(text)
    try:
        spans = parse_addresses(text).spans if host is None else host.spans
    except ValueError:
        raise ValueError(f"host not found: {quoted(text)}") from None
    if (host is None and "/" in text) or len(spans) != 1 or spans[0][0] != spans[0][1]:
        raise ValueError(f"{quoted(text)} is not one address")
    return span_text(*spans[0])


def _at(address: str, world: World) -> Subject:
    """The node at an address, or the bare address. Only that address of the node counts."""
    for node_id in world.ids(world.with_address_in(parse_addresses(address))):
        node = of_node(world.nodes[node_id], world.users)
        return Subject(node.login, node.user, node.tags, (address,))
    return Subject(addresses=(address,))


def _lets_in(question: _Question, pair: tuple[Subject, Subject], port: int, bench: _Bench) -> bool:
    """Whether a source may reach a port of a target by one of the protocols."""
    source, target = pair
    rules = bench.rules_of(source)
    bench.steps.spend(1 + len(rules))
    return any(
        any(_serves(service, question.protocols, port) for service in entry.services)
        and (
            _is_own(source, target)
            if is_self(entry.selector)
            else is_named(target, entry.selector, bench.policy)
        )
        for rule in rules
        if meets(bench.policy, rule.postures, question.attributes)
        for entry in rule.targets
    )


def _serves(service: Service, protocols: Iterable[int], port: int) -> bool:
    allowed = service.protocols or DEFAULT_PROTOCOLS
    return any(one in allowed for one in protocols) and any(
        first <= port <= last for first, last in service.ports
    )


def _is_own(source: Subject, target: Subject) -> bool:
    """Whether both are devices of one person."""
    if source.tags or target.tags or not source.login:
        return False
    return same_login(source.login, target.login)
