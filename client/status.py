"""What the node tells of itself and its peers: the JSON of ``status``, ``whois`` and ``netcheck``. Pure.

Names follow tailscale ipn/ipnstate and client/tailscale/apitype, so that scripts carry over.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from client.magicsock.endpoints import format_address
from client.magicsock.netcheck import Report
from client.magicsock.sock import PathStatus
from client.peerapi.rights import capabilities
from client.prefixes import tailnet_addresses
from client.prefs import Prefs
from client.routing import awaiting_approval, exit_node, is_named
from client.state import State
from wire.control import format_time
from wire.derpmap import DERPMap
from wire.keys import NodePublic
from wire.netmap import NetMap, Node, UserProfile


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """All that a status is made of. ``paths`` by node ID."""

    version: str
    state: State
    tun: bool
    node_key: NodePublic | None
    auth_url: str
    health: Sequence[str]
    control_url: str
    carrier: str
    connected: bool
    hostname: str
    now: datetime
    netmap: NetMap | None = None
    endpoints: Sequence[str] = ()
    home_region: int = 0
    paths: Mapping[int, PathStatus] = field(default_factory=dict)
    prefs: Prefs = field(default_factory=Prefs)


def status_json(situation: Situation, *, peers: bool = True) -> dict[str, Any]:
    netmap = situation.netmap
    addresses = _ips(netmap.node) if netmap else []
    suffix = netmap.magic_dns_suffix if netmap else ""
    content: dict[str, Any] = {
        "Version": situation.version,
        "TUN": situation.tun,
        "BackendState": str(situation.state),
        "HaveNodeKey": situation.node_key is not None,
        "AuthURL": situation.auth_url,
        "TailscaleIPs": addresses,
        "Self": _self(situation),
        "Health": list(situation.health),
        "MagicDNSSuffix": suffix,
        "CurrentTailnet": None,
        "CertDomains": list(netmap.dns_config.cert_domains) if netmap else [],
        "Peer": {},
        "User": {},
        "Control": {
            "URL": situation.control_url,
            "Carrier": situation.carrier,
            "Connected": situation.connected,
        },
    }
    if netmap is None:
        return content
    content["CurrentTailnet"] = {
        "Name": netmap.domain,
        "MagicDNSSuffix": suffix,
        "MagicDNSEnabled": netmap.dns_config.proxied,
    }
    if situation.prefs.uses_exit_node:
        content["ExitNodeStatus"] = _exit_node(netmap, situation.prefs)
    shown = list(netmap.peers.values()) if peers else []
    content["Peer"] = {str(peer.key): _peer(peer, situation) for peer in shown}
    content["User"] = _users([netmap.node, *shown], netmap.user_profiles)
    return content


def _exit_node(netmap: NetMap, prefs: Prefs) -> dict[str, Any]:
    """``ByAdmin``: it was chosen in the server's panel."""
    chosen = exit_node(netmap, prefs)
    return {
        "ID": chosen.stable_id if chosen else prefs.exit_node_id,
        "Online": chosen is not None and chosen.online is not False,
        "TailscaleIPs": list(chosen.addresses) if chosen else [],
        "ByAdmin": prefs.exit_node_by_admin,
    }


def _self(situation: Situation) -> dict[str, Any]:
    if situation.netmap is None:
        key = str(situation.node_key) if situation.node_key else str(NodePublic.zero())
        return {"ID": "", "PublicKey": key, "HostName": situation.hostname, "DNSName": "", "OS": "linux"}
    node = situation.netmap.node
    return _node(node) | {
        "HostName": situation.hostname,
        "OS": "linux",
        "Addrs": list(situation.endpoints),
        "CurAddr": "",
        "Relay": _region_code(situation.netmap.derp_map, situation.home_region or node.home_derp),
        "Online": situation.connected,
        "AdvertisedRoutes": list(situation.prefs.advertise_routes),
        "AwaitingApproval": list(awaiting_approval(node, situation.prefs)),
        "Active": False,
        "RxBytes": 0,
        "TxBytes": 0,
    }


def _peer(peer: Node, situation: Situation) -> dict[str, Any]:
    path = situation.paths.get(peer.id, PathStatus())
    netmap = situation.netmap
    derp_map = netmap.derp_map if netmap else DERPMap()
    handshake = datetime.fromtimestamp(path.last_handshake, UTC) if path.last_handshake else None
    return _node(peer) | {
        "CurAddr": format_address(path.current) if path.current else "",
        "Relay": path.relay_code or _region_code(derp_map, peer.home_derp),
        "RelayReason": path.reason.words if path.reason and not path.current else "",
        "RxBytes": path.rx_bytes,
        "TxBytes": path.tx_bytes,
        "LastHandshake": format_time(handshake),
        "Online": bool(peer.online),
        "Active": path.active,
        "ExitNode": is_named(peer, situation.prefs),
        "InEngine": peer.id in situation.paths,
        "Expired": peer.expired or (peer.key_expiry is not None and peer.key_expiry <= situation.now),
    }


