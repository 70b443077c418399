"""The strings that select nodes and addresses, parsed for where they stand. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from controlplane.netmap.policy import selectors
from controlplane.netmap.policy.errors import PolicyError, quoted
from controlplane.netmap.policy.ranges import INTERNET_RANGES, IPSet, number, parse_prefix
from controlplane.netmap.policy.selectors import (
    Addresses,
    Anything,
    Autogroup,
    Domain,
    Group,
    Selector,
    Tag,
    User,
)

ALL_ADDRESSES = frozenset({"0.0.0.0/0", "::/0"})
SOURCE_AUTOGROUPS = frozenset({*selectors.PEOPLE_AUTOGROUPS, selectors.TAGGED, selectors.DANGER_ALL})
TARGET_AUTOGROUPS = frozenset({*selectors.PEOPLE_AUTOGROUPS, selectors.TAGGED, selectors.SELF})
AUTOGROUPS = SOURCE_AUTOGROUPS | TARGET_AUTOGROUPS | {selectors.INTERNET, selectors.NONROOT}


@dataclass(frozen=True, slots=True)
class Names:
    """What a file defines and its selectors may name. ``provider_groups``: ``None`` = any, unknown here."""

    tags: Collection[str] = ()
    groups: Collection[str] = ()
    hosts: Mapping[str, IPSet] = field(default_factory=dict)
    ipsets: Mapping[str, Addresses] = field(default_factory=dict)
    provider_groups: Collection[str] | None = None


def parse_source(text: str, names: Names, offset: int) -> Selector:
    """A ``src``."""
    if text.startswith("autogroup:"):
        name = autogroup(text, offset)
        if name not in SOURCE_AUTOGROUPS:
            raise PolicyError(f"{quoted(text)} not valid on the src side of a rule", offset)
        return Autogroup(name, offset)
    try:
        return parse_selector(text, names, offset)
    except PolicyError as error:
        error.message = f"src={error.message}"
        raise


def parse_target(text: str, names: Names, offset: int) -> Selector:
    """A ``dst`` without its ports."""
    if text in ALL_ADDRESSES:
        message = f'dst {quoted(text)}: to allow all IP addresses, use "*" or "autogroup:internet"'
        raise PolicyError(message, offset)
    if text.startswith("autogroup:"):
        return _target_autogroup(text, offset)
    try:
        return parse_selector(text, names, offset)
    except PolicyError as error:
        error.message = f"dst={quoted(text)}: {error.message}"
        raise


def _target_autogroup(text: str, offset: int) -> Selector:
    name = autogroup(text, offset)
    if name == selectors.DANGER_ALL:
        raise PolicyError("cannot use autogroup:danger-all as a dst", offset)
    if name == selectors.INTERNET:
        return Addresses(name, offset, INTERNET_RANGES, internet=True)
    if name not in TARGET_AUTOGROUPS:
        raise PolicyError(f"{quoted(text)} not valid on the dst side of a rule", offset)
    return Autogroup(name, offset)


def autogroup(text: str, offset: int) -> str:
    """The autogroup of a name; one that does not exist is refused."""
    name = selectors.AUTOGROUP_SPELLINGS.get(text, text)
    if name not in AUTOGROUPS:
        raise PolicyError(f"autogroup not found: {quoted(text)}", offset)
    return name


def parse_owner(text: str, names: Names, offset: int) -> Selector:
    """Somebody who may own a tag or advertise a route: a person, group, role, or tag."""
    if text.startswith("autogroup:"):
        name = autogroup(text, offset)
        if name not in SOURCE_AUTOGROUPS - {selectors.DANGER_ALL}:
            raise PolicyError(f"{quoted(text)} cannot be an owner", offset)
        return Autogroup(name, offset)
    selector = parse_selector(text, names, offset)
    if isinstance(selector, User | Domain | Group | Tag):
        return selector
    raise PolicyError(f"{quoted(text)}: a user, group, autogroup or tag expected", offset)


def parse_selector(text: str, names: Names, offset: int) -> Selector:
    """What all sides have in common; autogroups have sides of their own."""
    prefix, colon, _ = text.partition(":")
    if colon and (parse := _BY_PREFIX.get(prefix)) is not None:
        return parse(text, names, offset)
    if text == "*":
        return Anything(text, offset)
    return User(text.lower(), offset) if "@" in text else _addresses(text, names, offset)


def _tag(text: str, names: Names, offset: int) -> Selector:
    return Tag(_known("tag", text, names.tags, offset), offset)


def _ipset(text: str, names: Names, offset: int) -> Selector:
    found = names.ipsets[_known("ipset", text, names.ipsets, offset)]
    return Addresses(text, offset, found.spans, internet=found.internet)


def _known(kind: str, text: str, known: Collection[str], offset: int) -> str:
    if text not in known:
        raise PolicyError(f"{kind} not found: {quoted(text)}", offset)
    return text


def _group(text: str, names: Names, offset: int) -> Selector:
    if names.provider_groups is not None and text not in names.groups:
        _known("group", text, names.provider_groups, offset)
    return Group(text, offset)


def _domain(text: str, _: Names, offset: int) -> Selector:
    local, at, domain = text.removeprefix("user:").partition("@")
    if local != "*" or not at or not domain:
        raise PolicyError(f"{quoted(text)}: user:*@<domain> expected", offset)
    return Domain(text, offset, domain.lower())


def _addresses(text: str, names: Names, offset: int) -> Selector:
    if (host := names.hosts.get(text)) is not None:
        return Addresses(text, offset, host)
    try:
        return Addresses(text, offset, parse_addresses(text))
    except ValueError:
        raise PolicyError(f"host not found: {quoted(text)}", offset) from None


def parse_addresses(text: str) -> IPSet:
    """An address (in brackets if one likes), a prefix, or a range ``a-b``; ``ValueError`` when it is none."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    low, dash, high = text.partition("-")
    if dash:
        first, last = number(low), number(high)
        if first > last or ("." in low) != ("." in high):
            raise ValueError(text)
        return IPSet(((first, last),))
    return IPSet.of_prefixes((parse_prefix(text),))


_BY_PREFIX: dict[str, Callable[[str, Names, int], Selector]] = {
    "tag": _tag,
    "group": _group,
    "user": _domain,
    "ipset": _ipset,
}
