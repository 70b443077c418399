"""Reading a client's Hostinfo as it came: names in any case, every type doubted. Pure.

Source: tailscale tailcfg/tailcfg.go (type Hostinfo).
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

MAX_ROUTES = 1000
MAX_HOSTNAME = 255
EXIT_ROUTES = frozenset({"0.0.0.0/0", "::/0"})


def field(hostinfo: Mapping[str, Any], name: str) -> Any:
    """A member by its name in any case; ``None`` when absent."""
    if name in hostinfo:
        return hostinfo[name]
    wanted = name.lower()
    return next((value for key, value in hostinfo.items() if key.lower() == wanted), None)


def text(hostinfo: Mapping[str, Any], name: str, limit: int = MAX_HOSTNAME) -> str:
    """A text member, cut to ``limit`` characters; "" when it is absent or no text."""
    value = field(hostinfo, name)
    return value[:limit] if isinstance(value, str) else ""


def strings(hostinfo: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts; other entries are dropped."""
    value = field(hostinfo, name)
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, list) else []


def hostname(hostinfo: Mapping[str, Any]) -> str:
    return text(hostinfo, "Hostname")


def request_tags(hostinfo: Mapping[str, Any]) -> list[str]:
    """The tags that the node asks for (``--advertise-tags``), each once, sorted."""
    return sorted(set(strings(hostinfo, "RequestTags")))


def offered_routes(hostinfo: Mapping[str, Any]) -> list[str]:
    """The prefixes that the node offers, in canonical form, each once, sorted; malformed ones are dropped."""
    found = set()
    for entry in strings(hostinfo, "RoutableIPs")[:MAX_ROUTES]:
        try:
            found.add(str(ip_network(entry, strict=False)))
        except ValueError:
            continue
    return sorted(found)


def merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The new Hostinfo; an absent NetInfo keeps the old one (a node's first messages may lack it)."""
    result = dict(new)
    if field(result, "NetInfo") is None:
        previous = field(old, "NetInfo")
        if previous is not None:
            result["NetInfo"] = previous
    return result


def preferred_derp(hostinfo: Mapping[str, Any]) -> int:
    """The home relay's region by NetInfo; 0 when unknown."""
    net_info = field(hostinfo, "NetInfo")
    value = field(net_info, "PreferredDERP") if isinstance(net_info, Mapping) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 65535 else 0
