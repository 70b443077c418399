"""The sections ``acls`` and ``grants``, brought into one form. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Any

from controlplane.netmap.policy import ports, selectors
from controlplane.netmap.policy.errors import PolicyError, quoted
from controlplane.netmap.policy.hujson import Value, plain
from controlplane.netmap.policy.model import Rule, Service, Target
from controlplane.netmap.policy.parse_postures import parse_posture_names
from controlplane.netmap.policy.parse_selectors import Names, parse_source, parse_target
from controlplane.netmap.policy.reading import items, members, named, text, texts
from controlplane.netmap.policy.selectors import Addresses, Anything, Autogroup, Domain, Group, Selector, User

ACL_FIELDS = ("action", "src", "dst", "proto", "users", "ports", "srcPosture")
GRANT_FIELDS = ("src", "dst", "ip", "app", "via", "srcPosture")
CAPABILITY = re.compile(r"(?P<domain>[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+)/(?P<path>[^\s:?#]+)")
OWN_DOMAIN = re.compile(r"(.*\.)?tailscale\.com", re.IGNORECASE)
# Those of that domain which are for policies; the others say what only the server decides.
OPEN_CAPABILITIES = frozenset(
    f"tailscale.com/cap/{name}"
    for name in ("drive", "golink", "kubernetes", "relay", "secrets", "tsidp", "webui", "aperture")
)


def parse_acls(section: Value | None, names: Names, postures: Collection[str]) -> list[Rule]:
    """The entries of ``acls``; ``users`` and ``ports`` are older names of ``src`` and ``dst``."""
    return [_acl(entry, names, postures) for entry in items(section, "acls")]


def parse_grants(section: Value | None, names: Names, postures: Collection[str]) -> list[Rule]:
    """The entries of ``grants``."""
    return [_grant(entry, names, postures) for entry in items(section, "grants")]


def _acl(entry: Value, names: Names, postures: Collection[str]) -> Rule:
    fields = members(entry, ACL_FIELDS, "acl")
    action = text(fields.get("action"), "action")
    if not action:
        raise PolicyError("action must be specified", entry.start)
    if action != "accept":
        raise PolicyError(f"{quoted(action)} is not a valid action", fields["action"].start)
    protocols = _protocol(fields.get("proto"))
    sources = _sources(fields.get("src") or fields.get("users"), names)
    targets = [
        _acl_target(item, offset, protocols, names)
        for item, offset in texts(fields.get("dst") or fields.get("ports"), "dst")
    ]
    _check_self(sources, targets, wildcard=True)
    asked = parse_posture_names(fields.get("srcPosture"), postures, "srcPosture")
    return Rule(sources, tuple(targets), postures=asked, offset=entry.start)


def _protocol(value: Value | None) -> tuple[int, ...]:
    try:
        return ports.parse_protocol(text(value, "proto"))
    except ports.PortError as error:
        raise PolicyError(f"proto: {error}", value.start if value else None) from None


def _acl_target(item: str, offset: int, protocols: tuple[int, ...], names: Names) -> Target:
    name, colon, spelled = item.rpartition(":")
    if not colon:
        raise PolicyError(f"dst={quoted(item)}: ports must be specified, as in {quoted(item + ':*')}", offset)
    try:
        service = Service(protocols, ports.parse_ports(spelled))
        ports.check_ports_fit(service.protocols, service.ports)
    except ports.PortError as error:
        raise PolicyError(f"dst={quoted(item)}: {error}", offset) from None
    return Target(parse_target(name, names, offset), (service,))


def _sources(value: Value | None, names: Names) -> tuple[Selector, ...]:
    return tuple(parse_source(item, names, offset) for item, offset in texts(value, "src"))


def _grant(entry: Value, names: Names, postures: Collection[str]) -> Rule:
    fields = members(entry, GRANT_FIELDS, "grant")
    services = tuple(_service(item, offset) for item, offset in texts(fields.get("ip"), "ip"))
    app = parse_app(fields.get("app"))
    if not services and not app:
        raise PolicyError("ip and app can not both be empty", entry.start)
    via = tuple(_via(item, offset, names) for item, offset in texts(fields.get("via"), "via"))
    sources = _sources(fields.get("src"), names)
    targets = [
        Target(parse_target(item, names, offset), services)
        for item, offset in texts(fields.get("dst"), "dst")
    ]
    _check_self(sources, targets, wildcard=False)
    if app:
        _check_app(targets)
    asked = parse_posture_names(fields.get("srcPosture"), postures, "srcPosture")
    return Rule(sources, tuple(targets), app, via, asked, entry.start)


def _service(item: str, offset: int) -> Service:
    try:
        return ports.parse_service(item)
    except ports.PortError as error:
        raise PolicyError(str(error), offset) from None


def _via(item: str, offset: int, names: Names) -> str:
    if not item.startswith("tag:"):
        raise PolicyError("via can only be a tag", offset)
    if item not in names.tags:
        raise PolicyError(f"tag {quoted(item)} not found", offset)
    return item


def parse_app(value: Value | None) -> dict[str, tuple[Any, ...]]:
    """Capabilities of applications, each with its values (any JSON)."""
    app = {}
    for name, (content, offset) in named(value, "app").items():
        match = CAPABILITY.fullmatch(name)
        if match is None:
            raise PolicyError("capability name must have the form {domain}/{path}", offset)
        if OWN_DOMAIN.fullmatch(match["domain"]) and name not in OPEN_CAPABILITIES:
            raise PolicyError("capability name must not be in the tailscale.com domain", offset)
        app[name] = tuple(plain(item) for item in items(content, f"app[{quoted(name)}]"))
    return app


def _check_app(targets: Iterable[Target]) -> None:
    for target in targets:
        if isinstance(target.selector, Addresses) and target.selector.internet:
            raise PolicyError("cannot use app grants with autogroup:internet", target.selector.offset)


def _check_self(sources: tuple[Selector, ...], targets: Iterable[Target], *, wildcard: bool) -> None:
    """``autogroup:self`` needs sources that are people; an ACL may also say everybody."""
    if not any(is_self(target.selector) for target in targets):
        return
    for source in sources:
        if not (_is_people(source) or (wildcard and isinstance(source, Anything))):
            message = "autogroup:self can only be used with users, groups, or supported autogroups"
            raise PolicyError(message, source.offset)


def _is_people(selector: Selector) -> bool:
    if isinstance(selector, Autogroup):
        return selector.text in selectors.PEOPLE_AUTOGROUPS
    return isinstance(selector, User | Domain | Group)


def is_self(selector: Selector) -> bool:
    return isinstance(selector, Autogroup) and selector.text == selectors.SELF
