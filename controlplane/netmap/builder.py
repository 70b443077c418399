"""JSON as it goes on the wire: nodes, profiles, DNS. Pure.

Nothing is null, all is UTF-8, and a node has exactly two addresses unless the policy leaves it one.

Source: tailscale tailcfg/tailcfg.go; the rules are those that official clients need.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson

from controlplane.netmap.snapshot import (
    EXIT_ROUTES,
    TAGGED_LOGIN,
    TAGGED_NAME,
    TAGGED_USER_ID,
    NodeSnapshot,
    Standing,
    TailnetSnapshot,
    UserSnapshot,
)
from wire.control import format_time
from wire.flows import CAPABILITY as LOG_FLOWS_CAPABILITY

ENDED = timedelta(days=1)  # how long ago the key of a node that is gone ended: past any clock's error
LEGACY_DERP = "127.3.3.40:"
SELF_CAPABILITIES: dict[str, Any] = {
    "https://tailscale.com/cap/file-sharing": None,
    "https://tailscale.com/cap/ssh": None,
    "default-auto-update": [False],
}
CLONED = (
    "another machine uses this device's keys at the same time (a copied disk or state folder?): only the one "
    "that started last is reached; sign in anew on the copy, with an empty state folder"
)
# Our own: a key that is this near to its end starts a fresh period when the client rotates it.
RENEW_CAPABILITY = "trenza/renew-by-rotation"
# Our own: the prefixes of the node that are approved, also those which another router serves now.
APPROVED_ROUTES_CAPABILITY = "trenza/approved-routes"
ADMIN_CAPABILITY = "https://tailscale.com/cap/is-admin"
OWNER_CAPABILITY = "https://tailscale.com/cap/is-owner"
PEER_HOSTINFO = {
    name.lower(): name
    for name in (
        "OS",
        "Hostname",
        "Services",
        "sshHostKeys",
        "ShieldsUp",
        "IPNVersion",
        "OSVersion",
        "Distro",
    )
}


def owner_of(node: NodeSnapshot) -> int:
    return TAGGED_USER_ID if node.tags else node.user_id


def without_nulls(value: Any) -> Any:
    """What a node said of its host, safe to pass on: a null inside is fatal to some clients."""
    if isinstance(value, Mapping):
        return {name: without_nulls(member) for name, member in value.items() if member is not None}
    if isinstance(value, list | tuple):
        return [without_nulls(item) for item in value if item is not None]
    return value


def served_routes(node: NodeSnapshot) -> tuple[str, ...]:
    """The prefixes that lead to this node: of the subnets those that it serves now, and both exit routes.

    One default route alone makes no exit node: what goes by the other family would leave by another way.
    """
    is_exit = set(EXIT_ROUTES) <= set(node.routes)
    return tuple(
        route for route in node.routes if (is_exit if route in EXIT_ROUTES else route in node.primary_routes)
    )


def addresses_of(node: NodeSnapshot) -> list[str]:
    """A node's addresses: one of each family, or the IPv6 one alone where the policy says so."""
    return [*([f"{node.ipv4}/32"] if node.has_ipv4 else ()), f"{node.ipv6}/128"]


def base_node(node: NodeSnapshot, routes: tuple[str, ...]) -> dict[str, Any]:
    """What a node shows to itself and to others alike; ``routes`` lead to it besides its addresses."""
    addresses = addresses_of(node)
    content: dict[str, Any] = {
        "ID": node.id,
        "StableID": node.stable_id,
        "Name": node.name,
        "User": owner_of(node),
        "Key": node.node_key,
        "Addresses": addresses,
        "AllowedIPs": [*addresses, *routes],
        "Created": format_time(node.created),
    }
    if node.key_expiry is not None:
        content["KeyExpiry"] = format_time(node.key_expiry)
    if node.disco_key:
        content["DiscoKey"] = node.disco_key
    if node.endpoints:
        content["Endpoints"] = list(node.endpoints)
    if node.home_derp:
        content |= {"HomeDERP": node.home_derp, "DERP": f"{LEGACY_DERP}{node.home_derp}"}
    if node.capability_version:
        content["Cap"] = node.capability_version
    if node.tags:
        content["Tags"] = list(node.tags)
    # Of a subnet nobody hears who does not use it.
    if serving := [route for route in node.primary_routes if route in routes]:
        content["PrimaryRoutes"] = serving
    return content


