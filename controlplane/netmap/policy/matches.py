"""Which rules concern a person, or an address and port: for previews of a policy. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address

from controlplane.netmap.policy.errors import line_and_column
from controlplane.netmap.policy.model import ALL_PORTS, Policy, Rule, Service, Target
from controlplane.netmap.policy.ranges import number
from controlplane.netmap.policy.selectors import SELF, Selector
from controlplane.netmap.policy.subjects import Subject, is_named, of_login, of_node
from controlplane.netmap.policy.world import World

MAX_MATCHES = 1000


@dataclass(frozen=True, slots=True)
class Match:
    """A rule that concerns what was asked for: whom it lets where, in the words of the file.

    ``line`` is where the rule begins, from 1.
    """

    users: tuple[str, ...]
    ports: tuple[str, ...]
    postures: tuple[str, ...]
    line: int


def rules_of_person(world: World, login: str) -> list[Match]:
    """The rules by which a person reaches something, as from their devices without tags."""
    known = of_login(login, world.users.values())
    own = [node for node in world.nodes.values() if known.user and node.user_id == known.user.id]
    addresses = [address for node in own if not node.tags for address in (node.ipv4, node.ipv6)]
    subject = replace(known, addresses=tuple(addresses))
    found = (
        rule
        for rule in world.policy.rules
        if any(is_named(subject, source, world.policy) for source in rule.sources)
    )
    return _told(world.policy, ((rule, rule.targets) for rule in found))


def rules_of_place(world: World, address: str, port: int) -> list[Match]:
    """The rules by which somebody reaches this port there. Raises ``ValueError`` for what is no address."""
    subject = _at(world, address)

    def leads_there(target: Target) -> bool:
        if not any(first <= port <= last for one in target.services for first, last in one.ports):
            return False
        if target.selector.text == SELF:
            return bool(subject.login) and not subject.tags
        return is_named(subject, target.selector, world.policy)

    pairs = ((rule, tuple(filter(leads_there, rule.targets))) for rule in world.policy.rules)
    return _told(world.policy, ((rule, targets) for rule, targets in pairs if targets))


def _at(world: World, address: str) -> Subject:
    """What is at an address: a device, of which that address alone counts, or nothing known."""
    at = number(address)
    for node in world.nodes.values():
        if at in (number(node.ipv4), number(node.ipv6)):
            return replace(of_node(node, world.users), addresses=(address,))
    return Subject(addresses=(address,))


def read_place(text: str) -> tuple[str, int]:
    """``10.0.0.1:80`` or ``[fd7a::1]:80``; raises ``ValueError``."""
    host, _, port = text.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and 0 < int(port) <= ALL_PORTS[1]):
        raise ValueError("no port")
    return str(ip_address(bare)), int(port)


def _told(policy: Policy, found: Iterator[tuple[Rule, tuple[Target, ...]]]) -> list[Match]:
    matches: list[Match] = []
    for rule, targets in found:
        if len(matches) == MAX_MATCHES:
            break
        ports = tuple(_port_text(target.selector, one) for target in targets for one in target.services)
        users = tuple(selector.text for selector in rule.sources)
        if ports:
            matches.append(Match(users, ports, rule.postures, line_and_column(policy.text, rule.offset)[0]))
    return matches


def _port_text(selector: Selector, service: Service) -> str:
    """A target as an ``acls`` rule writes it."""
    ports = ",".join(
        "*" if one == ALL_PORTS else str(one[0]) if one[0] == one[1] else f"{one[0]}-{one[1]}"
        for one in service.ports
    )
    return f"{selector.text}:{ports}"
