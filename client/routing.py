"""Whose prefixes are used for what: exit node, accepted subnets, and what became of one's own offers. Pure.

A netmap says where each peer *may* be a way to; :func:`in_use` leaves in it what this node wants of that, and
everything below (WireGuard's allowed IPs, routes) follows the netmap that it returns.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache

from client.prefixes import EXIT_ROUTES, MAX_CACHED, TAILNET_RANGES, Network, in_tailnet
from client.prefs import Prefs
from wire.netmap import NetMap, Node

# Both default routes, each without the range that tailnets' own addresses come from.
OUTSIDE: dict[Network, tuple[Network, ...]] = {
    whole: tuple(whole.address_exclude(tailnet))  # type: ignore[arg-type]
    for whole, tailnet in zip(EXIT_ROUTES, TAILNET_RANGES, strict=True)
}
# In this node's own CapMap: all its prefixes that are approved, also those that another router serves now.
APPROVED_ROUTES = "trenza/approved-routes"


def networks(texts: Iterable[str]) -> Iterator[Network]:
    """The prefixes among a server's texts, in order; what is none is left out."""
    found = map(_network, texts)
    return (network for network in found if network is not None)


@lru_cache(MAX_CACHED)
def _network(text: str) -> Network | None:
    if "%" in text:
        return None
    try:
        return ipaddress.ip_network(text)
    except ValueError:
        return None


def allowed_ips(node: Node) -> tuple[str, ...]:
    """What WireGuard lets a peer send from, and sends to it, by a netmap :func:`in_use`.

    An exit node is everybody but the tailnet: else it could pass for a peer that is not there (any more).
    """
    found = networks(node.routed_prefixes)
    return tuple(str(part) for network in found for part in OUTSIDE.get(network, (network,)))


def is_subnet(network: Network) -> bool:
    """Whether a prefix is a network behind a router: not the tailnet, not everything, not a host's own."""
    return not (
        network.prefixlen == 0
        or network.is_loopback
        or network.is_multicast
        or network.is_link_local
        or in_tailnet(network)
    )


def is_exit_node(node: Node) -> bool:
    """Whether the server lets it be one: it has both default routes."""
    return set(EXIT_ROUTES) <= set(networks(node.routed_prefixes))


def exit_node(netmap: NetMap, prefs: Prefs) -> Node | None:
    """The peer that the preferences name, whether it may be an exit node or not."""
    if not prefs.uses_exit_node:
        return None
    return next((peer for peer in netmap.peers.values() if is_named(peer, prefs)), None)


def is_named(peer: Node, prefs: Prefs) -> bool:
    """Whether a peer is the exit node that the preferences name."""
    if prefs.exit_node_id:
        return peer.stable_id == prefs.exit_node_id
    named = prefs.exit_node_ip
    return bool(named) and any(text.partition("/")[0] == named for text in peer.addresses)


def in_use(netmap: NetMap, prefs: Prefs) -> NetMap:
    """``netmap`` with each peer's allowed IPs reduced to what is used of them.

    That is its tailnet addresses; with accept-routes the subnets behind it, each from one peer alone; and
    everything, from the chosen exit node. Peers that nothing changes for stay the same objects.
    """
    routers = _routers(netmap) if prefs.accept_routes else {}
    chosen = exit_node(netmap, prefs)
    changed = {}
    for peer in netmap.peers.values():
        offered = tuple(networks(peer.routed_prefixes))
        used = [
            network
            for network in offered
            if in_tailnet(network)
            or routers.get(network) == peer.id
            or (network in EXIT_ROUTES and peer is chosen and is_exit_node(peer))
        ]
        if len(used) < len(peer.routed_prefixes):
            changed[peer.id] = replace(peer, allowed_ips=tuple(map(str, used)))
    return replace(netmap, peers={**netmap.peers, **changed}) if changed else netmap


def _routers(netmap: NetMap) -> dict[Network, int]:
    """Who leads to each subnet, one peer for each: the primary, else one that is there, else the first."""
    best: dict[Network, tuple[bool, bool, int]] = {}
    for peer in netmap.peers.values():
        primary = set(networks(peer.primary_routes))
        for network in filter(is_subnet, networks(peer.routed_prefixes)):
            rank = (network not in primary, not peer.online, peer.id)
            best[network] = min(rank, best.get(network, rank))
    return {network: node_id for network, (_, _, node_id) in best.items()}


def accepted_subnets(netmap: NetMap) -> frozenset[Network]:
    """The subnets that a netmap :func:`in_use` leads to."""
    return frozenset(
        network
        for peer in netmap.peers.values()
        if peer.allowed_ips is not None
        for network in networks(peer.allowed_ips)
        if is_subnet(network)
    )


def resolved(netmap: NetMap, prefs: Prefs) -> Prefs:
    """``prefs`` with the exit node's ID instead of its address, once the netmap tells it."""
    chosen = exit_node(netmap, prefs) if not prefs.exit_node_id else None
    if chosen is None or not chosen.stable_id:
        return prefs
    return replace(prefs, exit_node_id=chosen.stable_id, exit_node_ip="")


def exit_trouble(netmap: NetMap | None, prefs: Prefs) -> str:
    """Why nothing gets out though an exit node is wanted; "" when nothing is wrong."""
    if not prefs.uses_exit_node or netmap is None:
        return ""
    chosen = exit_node(netmap, prefs)
    if chosen is None:
        why = f"the exit node {prefs.exit_node_id or prefs.exit_node_ip} is not in this tailnet (any more)"
    elif not is_exit_node(chosen):
        why = f"{_label(chosen)} is no exit node: it does not offer to be one, or is not approved"
    elif chosen.expired:
        why = f"the key of the exit node {_label(chosen)} has expired"
    elif chosen.online is False:
        why = f"the exit node {_label(chosen)} is offline"
    else:
        return ""
    return f"{why}: traffic to the internet is blocked (trenza set --exit-node= lets it out directly)"


def awaiting_approval(node: Node, prefs: Prefs) -> tuple[str, ...]:
    """Which of the offered prefixes the server has not approved (yet), as far as it says."""
    told = node.cap_map.get(APPROVED_ROUTES)
    approved = {text for text in told if isinstance(text, str)} if isinstance(told, list | tuple) else set()
    approved |= set(node.routed_prefixes) | set(node.primary_routes)
    return tuple(route for route in prefs.advertise_routes if route not in approved)


def awaiting_words(routes: Iterable[str]) -> str:
    """Prefixes as a person calls them: both default routes are an exit node."""
    defaults = set(map(str, EXIT_ROUTES))
    found = list(routes)
    words = [route for route in found if route not in defaults]
    return ", ".join(["being an exit node", *words] if defaults & set(found) else words)


def _label(node: Node) -> str:
    return node.name.partition(".")[0] or node.stable_id