def _node(node: Node) -> dict[str, Any]:
    content: dict[str, Any] = {
        "ID": node.stable_id,
        "NodeID": node.id,
        "PublicKey": str(node.key),
        "HostName": node.hostname or node.name.partition(".")[0],
        "DNSName": node.name,
        "OS": str(node.hostinfo.get("OS", "")),
        "UserID": node.user,
        "TailscaleIPs": _ips(node),
        "AllowedIPs": list(node.routed_prefixes),
        "Addrs": list(node.endpoints),
        "Created": format_time(node.created),
        "LastSeen": format_time(node.last_seen),
        "KeyExpiry": format_time(node.key_expiry),
        "InNetworkMap": True,
        "ExitNode": False,
        "ExitNodeOption": {"0.0.0.0/0", "::/0"} <= set(node.routed_prefixes),
    }
    optional: dict[str, Any] = {
        "Tags": list(node.tags),
        "PrimaryRoutes": list(node.primary_routes),
        "CapMap": dict(node.cap_map),
        "Location": node.hostinfo.get("Location"),
        "sshHostKeys": _texts(node.hostinfo.get("sshHostKeys")),
    }
    return content | {name: value for name, value in optional.items() if value}


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _ips(node: Node) -> list[str]:
    return [text.partition("/")[0] for text in node.addresses]


def _region_code(derp_map: DERPMap, region: int) -> str:
    found = derp_map.regions.get(region)
    return found.region_code if found is not None else ""


def _users(nodes: Sequence[Node], profiles: Mapping[int, UserProfile]) -> dict[str, Any]:
    wanted = sorted({node.user for node in nodes})
    return {str(user): _user(profiles[user]) for user in wanted if user in profiles}


def _user(profile: UserProfile) -> dict[str, Any]:
    return {
        "ID": profile.id,
        "LoginName": profile.login_name,
        "DisplayName": profile.display_name,
        "ProfilePicURL": profile.profile_pic_url,
    }


def find_node(netmap: NetMap, text: str) -> Node | None:
    """This node or a peer by tailnet address (a port behind it is ignored), full name, or host name."""
    wanted = text.strip().rstrip(".").lower()
    address = _address(wanted)
    for node in (netmap.node, *netmap.peers.values()):
        name = node.name.rstrip(".").lower()
        if address is not None and address in _ips(node):
            return node
        if address is None and wanted in (name, name.partition(".")[0]):
            return node
    return next((peer for peer in netmap.peers.values() if peer.hostname.lower() == wanted), None)


def _address(text: str) -> str | None:
    host = text[1:].partition("]")[0] if text.startswith("[") else text
    if host.count(":") == 1:
        host = host.partition(":")[0]
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def whois_json(netmap: NetMap, node: Node) -> dict[str, Any]:
    """``CapMap`` is what the tailnet's rules grant to the node when it talks to this one."""
    profile = netmap.user_profiles.get(node.user) or UserProfile(id=node.user, login_name="")
    granted: dict[str, Any] = {}
    for address in tailnet_addresses(node.addresses):
        granted = granted or capabilities(netmap, address)
    return {"Node": node.to_json(), "UserProfile": _user(profile), "CapMap": granted}


def netcheck_json(report: Report, derp_map: DERPMap, *, now: datetime) -> dict[str, Any]:
    """As ``tailscale netcheck --format=json``, latencies in nanoseconds, with the regions' names."""

    def nanoseconds(latencies: Mapping[int, float]) -> dict[str, int]:
        return {str(region): round(value * 1e9) for region, value in sorted(latencies.items())}

    return {
        "Now": format_time(now),
        "UDP": report.udp,
        "IPv4": report.ipv4,
        "IPv6": report.ipv6,
        "OSHasIPv6": report.os_has_ipv6,
        "MappingVariesByDestIP": report.mapping_varies_by_dest_ip,
        "UPnP": report.upnp,
        "PMP": report.pmp,
        "PCP": report.pcp,
        "PortMapped": format_address(report.mapped) if report.mapped else "",
        "CaptivePortal": report.captive_portal,
        "PreferredDERP": report.preferred_derp,
        "RegionLatency": nanoseconds(report.region_latency),
        "RegionV4Latency": nanoseconds(report.region_v4_latency),
        "RegionV6Latency": nanoseconds(report.region_v6_latency),
        "GlobalV4": format_address(report.global_v4[0]) if report.global_v4 else "",
        "GlobalV6": format_address(report.global_v6[0]) if report.global_v6 else "",
        "Regions": {
            str(region): {"RegionCode": item.region_code, "RegionName": item.region_name}
            for region, item in sorted(derp_map.regions.items())
        },
    }
