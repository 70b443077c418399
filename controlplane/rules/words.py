"""A rule's parts in words. The text is what counts: what is unknown here is shown as it stands there."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

ANY = "*"
NONROOT = "autogroup:nonroot"


@dataclass(frozen=True, slots=True)
class Phrase:
    """Somebody or something that a rule names: an icon, words, and the ``name`` as the text has it."""

    icon: str
    words: str
    name: str


@dataclass(frozen=True, slots=True)
class Target:
    """What a rule lets its sources reach: who, and by which ports ("" = whatever ``who`` says is all)."""

    who: Phrase
    ports: str = ""


# fmt: off
AUTOGROUPS: dict[str, tuple[str, str | Promise]] = {
    "member": ("users", gettext_lazy("all members")),
    "tagged": ("tag", gettext_lazy("all tagged devices")),
    "self": ("user-circle", gettext_lazy("their own devices")),
    "internet": ("world", gettext_lazy("the internet, through exit nodes")),
    "danger-all": ("alert-triangle", gettext_lazy("everybody, even from outside the tailnet")),
    "owner": ("user", gettext_lazy("the owner")),
    "admin": ("user", gettext_lazy("admins")),
    "it-admin": ("user", gettext_lazy("IT admins")),
    "network-admin": ("user", gettext_lazy("network admins")),
    "billing-admin": ("user", gettext_lazy("billing admins")),
    "auditor": ("user", gettext_lazy("auditors")),
    "nonroot": ("user", gettext_lazy("any user but root")),
    "shared": ("users", gettext_lazy("people of other tailnets")),
}
KINDS: dict[str, tuple[str, str | Promise]] = {
    "group": ("users", gettext_lazy("people in %(name)s")),
    "tag": ("tag", gettext_lazy("devices with %(name)s")),
    "ipset": ("network", gettext_lazy("addresses in %(name)s")),
    "svc": ("server", gettext_lazy("the service %(name)s")),
}
# fmt: on


def phrase(name: str) -> Phrase:
    """One source, destination or user of a rule in words."""
    kind, colon, rest = name.partition(":")
    if name == ANY:
        icon, words = "arrows-exchange", _("everyone")
    elif kind == "autogroup" and rest in AUTOGROUPS:
        icon, words = AUTOGROUPS[rest][0], str(AUTOGROUPS[rest][1])
    elif colon and kind in KINDS:
        icon, words = KINDS[kind][0], str(KINDS[kind][1]) % {"name": name}
    elif name.startswith("user:*@"):
        icon, words = "users", _("everybody of %(domain)s") % {"domain": rest.removeprefix("*@")}
    elif "@" in name:
        icon, words = "user", name
    elif _is_address(name):
        icon, words = "network", name
    else:
        icon, words = "server-2", _("the host %(name)s") % {"name": name}
    return Phrase(icon, words, name)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_network(name, strict=False)
    except ValueError:
        low, dash, high = name.partition("-")
        return bool(dash) and _is_address(low) and _is_address(high)
    return True


def split_ports(destination: str) -> tuple[str, str]:
    """The two parts of an ACL's destination: ``tag:db:5432`` is ``tag:db`` and ``5432``."""
    who, _colon, ports = destination.rpartition(":")
    return who.removeprefix("[").removesuffix("]"), ports


def ports_in_words(ports: str) -> str:
    """``*``, ``443``, ``80,443`` or ``8000-8100`` in words."""
    if ports == ANY:
        return _("any port")
    parts = [part.strip() for part in ports.split(",")]
    several = len(parts) > 1 or "-" in ports
    return (_("ports %(ports)s") if several else _("port %(ports)s")) % {"ports": ", ".join(parts)}


# fmt: off
PROTOCOLS = {
    "tcp": "TCP", "udp": "UDP", "icmp": "ICMP", "ipv6-icmp": "ICMPv6", "sctp": "SCTP", "gre": "GRE",
    "esp": "ESP", "ah": "AH", "igmp": "IGMP", "ipv4": "IPv4", "egp": "EGP", "igp": "IGP",
}
# fmt: on
WITHOUT_PORTS = frozenset(PROTOCOLS) - {"tcp", "udp", "sctp"}


