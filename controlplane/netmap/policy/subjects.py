"""Somebody or something that a rule may name, whether or not it has a device yet. Pure.

Masks answer for the devices that are there; tests and registrations ask about those that could be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from controlplane.netmap.policy.model import Policy
from controlplane.netmap.policy.ranges import number
from controlplane.netmap.policy.selectors import (
    MEMBER,
    ROLE_AUTOGROUPS,
    TAGGED,
    Addresses,
    Anything,
    Autogroup,
    Domain,
    Group,
    Selector,
    Tag,
    User,
)
from controlplane.netmap.snapshot import NodeSnapshot, UserSnapshot


@dataclass(frozen=True, slots=True)
class Subject:
    """A person (``login``, and ``user`` if the tailnet knows them), a tagged device, or a bare address."""

    login: str = ""
    user: UserSnapshot | None = None
    tags: frozenset[str] = frozenset()
    addresses: tuple[str, ...] = ()


def of_login(login: str, users: Iterable[UserSnapshot]) -> Subject:
    return Subject(login, next((user for user in users if same_login(user.login_name, login)), None))


def of_tags(tags: Iterable[str]) -> Subject:
    return Subject(tags=frozenset(tags))


def of_node(node: NodeSnapshot, users: Mapping[int, UserSnapshot]) -> Subject:
    addresses = (node.ipv4, node.ipv6)
    user = None if node.tags else users.get(node.user_id)
    return Subject(user.login_name if user else "", user, frozenset(node.tags), addresses)


def of_group(group: str, policy: Policy, users: Mapping[int, UserSnapshot]) -> list[Subject]:
    """A subject for each person of a group."""
    known = {user.login_name.lower(): user for user in users.values()}
    logins = list(policy.groups.get(group, ()))
    logins += [user.login_name for user in known.values() if group in user.groups]
    return [Subject(login, known.get(login.lower())) for login in dict.fromkeys(logins)]


def is_named(subject: Subject, selector: Selector, policy: Policy) -> bool:
    """Whether a selector means this subject."""
    if isinstance(selector, Anything):
        return True
    if isinstance(selector, Addresses):
        return any(address and selector.spans.contains(number(address)) for address in subject.addresses)
    if isinstance(selector, Tag):
        return selector.text in subject.tags
    if isinstance(selector, Autogroup) and selector.text == TAGGED:
        return bool(subject.tags)
    return bool(subject.login) and not subject.tags and _is_person(subject, selector, policy)


def _is_person(subject: Subject, selector: Selector, policy: Policy) -> bool:
    if isinstance(selector, User):
        return same_login(selector.text, subject.login)
    if isinstance(selector, Domain):
        return domain_of(subject.login) == selector.domain
    if isinstance(selector, Group):
        members = policy.groups.get(selector.text, ())
        return any(same_login(member, subject.login) for member in members) or (
            subject.user is not None and selector.text in subject.user.groups
        )
    if not isinstance(selector, Autogroup) or subject.user is None:
        return False
    return selector.text == MEMBER or subject.user.role in ROLE_AUTOGROUPS.get(selector.text, ())


def same_login(one: str, other: str) -> bool:
    """As worlds find people: case-folding would take ``ß`` and ``ss`` for the same letters."""
    return one.lower() == other.lower()


def domain_of(login: str) -> str:
    return login.rpartition("@")[2].lower() if "@" in login else ""
