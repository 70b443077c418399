"""The sections ``ssh`` and ``sshTests``: who may be whom on which devices. Pure."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from fractions import Fraction
from ipaddress import ip_network

from controlplane.netmap.policy.durations import duration_text, parse_duration
from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.hujson import Value
from controlplane.netmap.policy.model import SSHRule, SSHTest
from controlplane.netmap.policy.parse_postures import parse_posture_names
from controlplane.netmap.policy.reading import attribute_values, items, members, text, texts
from controlplane.netmap.policy.selectors import (
    MEMBER,
    ROLE_AUTOGROUPS,
    SELF,
    TAGGED,
    Autogroup,
    Domain,
    Group,
    Selector,
    Tag,
    User,
)

ACCEPT, CHECK = "accept", "check"
ALWAYS = "always"
MAX_CHECK_SECONDS = 168 * 3600
LOCALPART = "localpart:*@"
EVERYBODY_OF = "user:*@"
SOURCE_AUTOGROUPS = frozenset({MEMBER, TAGGED, *ROLE_AUTOGROUPS})
TARGET_AUTOGROUPS = frozenset({SELF, TAGGED})
RULE_FIELDS = ("action", "src", "dst", "users", "checkPeriod", "acceptEnv", "srcPosture")
TEST_FIELDS = ("src", "dst", "accept", "check", "deny", "srcPostureAttrs")
SAME_USER = "users in dst are only allowed from the same user"
SELF_OF_TAGS = "autogroup:self can only be used with users, groups, or supported autogroups"
CHECK_OF_TAGS = 'action "check" needs people in src: nobody can sign in for a tagged device'


def parse_ssh(
    section: Value | None, *, tags: Collection[str], postures: Collection[str]
) -> tuple[SSHRule, ...]:
    """The rules in the order of the file. ``tags`` and ``postures`` are the names that the file defines."""
    return tuple(_rule(entry, tags, postures) for entry in items(section, "ssh"))


def _rule(entry: Value, tags: Collection[str], postures: Collection[str]) -> SSHRule:
    fields = members(entry, RULE_FIELDS, "ssh rule")
    action = text(fields.get("action"), "action")
    if not action:
        raise PolicyError("action must be specified", entry.start)
    if action not in (ACCEPT, CHECK):
        raise PolicyError(f'"{action}" is not a valid action', fields["action"].start)
    sources = tuple(_source(name, place, tags) for name, place in texts(fields.get("src"), "src"))
    targets = tuple(_target(name, place, tags) for name, place in texts(fields.get("dst"), "dst"))
    _check_pairs(action, sources, targets)
    return SSHRule(
        action=action,
        sources=sources,
        targets=targets,
        users=_users(entry, fields),
        check_period=_check_period(fields.get("checkPeriod")),
        accept_env=_accept_env(fields.get("acceptEnv")),
        postures=parse_posture_names(fields.get("srcPosture"), postures, "srcPosture"),
        offset=entry.start,
    )


def _source(name: str, place: int, tags: Collection[str]) -> Selector:
    if name.startswith("autogroup:"):
        return _autogroup(name, place, SOURCE_AUTOGROUPS, "src")
    if name.startswith("group:"):
        return Group(name, place)
    if name.startswith(EVERYBODY_OF):
        return Domain(name, place, name.removeprefix(EVERYBODY_OF).lower())
    return _tag_or_user(name, place, tags, "src")


def _target(name: str, place: int, tags: Collection[str]) -> Selector:
    if name.startswith("autogroup:"):
        return _autogroup(name, place, TARGET_AUTOGROUPS, "dst")
    if name.startswith(("group:", "user:")):
        raise PolicyError(f'invalid dst "{name}"', place)
    return _tag_or_user(name, place, tags, "dst")


def _autogroup(name: str, place: int, allowed: Collection[str], side: str) -> Autogroup:
    name = MEMBER if name == "autogroup:members" else name
    if name not in allowed:
        raise PolicyError(f'"{name}" is not allowed in {side}', place)
    return Autogroup(name, place)


def _tag_or_user(name: str, place: int, tags: Collection[str], side: str) -> Selector:
    if name.startswith("tag:"):
        if name not in tags:
            raise PolicyError(f'tag not found: "{name}"', place)
        return Tag(name, place)
    if "@" not in name.strip("@"):
        raise PolicyError(f'invalid {side} "{name}"', place)
    return User(name.lower(), place)


def _check_pairs(action: str, sources: tuple[Selector, ...], targets: tuple[Selector, ...]) -> None:
    """Nobody is let onto a person's device but that person, and only people can be asked to sign in."""
    tagged = next((source for source in sources if isinstance(source, Tag) or source.text == TAGGED), None)
    if tagged is not None and action == CHECK:
        raise PolicyError(CHECK_OF_TAGS, tagged.offset)
    for target in targets:
        if target.text == SELF and tagged is not None:
            raise PolicyError(SELF_OF_TAGS, target.offset)
        if isinstance(target, User) and any(source.text != target.text for source in sources):
            raise PolicyError(SAME_USER, target.offset)


