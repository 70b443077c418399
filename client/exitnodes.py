"""Choosing an exit node: the one that is suggested, and the one that an administrator sets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from client.backend import Backend
from client.errors import ClientError, PeerNotFound, PrefsError
from client.routing import exit_node, is_exit_node
from wire.codec import decode_object
from wire.errors import WireError
from wire.fields import lower_names, string
from wire.netmap import NetMap, Node

SUGGESTED = "suggest-exit-node"  # what the server recommends has it: tailcfg (NodeAttrSuggestExitNode)
MAX_STABLE_ID = 64


def region_latencies(by_address: Mapping[str, float]) -> dict[int, float]:
    """Seconds by region, of NetInfo's ``900-v4``: …, ``900-v6``: …. Pure."""
    best: dict[int, float] = {}
    for name, seconds in by_address.items():
        region = name.partition("-")[0]
        if region.isdigit():
            best[int(region)] = min(seconds, best.get(int(region), seconds))
    return best


def suggestion(netmap: NetMap, latencies: Mapping[int, float]) -> Node | None:
    """Of the exit nodes that are there the one with the nearest home relay, recommended ones first. Pure."""
    there = [
        peer for peer in netmap.peers.values() if is_exit_node(peer) and peer.online and not peer.expired
    ]
    recommended = [peer for peer in there if SUGGESTED in peer.cap_map]
    return min(
        recommended or there,
        key=lambda peer: (latencies.get(peer.home_derp, float("inf")), peer.name, peer.id),
        default=None,
    )


class ExitNodes:
    """Acts on a :class:`client.backend.Backend`; every method raises :class:`client.errors.ClientError`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def suggest(self) -> dict[str, str]:
        """As tailscale client/tailscale/apitype (ExitNodeSuggestionResponse)."""
        info = self._backend.follower.net_info
        found = suggestion(self._netmap(), region_latencies(info.derp_latency if info else {}))
        if found is None:
            raise PeerNotFound("no exit node is there now: trenza exit-node list shows which there are")
        return {"ID": found.stable_id, "Name": found.name}

    async def set_by_admin(self, body: bytes) -> None:
        """``{"ExitNodeID": …}`` from the server: that node, or with an empty ID none."""
        wanted = _wanted(body)
        prefs = self._backend.store.prefs.edited({"ExitNodeID": wanted, "ExitNodeIP": ""})
        if wanted:
            chosen = exit_node(self._netmap(), prefs)
            if chosen is None:
                raise PeerNotFound(f"this device knows no node {wanted}")
            if not is_exit_node(chosen):
                raise PrefsError(f"{chosen.name.partition('.')[0]} is no approved exit node")
        self._backend.set_prefs(prefs.edited({"ExitNodeByAdmin": bool(wanted)}))
        self._backend.reconcile()

    def _netmap(self) -> NetMap:
        netmap = self._backend.netmap
        if netmap is None:
            raise ClientError("there is no network map yet: trenza up first")
        return netmap


def _wanted(body: bytes) -> str:
    try:
        members: dict[str, Any] = lower_names(decode_object(body))
        if "exitnodeid" not in members:
            raise PrefsError("ExitNodeID is missing")
        return string(members, "exitnodeid", max_length=MAX_STABLE_ID)
    except WireError as error:
        raise PrefsError(f"a JSON object with an ExitNodeID is expected: {error}") from error