def protocol_in_words(protocol: str) -> str:
    """An ACL's ``proto``: a name or an IANA number; "" stays empty."""
    if protocol.isdigit():
        return _("IP protocol %(number)s") % {"number": protocol}
    return PROTOCOLS.get(protocol.lower(), protocol)


def traffic_in_words(capability: str) -> str:
    """One ``ip`` of a grant: ``*``, ``443``, ``tcp:443``, ``icmp:*``."""
    if capability == ANY:
        return _("any port and protocol")
    protocol, colon, ports = capability.rpartition(":")
    if not colon:
        return ports_in_words(ports)
    name = protocol_in_words(protocol)
    if ports == ANY and protocol.lower() in WITHOUT_PORTS | set(filter(str.isdigit, [protocol])):
        return name
    return f"{name} {ports_in_words(ports)}"


def strings(value: Any) -> list[str]:
    """The strings of a list in the text; whatever else stands there is for the text to say."""
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def acl_targets(rule: Mapping[str, Any]) -> list[Target]:
    """What an ACL leads to; its protocol is said with the ports."""
    protocol = rule.get("proto")
    spoken = protocol_in_words(protocol) if isinstance(protocol, str) else ""
    targets = []
    for one in strings(rule.get("dst")):
        who, ports = split_ports(one)
        said = "" if spoken and ports == ANY else ports_in_words(ports)
        targets.append(Target(phrase(who), ", ".join(filter(None, (said, spoken)))))
    return targets


def grant_targets(rule: Mapping[str, Any]) -> list[Target]:
    """What a grant leads to: its destinations, all by the same ports, if by any."""
    traffic = "; ".join(traffic_in_words(one) for one in strings(rule.get("ip")))
    return [Target(phrase(one), traffic) for one in strings(rule.get("dst"))]


def ssh_targets(rule: Mapping[str, Any]) -> list[Target]:
    """Where an SSH rule lets people in, and as whom."""
    users = ", ".join(_ssh_users(strings(rule.get("users"))))
    said = _("as %(users)s") % {"users": users} if users else ""
    return [Target(phrase(one), said) for one in strings(rule.get("dst"))]


def _ssh_users(users: Sequence[str]) -> list[str]:
    everybody = {NONROOT, "root"}
    if not everybody <= set(users):
        return [_ssh_user(one) for one in users]
    return [_("any user"), *(_ssh_user(one) for one in users if one not in everybody)]


def _ssh_user(user: str) -> str:
    if user == NONROOT:
        return str(AUTOGROUPS["nonroot"][1])
    if user.startswith("localpart:"):
        return _("the name before the @ of %(pattern)s") % {"pattern": user.removeprefix("localpart:")}
    return user


def conditions(section: str, rule: Mapping[str, Any]) -> list[str]:
    """What else a rule says: ways, capabilities, postures, the question that SSH asks."""
    said: list[str] = []
    via = strings(rule.get("via"))
    if via:
        said.append(_("only via %(names)s") % {"names": ", ".join(via)})
    app = rule.get("app")
    if isinstance(app, dict) and app:
        said.append(
            ngettext("capability %(names)s", "capabilities %(names)s", len(app)) % {"names": ", ".join(app)}
        )
    postures = strings(rule.get("srcPosture"))
    if postures:
        said.append(_("from devices that pass %(names)s") % {"names": _one_of(postures)})
    if section == "ssh" and rule.get("action") == "check":
        period = rule.get("checkPeriod")
        again = period if isinstance(period, str) and period else "12h"
        said.append(
            _("signs in again each time")
            if again == "always"
            else _("signs in again after %(period)s") % {"period": again}
        )
    return said


def _one_of(names: Iterable[str]) -> str:
    return _(" or ").join(names)