def _users(entry: Value, fields: Mapping[str, Value]) -> tuple[str, ...]:
    users = texts(fields.get("users"), "users")
    if not users:
        raise PolicyError("users must be specified", entry.start)
    for user, place in users:
        if user in ("", "*"):
            raise PolicyError(f'user "{user}" is not valid', place)
    return tuple(dict.fromkeys(user for user, _ in users))


def _accept_env(value: Value | None) -> tuple[str, ...]:
    names = texts(value, "acceptEnv")
    for name, place in names:
        if not name:
            raise PolicyError("acceptEnv values cannot be empty", place)
    return tuple(name for name, _ in names)


def _check_period(value: Value | None) -> int | None:
    """Seconds; 0 = every time, ``None`` = as by default."""
    period = text(value, "checkPeriod")
    if value is None or not period:
        return None
    if period == ALWAYS:
        return 0
    try:
        seconds = parse_duration(period)
    except ValueError as error:
        raise PolicyError(str(error), value.start) from None
    return _bounded(seconds, value.start)


def _bounded(seconds: Fraction, place: int) -> int:
    if seconds <= 0:
        raise PolicyError(f"checkPeriod {duration_text(seconds)} must be a positive duration", place)
    if seconds > MAX_CHECK_SECONDS:
        raise PolicyError(f"checkPeriod {duration_text(seconds)} is above the max (168h)", place)
    return math.ceil(seconds)


def parse_ssh_tests(section: Value | None, *, tags: Collection[str]) -> tuple[SSHTest, ...]:
    """The tests in the order of the file; what they name must be single devices or people."""
    return tuple(_test(entry, tags) for entry in items(section, "sshTests"))


def _test(entry: Value, tags: Collection[str]) -> SSHTest:
    fields = members(entry, TEST_FIELDS, "SSH test")
    source = text(fields.get("src"), "src")
    targets = texts(fields.get("dst"), "dst")
    _check_element(source, fields["src"].start if source else entry.start, "src", tags)
    for target, place in targets:
        _check_element(target, place, "dst", tags)
    accept, check, deny = (
        tuple(user for user, _ in texts(fields.get(name), name)) for name in ("accept", "check", "deny")
    )
    return SSHTest(
        source=source,
        targets=tuple(target for target, _ in targets),
        accept=accept,
        check=check,
        deny=deny,
        posture_attributes=attribute_values(fields.get("srcPostureAttrs"), "srcPostureAttrs"),
        offset=entry.start,
    )


def _check_element(name: str, place: int, side: str, tags: Collection[str]) -> None:
    if name == "*" or name.startswith(("autogroup:", "ipset:", "user:")) or _is_network(name):
        raise PolicyError(f'SSH tests {side} contains disallowed element "{name}"', place)
    if name.startswith("tag:") and name not in tags:
        raise PolicyError(f'SSH tests {side} contains unknown tag "{name}"', place)


def _is_network(name: str) -> bool:
    try:
        return "/" in name and bool(ip_network(name, strict=False))
    except ValueError:
        return False
