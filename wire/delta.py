"""How a client's netmap follows the messages of its map stream. Pure.

Source: tailscale control/controlclient/map.go (updateStateFromResponse), types/netmap/nodemut.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from wire.errors import MessageError
from wire.netmap import CLEAR_ALL, FilterRule, MapResponse, NetMap, Node, PeerChange


def apply(netmap: NetMap | None, response: MapResponse, now: datetime | None = None) -> NetMap:
    """The netmap after one message; raises :class:`MessageError` when the first one lacks this node.

    ``now`` is the time that a ``PeerSeenChange`` of true stands for (``None`` leaves LastSeen alone).
    """
    if netmap is None:
        if response.node is None:
            raise MessageError("the first map message lacks this node")
        netmap = NetMap(node=response.node)
    changes: dict[str, Any] = {"peers": _peers(netmap.peers, response, now)}
    if response.node is not None:
        changes["node"] = response.node
    if response.derp_map is not None:
        changes["derp_map"] = response.derp_map
    if response.dns_config is not None:
        changes["dns_config"] = response.dns_config
    if response.domain:
        changes["domain"] = response.domain
    if response.packet_filters is not None:
        changes["packet_filters"] = _filters(netmap.packet_filters or {}, response.packet_filters)
    if response.user_profiles:
        changes["user_profiles"] = dict(netmap.user_profiles) | {
            user.id: user for user in response.user_profiles
        }
    if response.ssh_policy is not None:
        changes["ssh_policy"] = response.ssh_policy
    if response.health is not None:
        changes["health"] = response.health
    return replace(netmap, **changes)


def _peers(old: Mapping[int, Node], response: MapResponse, now: datetime | None) -> Mapping[int, Node]:
    """Peers replaces all and silences the deltas beside it; patches come last and override online changes."""
    if response.peers:
        return {node.id: node for node in sorted(response.peers, key=lambda node: node.id)}
    if not (
        response.peers_changed
        or response.peers_removed
        or response.peers_changed_patch
        or response.online_change
        or response.peer_seen_change
    ):
        return old
    peers = dict(old)
    for removed in response.peers_removed:
        peers.pop(removed, None)
    for node in response.peers_changed:
        peers[node.id] = node
    for node_id, seen in response.peer_seen_change.items():
        if node_id in peers and (now is not None or not seen):
            peers[node_id] = replace(peers[node_id], last_seen=now if seen else None)
    for node_id, online in response.online_change.items():
        if node_id in peers:
            peers[node_id] = replace(peers[node_id], online=online)
    for patch in response.peers_changed_patch:
        if patch.node_id in peers:
            peers[patch.node_id] = patched(peers[patch.node_id], patch)
    return dict(sorted(peers.items()))


def patched(node: Node, patch: PeerChange) -> Node:
    """A node after a patch."""
    changes: dict[str, Any] = {}
    if patch.derp_region:
        changes["home_derp"] = patch.derp_region
    if patch.cap:
        changes["cap"] = patch.cap
    for name in ("cap_map", "endpoints", "key", "disco_key", "online", "last_seen", "key_expiry"):
        value = getattr(patch, name)
        if value is not None:
            changes[name] = value
    if patch.clears_key_expiry:
        changes["key_expiry"] = None
    return replace(node, **changes)


def _filters(
    old: Mapping[str, tuple[FilterRule, ...]], update: Mapping[str, tuple[FilterRule, ...] | None]
) -> dict[str, tuple[FilterRule, ...]]:
    """Named filters: a null member deletes, ``"*": null`` first clears all."""
    filters = {} if CLEAR_ALL in update and update[CLEAR_ALL] is None else dict(old)
    for name, rules in update.items():
        if rules is not None:
            filters[name] = rules
        elif name != CLEAR_ALL:
            filters.pop(name, None)
    return filters