def self_node(node: NodeSnapshot, tailnet: TailnetSnapshot, granted: Mapping[str, Any]) -> dict[str, Any]:
    """A node's own entry: what it may do and shall do, and whether it was approved.

    ``granted`` are the capabilities that the policy gives it.
    """
    capabilities = dict(SELF_CAPABILITIES) | {"tailnet-display-name": [tailnet.name]}
    if tailnet.logs_flows:
        capabilities[LOG_FLOWS_CAPABILITY] = None
    if "admin" in node.roles:
        capabilities[ADMIN_CAPABILITY] = None
    if "owner" in node.roles:
        capabilities[OWNER_CAPABILITY] = None
    if node.renews_within:
        capabilities[RENEW_CAPABILITY] = [{"WithinSeconds": node.renews_within}]
    if node.routes:
        capabilities[APPROVED_ROUTES_CAPABILITY] = list(node.routes)
    return base_node(node, served_routes(node)) | {
        "Machine": node.machine_key,
        "Hostinfo": without_nulls(node.hostinfo),
        "MachineAuthorized": node.standing is not Standing.PENDING,
        "CapMap": {**capabilities, **granted},
        "Online": True,
    }


def health(node: NodeSnapshot) -> list[str]:
    """What is wrong with a node, as far as only the server can know: sentences for ``status``."""
    return [CLONED] if node.cloned else []


def peer_node(node: NodeSnapshot, routes: tuple[str, ...]) -> dict[str, Any]:
    """A node as one of its peers sees it, who uses it for ``routes``; LastSeen only while it is offline."""
    content = base_node(node, routes)
    hostinfo = {
        PEER_HOSTINFO[key.lower()]: value
        for key, value in node.hostinfo.items()
        if key.lower() in PEER_HOSTINFO
    }
    if "ShieldsUp" in hostinfo:  # some clients write it as text, and others give up on a map with that
        hostinfo["ShieldsUp"] = hostinfo["ShieldsUp"] in (True, "true")
    content["Hostinfo"] = without_nulls(hostinfo)
    content["Online"] = node.online
    content["MachineAuthorized"] = True
    if not node.online and node.last_seen is not None:
        content["LastSeen"] = format_time(node.last_seen)
    if node.standing is Standing.EXPIRED:
        content["Expired"] = True
    return content


def profile(user: UserSnapshot) -> dict[str, Any]:
    content: dict[str, Any] = {
        "ID": user.id,
        "LoginName": user.login_name,
        "DisplayName": user.display_name,
    }
    return content | ({"ProfilePicURL": user.picture_url} if user.picture_url else {})


def farewell_map(node_key: str, machine_key: str, now: datetime) -> dict[str, Any]:
    """The whole map of a node that is in no tailnet: its key has ended. It says only what the client said.

    Its addresses are ones that no node ever has: some clients read no node with other than two.
    """
    nobody = NodeSnapshot(
        id=1,
        stable_id="unknown",
        name="",
        user_id=TAGGED_USER_ID,
        machine_key=machine_key,
        node_key=node_key,
        ipv4="100.64.0.0",
        ipv6="fd7a:115c:a1e0::",
        standing=Standing.EXPIRED,
        created=now - ENDED,
        key_expiry=now - ENDED,
    )
    node = base_node(nobody, ()) | {"Machine": machine_key, "Hostinfo": {}, "MachineAuthorized": True}
    return {
        "Node": node,
        "UserProfiles": [TAGGED_PROFILE],
        "PacketFilters": {"base": []},
        "ControlTime": format_time(now),
    }


def profiles_member(tailnet: TailnetSnapshot, people: Iterable[int]) -> bytes:
    """The profiles of these people, and the one of tags."""
    known = (tailnet.users[i] for i in sorted(people) if i in tailnet.users)
    return b'"UserProfiles":' + orjson.dumps([*map(profile, known), TAGGED_PROFILE])


def shared_members(tailnet: TailnetSnapshot) -> dict[str, bytes]:
    """The members of a map that are the same for every node of a tailnet."""
    return {
        "DERPMap": b'"DERPMap":' + orjson.dumps(tailnet.derp_map.to_json()),
        "DNSConfig": b'"DNSConfig":' + orjson.dumps(dns_config(tailnet)),
        "Domain": b'"Domain":' + orjson.dumps(tailnet.suffix),
    }


TAGGED_PROFILE = {"ID": TAGGED_USER_ID, "LoginName": TAGGED_LOGIN, "DisplayName": TAGGED_NAME}


def dns_config(tailnet: TailnetSnapshot) -> dict[str, Any]:
    """The tailnet's DNS; its own suffix is a route without resolvers, answered by the client itself."""
    dns = tailnet.dns
    routes: dict[str, Any] = {suffix: list(resolvers) for suffix, resolvers in sorted(dns.split.items())}
    if dns.magic_dns:
        routes[tailnet.suffix] = []
    content: dict[str, Any] = {
        "Routes": routes,
        "Domains": [tailnet.suffix, *dns.search_paths] if dns.magic_dns else list(dns.search_paths),
        "Proxied": dns.magic_dns,
    }
    if dns.resolvers:
        content["Resolvers" if dns.override_local else "FallbackResolvers"] = list(dns.resolvers)
    if dns.extra_records:
        content["ExtraRecords"] = list(dns.extra_records)
    return content
