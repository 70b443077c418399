"""A device's connections as its page shows them: its peers, by which path each, and why not directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.translation import gettext_lazy as _

from accounts.models import Membership
from nodes.access import visible_nodes
from nodes.models import Node, PathReport, ReportedPath
from wire.paths import MAX_PATHS, Reason

SHOWN = 50
REASONS: Mapping[str, Any] = {
    Reason.IDLE: _("Idle: a direct path is looked for as soon as there is traffic"),
    Reason.LOOKING: _("A direct path is being looked for"),
    Reason.NO_DISCO: _("The other device has not said how to look for a direct path"),
    Reason.NO_ENDPOINTS: _("The other device has not said where it can be reached directly"),
    Reason.UDP_BLOCKED_HERE: _("UDP is blocked on this device's network"),
    Reason.UDP_BLOCKED_THERE: _(
        "The other device knows no public address of its own: UDP may be blocked there"
    ),
    Reason.HARD_NAT_HERE: _("The NAT of this device's network is hard: another port for each destination"),
    Reason.HARD_NAT_THERE: _(
        "The NAT of the other device's network is hard: another port for each destination"
    ),
    Reason.HARD_NAT_BOTH: _("The NATs of both networks are hard: another port for each destination"),
    Reason.SILENT: _(
        "The other device answers at none of its addresses: a firewall or NAT may be in the way"
    ),
    Reason.KEY_EXPIRED: _("The other device's key has ended"),
}


# What a peer says of the other end, said from that end; its other reasons make no sense there.
SEEN_FROM_THERE: Mapping[str, str] = {
    Reason.IDLE: Reason.IDLE,
    Reason.LOOKING: Reason.LOOKING,
    Reason.UDP_BLOCKED_HERE: Reason.UDP_BLOCKED_THERE,
    Reason.UDP_BLOCKED_THERE: Reason.UDP_BLOCKED_HERE,
    Reason.HARD_NAT_HERE: Reason.HARD_NAT_THERE,
    Reason.HARD_NAT_THERE: Reason.HARD_NAT_HERE,
    Reason.HARD_NAT_BOTH: Reason.HARD_NAT_BOTH,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One row: by the relay ``region`` for ``reason``, unless ``direct``.

    ``endpoint`` is where the peer is reached; "" also where only the peer tells (``by_peer``).
    """

    name: str
    stable_id: str
    direct: bool
    endpoint: str
    region: int
    latency_ms: int
    reason: Any
    by_peer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What is known now. ``hidden``: peers that this person may not see, or that are too many."""

    rows: list[Connection]
    hidden: int


def connections_of(node: Node, *, membership: Membership, online: bool, now: datetime) -> Connections | None:
    """What a device says, and what its connected peers say of it where it is silent, as official clients are.

    ``None`` for one that is away, or of which nobody tells: what was said once is over.
    """
    if not online:
        return None
    said = {path.peer_id: path for path in ReportedPath.objects.filter(node=node)}
    heard = ReportedPath.objects.filter(peer=node, node__presence__expires__gt=now)
    told = {path.node_id: path for path in heard.exclude(node_id__in=list(said))[:MAX_PATHS]}
    if not said and not told and not PathReport.objects.filter(node=node).exists():
        return None
    peers = visible_nodes(membership).filter(pk__in=[*said, *told])[:SHOWN]
    rows = [
        _row(peer, said[peer.pk]) if peer.pk in said else _told(peer, told[peer.pk])
        for peer in peers.prefetch_related(None)
    ]
    return Connections(rows=rows, hidden=len(said) + len(told) - len(rows))


def why(path: ReportedPath) -> Any:
    """Why the peer is not reached directly, in the reader's language; "" when it is, or nobody knows."""
    return "" if path.endpoint else REASONS.get(path.reason, "")


def _row(peer: Node, path: ReportedPath) -> Connection:
    return Connection(
        name=peer.name,
        stable_id=peer.stable_id,
        direct=bool(path.endpoint),
        endpoint=path.endpoint,
        region=path.derp_region,
        latency_ms=path.latency_ms,
        reason=why(path),
        by_peer=False,
    )


def _told(peer: Node, path: ReportedPath) -> Connection:
    """By the peer's word: its endpoint and relay are those of this end."""
    return Connection(
        name=peer.name,
        stable_id=peer.stable_id,
        direct=bool(path.endpoint),
        endpoint="",
        region=peer.home_derp,
        latency_ms=path.latency_ms,
        reason="" if path.endpoint else REASONS.get(SEEN_FROM_THERE.get(path.reason, ""), ""),
        by_peer=True,
    )
