"""How a node reaches its peers now, as it tells Trenza's server: ``POST /machine/trenza/paths``.

The body is ``{"NodeKey": …, "Paths": [{NodeID, Direct, Endpoint, DERPRegion, Reason, LatencyMS}]}``: the
peers that it talks to, each whole list in place of the one before. Reasons are codes, so that each side can
say them in its reader's language; one that is not known here is read as none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self

from wire.fields import boolean, integer, lower_names, objects, string
from wire.keys import NodePublic

PATH = "/machine/trenza/paths"
MAX_PATHS = 200
MAX_ENDPOINT = 60
MAX_LATENCY_MS = 60_000


class Reason(StrEnum):
    """Why a peer is reached through a relay."""

    IDLE = "idle"
    LOOKING = "looking"
    NO_DISCO = "no-disco"
    NO_ENDPOINTS = "no-endpoints"
    UDP_BLOCKED_HERE = "udp-blocked-here"
    UDP_BLOCKED_THERE = "udp-blocked-there"
    HARD_NAT_HERE = "hard-nat-here"
    HARD_NAT_THERE = "hard-nat-there"
    HARD_NAT_BOTH = "hard-nat-both"
    SILENT = "silent"
    KEY_EXPIRED = "key-expired"

    @property
    def words(self) -> str:
        """The same as a sentence for the person at this node."""
        return WORDS[self]


WORDS: Mapping[Reason, str] = {
    Reason.IDLE: "idle; a direct path is looked for as soon as there is traffic",
    Reason.LOOKING: "looking for a direct path",
    Reason.NO_DISCO: "the peer has not said how to look for a direct path",
    Reason.NO_ENDPOINTS: "the peer has not said where it can be reached directly",
    Reason.UDP_BLOCKED_HERE: "UDP is blocked on this network",
    Reason.UDP_BLOCKED_THERE: "the peer knows no public address of its own: UDP may be blocked there",
    Reason.HARD_NAT_HERE: "this network's NAT is hard (another port for each destination)",
    Reason.HARD_NAT_THERE: "the NAT of the peer's network is hard (another port for each destination)",
    Reason.HARD_NAT_BOTH: "the NATs of both networks are hard (another port for each destination)",
    Reason.SILENT: "the peer does not answer at any of its addresses; a firewall or NAT may be in the way",
    Reason.KEY_EXPIRED: "the peer's key has expired",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerPath:
    """One peer: its direct ``endpoint`` (``ip:port``), or "" = by ``derp_region``, for ``reason``.

    ``latency_ms`` is how long the direct path takes, there and back; 0 = not known.
    """

    node_id: int
    endpoint: str = ""
    derp_region: int = 0
    reason: Reason | None = None
    latency_ms: int = 0

    def to_json(self) -> dict[str, Any]:
        return {
            "NodeID": self.node_id,
            "Direct": bool(self.endpoint),
            "Endpoint": self.endpoint,
            "DERPRegion": self.derp_region,
            "Reason": str(self.reason or ""),
            "LatencyMS": self.latency_ms,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises :class:`MessageError`."""
        f = lower_names(content)
        endpoint = string(f, "endpoint", max_length=MAX_ENDPOINT) if boolean(f, "direct") else ""
        code = string(f, "reason", max_length=MAX_ENDPOINT)
        return cls(
            node_id=integer(f, "nodeid"),
            endpoint="".join(filter(str.isprintable, endpoint)),
            derp_region=max(0, integer(f, "derpregion")),
            reason=Reason(code) if code in WORDS else None,
            latency_ms=min(max(0, integer(f, "latencyms")), MAX_LATENCY_MS),
        )


def report_json(node_key: NodePublic, paths: Iterable[PeerPath]) -> dict[str, Any]:
    """The whole body."""
    return {"NodeKey": str(node_key), "Paths": [path.to_json() for path in paths][:MAX_PATHS]}


def parse_paths(content: Mapping[str, Any]) -> tuple[PeerPath, ...]:
    """The body's ``Paths``; raises :class:`MessageError`, also for more than :data:`MAX_PATHS`."""
    return tuple(map(PeerPath.from_json, objects(lower_names(content), "paths", MAX_PATHS)))
