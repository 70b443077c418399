"""Reading a client's Hostinfo as it came: names in any case, every type doubted. Pure.

Source: tailscale tailcfg/tailcfg.go (type Hostinfo).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any

MAX_ROUTES = 1000
MAX_HOSTNAME = 255
MAX_STABLE_ID = 32
MAX_ENDPOINTS = 64
MAX_PORT = 65535
MAX_LATENCY = 60.0  # seconds
NUMBERS = (float, int)
MAX_DIGITS = 9  # of a region's number
EXIT_ROUTES = frozenset({"0.0.0.0/0", "::/0"})


def field(hostinfo: Mapping[str, Any], name: str) -> Any:
    """A member by its name in any case; ``None`` when absent."""
    if name in hostinfo:
        return hostinfo[name]
    wanted = name.lower()
    return next((value for key, value in hostinfo.items() if key.lower() == wanted), None)


def lowered(hostinfo: Any) -> dict[str, Any]:
    """The members by their names in lower case, for who asks for many; none of what is no object."""
    return {name.lower(): value for name, value in hostinfo.items()} if isinstance(hostinfo, Mapping) else {}


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


def used_exit_node(hostinfo: Mapping[str, Any]) -> str:
    """The stable ID of the exit node that the node uses; "" = none."""
    return text(hostinfo, "ExitNodeID", MAX_STABLE_ID)


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


def endpoints(reported: Iterable[str]) -> tuple[str, ...]:
    """The ``ip:port`` texts that others may be sent, each once, in order and canonical; the rest is dropped.

    Official clients give up on a whole map for one address that is none, and on every map after it.
    """
    found = (_endpoint(text) for text in reported)
    return tuple(dict.fromkeys(text for text in found if text is not None))[:MAX_ENDPOINTS]


def _endpoint(text: str) -> str | None:
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    is_v6 = isinstance(address, IPv6Address)
    if (
        is_v6 != bracketed
        or "%" in host
        or not (port.isascii() and port.isdigit())
        or len(port) > len("65535")
    ):
        return None
    if not 0 < int(port) <= MAX_PORT:
        return None
    return f"[{address}]:{int(port)}" if is_v6 else f"{address}:{int(port)}"


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


def region_seconds(reported: Any) -> dict[int, float]:
    """A NetInfo's ``DERPLatency`` by region, the faster of both families; what is no latency is left out."""
    found: dict[int, float] = {}
    for key, seconds in reported.items() if isinstance(reported, dict) else ():
        region = _region_of(key)
        if region is None or type(seconds) not in NUMBERS:  # true and false are numbers, too
            continue
        if 0 <= seconds <= found.get(region, MAX_LATENCY):
            found[region] = float(seconds)
    return found


@lru_cache(maxsize=4096)
def _region_of(key: str) -> int | None:
    """The region of ``900-v4``."""
    region = key.partition("-")[0]
    return int(region) if region.isascii() and region.isdigit() and len(region) <= MAX_DIGITS else None


MAX_TEXT = 1024
MAX_MEMBERS = 256
MAX_DEPTH = 6
MAX_BYTES = 64 * 1024
ESSENTIAL = (
    "Hostname",
    "OS",
    "OSVersion",
    "IPNVersion",
    "App",
    "RoutableIPs",
    "RequestTags",
    "ExitNodeID",
    "Services",
    "NetInfo",
)


def cleaned(hostinfo: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a Hostinfo: bounded in width, depth and size, without NULs, which no database takes.

    One that is too large keeps only what the server reads, and nothing when that is too large too.
    """
    result = _clean(hostinfo, MAX_DEPTH)
    if _is_small(result):
        return dict(result)
    return essential(result)


def essential(hostinfo: Mapping[str, Any], max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Only what the server reads of a (cleaned) Hostinfo; nothing when that is larger than ``max_bytes``."""
    kept = {name: value for name in ESSENTIAL if (value := field(hostinfo, name)) is not None}
    return kept if _is_small(kept, max_bytes) else {}


def _is_small(value: Any, max_bytes: int = MAX_BYTES) -> bool:
    return len(json.dumps(value, ensure_ascii=False)) <= max_bytes


def _clean(value: Any, depth: int) -> Any:
    if isinstance(value, str):
        return value[:MAX_TEXT].replace("\x00", "")
    if depth == 0:
        return None
    if isinstance(value, Mapping):
        members = list(value.items())[:MAX_MEMBERS]
        return {_clean(str(name), depth): _clean(member, depth - 1) for name, member in members}
    if isinstance(value, list | tuple):
        return [_clean(entry, depth - 1) for entry in value[:MAX_ROUTES]]
    return value
