"""How WireGuard carried it: bytes to and from each peer, by where the peer was reached. Pure.

A flow's ``src`` is the peer, its ``dst`` where its packets went: its endpoint, or 127.3.3.40 with the relay's
region for a port, as in Tailscale's own logs. WireGuard counts no packets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from client.flows.sorting import MOST, bounded
from client.magicsock.endpoints import format_address
from client.magicsock.results import PathStatus
from client.prefixes import tailnet_addresses
from wire.flows import MAX_PORT, Flow, Flows, format_end
from wire.netmap import LEGACY_DERP_IP, NetMap

MAX_PLACES = 4 * MOST["physical"]  # that are told apart within a period


class Carried:
    """``paths``: how much was counted up to now, by node ID; that is not of this time."""

    def __init__(self, paths: Mapping[int, PathStatus]) -> None:
        self._counted = {node_id: (path.tx_bytes, path.rx_bytes) for node_id, path in paths.items()}
        self._flows: dict[tuple[int, str], Flow] = {}

    def see(self, paths: Mapping[int, PathStatus], netmap: NetMap) -> None:
        """What has grown since the last look took the path that is used now."""
        for node_id, path in paths.items():
            before, now = self._counted.get(node_id, (0, 0)), (path.tx_bytes, path.rx_bytes)
            self._counted[node_id] = now
            sent, received = (new - old if new >= old else new for new, old in zip(now, before, strict=True))
            source = _address(netmap, node_id)
            if source and (sent or received):
                self._add(node_id, source, _reached(path), sent, received)

    def _add(self, node_id: int, source: str, place: str, sent: int, received: int) -> None:
        known = self._flows.get((node_id, place))
        if known is None and len(self._flows) >= MAX_PLACES:
            return
        flow = known or Flow(src=source, dst=place)
        self._flows[node_id, place] = replace(
            flow, tx_bytes=flow.tx_bytes + sent, rx_bytes=flow.rx_bytes + received
        )

    def take(self) -> Flows:
        """What has been seen since the last time."""
        flows, self._flows = self._flows, {}
        return bounded(flows.values(), MOST["physical"])


def _reached(path: PathStatus) -> str:
    if path.current is not None:
        return format_address((path.current[0].partition("%")[0], path.current[1]))
    return f"{LEGACY_DERP_IP}{path.relay_region if path.relay_region <= MAX_PORT else 0}"


def _address(netmap: NetMap, node_id: int) -> str:
    peer = netmap.peers.get(node_id)
    address = next(tailnet_addresses(peer.addresses), None) if peer is not None else None
    return format_end(address, 0) if address is not None else ""
