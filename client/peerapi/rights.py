"""Who may do what: the rights of a peer here, and ours there, as the netmap has them. Pure.

Source: tailscale feature/taildrop (canPutFile, FileTargets), ipn/ipnlocal/peerapi.go (replyToDNSQueries).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from client.net.rules import comes_from, leads_to
from client.prefixes import IPAddress, tailnet_addresses
from wire.fields import lower_names
from wire.netmap import NetMap, Node

FILE_SHARING = "https://tailscale.com/cap/file-sharing"  # of a node: its tailnet allows it at all
FILE_TARGET = "https://tailscale.com/cap/file-sharing-target"  # of a peer: it takes our files
FILE_SEND = "https://tailscale.com/cap/file-send"  # of a peer: we take its files
EXIT_ROUTES = ("0.0.0.0/0", "::/0")
# What stands for "the internet" in a question to the filter: the first address of each kind.
INTERNET = {4: ipaddress.ip_address("0.0.0.0"), 6: ipaddress.ip_address("2000::")}  # noqa: S104
DNS_PORT = 53
MAX_CAPS = 1000


def peer_at(netmap: NetMap, address: IPAddress) -> Node | None:
    """The peer that has a tailnet address; ``None`` for nobody's, and for what a peer only routes."""
    for peer in netmap.peers.values():
        if address in tailnet_addresses(peer.addresses):
            return peer
    return None


def capabilities(netmap: NetMap, address: IPAddress) -> dict[str, list[Any]]:
    """What the rules grant to whoever has ``address`` when it talks to this node, with the values."""
    own = [ip for ip in tailnet_addresses(netmap.node.addresses) if ip.version == address.version]
    granted: dict[str, list[Any]] = {}
    for rule in netmap.filter_rules or ():
        if rule.cap_grants and comes_from(rule, address, netmap.peers):
            for grant in rule.cap_grants:
                for name, values in _granted(grant, own):
                    granted.setdefault(name, []).extend(values)
    return granted


def _granted(grant: Any, own: list[IPAddress]) -> Iterator[tuple[str, list[Any]]]:
    """Names with their values; malformed members grant nothing."""
    members = lower_names(grant)
    places = [network for network in map(_network, _items(members.get("dsts"))) if network is not None]
    if any(address in network for network in places for address in own):
        yield from ((cap, []) for cap in _items(members.get("caps")) if isinstance(cap, str))
        named = members.get("capmap")
        for cap, values in named.items() if isinstance(named, dict) else ():
            yield cap, _items(values)


def _items(value: Any) -> list[Any]:
    return value[:MAX_CAPS] if isinstance(value, list) else []


def _network(text: Any) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(text) if isinstance(text, str) else None
    except ValueError:
        return None


def has_capability(netmap: NetMap, peer: Node, name: str) -> bool:
    return any(name in capabilities(netmap, address) for address in tailnet_addresses(peer.addresses))


def shares_files(netmap: NetMap) -> bool:
    """Whether the tailnet lets this node send and take files."""
    return FILE_SHARING in netmap.node.cap_map


def may_send_files(netmap: NetMap, peer: Node) -> bool:
    """Whether this node takes files of ``peer``: it is the same person's, or the rules say so."""
    return shares_files(netmap) and (_same_person(netmap, peer) or has_capability(netmap, peer, FILE_SEND))


def takes_files(netmap: NetMap, peer: Node) -> bool:
    """Whether ``peer`` should take files of ours."""
    if not shares_files(netmap) or peer.hostinfo.get("OS") == "tvOS" or not peerapi_ports(peer):
        return False
    return _same_person(netmap, peer) or has_capability(netmap, peer, FILE_TARGET)


def why_not_target(netmap: NetMap, peer: Node) -> str:
    """Why ``peer`` does not take our files; "" when it does."""
    if not shares_files(netmap):
        return "cannot send files: this tailnet does not allow file sharing"
    if not peerapi_ports(peer):
        return "cannot send files: target is not advertising a file sharing API"
    if not takes_files(netmap, peer):
        return "cannot send files: peer is owned by a different user"
    return ""


def _same_person(netmap: NetMap, peer: Node) -> bool:
    """Tagged nodes belong to nobody."""
    return not netmap.node.tags and not peer.tags and netmap.node.user == peer.user


def peerapi_ports(peer: Node) -> dict[int, int]:
    """Where a peer says that its PeerAPI is: port by IP version."""
    services = lower_names(peer.hostinfo).get("services")
    ports = {}
    for service in services if isinstance(services, list) else ():
        if isinstance(service, dict):
            members = lower_names(service)
            version = {"peerapi4": 4, "peerapi6": 6}.get(str(members.get("proto")))
            port = members.get("port")
            if version and isinstance(port, int) and 0 < port <= 65535:
                ports[version] = port
    return ports


def peerapi_places(netmap: NetMap, peer: Node) -> list[tuple[IPAddress, int]]:
    """Addresses and ports of a peer's PeerAPI that this node has a family for, IPv4 first."""
    own = {address.version for address in tailnet_addresses(netmap.node.addresses)}
    ports = peerapi_ports(peer)
    usable = [
        address
        for address in tailnet_addresses(peer.addresses)
        if address.version in own and address.version in ports
    ]
    return [
        (address, ports[address.version]) for address in sorted(usable, key=lambda address: address.version)
    ]


def offers_exit(node: Node) -> bool:
    """Whether a node is an exit node: approved, for both kinds of address."""
    return set(EXIT_ROUTES) <= set(node.routed_prefixes)


def may_resolve(netmap: NetMap, peer: Node, address: IPAddress) -> bool:
    """Whether ``peer``, at ``address``, may look up names here.

    It is the same person's, or the rules let it reach the internet through us.
    """
    internet = INTERNET[address.version]
    by_rule = (
        comes_from(rule, address, netmap.peers) and leads_to(rule, internet, DNS_PORT)
        for rule in netmap.filter_rules or ()
    )
    return offers_exit(netmap.node) and (_same_person(netmap, peer) or any(by_rule))


def behind_shields(netmap: NetMap) -> NetMap:
    """As it is with shields up: no rule lets anybody in nor grants anything. Who is whose remains."""
    return replace(netmap, packet_filters={})
