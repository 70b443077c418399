"""The section ``nodeAttrs``: attributes and address pools for some nodes. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.hujson import Value, plain
from controlplane.netmap.policy.model import NodeAttributes
from controlplane.netmap.policy.ranges import IPSet, Prefix, parse_prefix
from controlplane.netmap.policy.reading import items, members, named, texts
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

FIELDS = ("target", "attr", "app", "ipPool")
AUTOGROUPS = frozenset({MEMBER, TAGGED, *ROLE_AUTOGROUPS})
EVERYBODY_OF = "user:*@"
CGNAT = parse_prefix("100.64.0.0/10")
# Not given to devices: Tailscale's service addresses, its own use of the range's start, and ChromeOS's.
RESERVED = tuple(map(parse_prefix, ("100.100.0.0/24", "100.100.100.0/24", "100.115.92.0/23")))


def parse_node_attrs(
    section: Value | None, *, tags: Collection[str], hosts: Mapping[str, IPSet]
) -> tuple[NodeAttributes, ...]:
    """The entries in the order of the file. ``tags`` and ``hosts`` are what the file defines."""
    return tuple(_entry(entry, tags, hosts) for entry in items(section, "nodeAttrs"))


def _entry(entry: Value, tags: Collection[str], hosts: Mapping[str, IPSet]) -> NodeAttributes:
    fields = members(entry, FIELDS, "nodeAttrs entry")
    attributes = texts(fields.get("attr"), "attr")
    for name, place in attributes:
        if not name:
            raise PolicyError("attr values cannot be empty", place)
    return NodeAttributes(
        targets=tuple(
            _target(name, place, tags, hosts) for name, place in texts(fields.get("target"), "target")
        ),
        attributes=tuple(name for name, _ in attributes),
        app=_app(fields.get("app")),
        ip_pool=tuple(_pool(name, place) for name, place in texts(fields.get("ipPool"), "ipPool")),
        offset=entry.start,
    )


def _app(value: Value | None) -> Mapping[str, tuple[Any, ...]]:
    app = {}
    for name, (content, place) in named(value, "app").items():
        domain, _, path = name.partition("/")
        if not domain or not path or "." not in domain:
            raise PolicyError("capability name must have the form {domain}/{path}", place)
        app[name] = tuple(plain(item) for item in items(content, f'app["{name}"]'))
    return app


def _target(name: str, place: int, tags: Collection[str], hosts: Mapping[str, IPSet]) -> Selector:
    if name == "*":
        return Anything(name, place)
    if name.startswith("tag:") and name not in tags:
        raise PolicyError(f'tag not found: "{name}"', place)
    if name.startswith("autogroup:"):
        return _autogroup(name, place)
    if name.startswith(EVERYBODY_OF):
        return Domain(name, place, name.removeprefix(EVERYBODY_OF).lower())
    for start, kind in (("tag:", Tag), ("group:", Group)):
        if name.startswith(start):
            return kind(name, place)
    return User(name.lower(), place) if "@" in name else _addresses(name, place, hosts)


def _autogroup(name: str, place: int) -> Selector:
    name = MEMBER if name == "autogroup:members" else name
    if name not in AUTOGROUPS:
        raise PolicyError(f'"{name}" is not allowed in target', place)
    return Autogroup(name, place)


def _addresses(name: str, place: int, hosts: Mapping[str, IPSet]) -> Selector:
    if name in hosts:
        return Addresses(name, place, hosts[name])
    try:
        prefix = parse_prefix(name)
    except ValueError:
        raise PolicyError(f'"{name}": invalid address', place) from None
    return Addresses(name, place, IPSet.of_prefixes([prefix]))


def _pool(name: str, place: int) -> Prefix:
    try:
        prefix = parse_prefix(name)
    except ValueError:
        raise PolicyError(f"IPPool({name}): invalid network", place) from None
    if prefix.first < CGNAT.first or prefix.last > CGNAT.last:
        raise PolicyError(f"IPPool({name}): network not within 100.64.0.0/10", place)
    if any(prefix.first >= taken.first and prefix.last <= taken.last for taken in RESERVED):
        raise PolicyError(f"IPPool({name}): network within reserved range", place)
    return prefix
