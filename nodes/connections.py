"""A device's connections as its page shows them: its peers, by which path each, and why not directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext_lazy as _

from accounts.models import Membership
from nodes.access import visible_nodes
from nodes.models import Node, PathReport, ReportedPath
from wire.paths import Reason

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """One row. ``endpoint`` "" = by the relay ``region``, for ``reason``."""

    name: str
    stable_id: str
    endpoint: str
    region: int
    reason: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Connections:
    """What a device said last. ``hidden``: peers that this person may not see, or that are too many."""

    rows: list[Connection]
    hidden: int


def connections_of(node: Node, *, membership: Membership, online: bool) -> Connections | None:
    """``None`` for a device that is away, or whose client does not tell: what it said once is over."""
    if not online or not PathReport.objects.filter(node=node).exists():
        return None
    paths = {path.peer_id: path for path in ReportedPath.objects.filter(node=node)}
    peers = visible_nodes(membership).filter(pk__in=list(paths))[:SHOWN]
    rows = [_row(peer, paths[peer.pk]) for peer in peers.prefetch_related(None)]
    return Connections(rows=rows, hidden=len(paths) - len(rows))


def why(path: ReportedPath) -> Any:
    """Why the peer is not reached directly, in the reader's language; "" when it is, or nobody knows."""
    return "" if path.endpoint else REASONS.get(path.reason, "")


def _row(peer: Node, path: ReportedPath) -> Connection:
    return Connection(
        name=peer.name,
        stable_id=peer.stable_id,
        endpoint=path.endpoint,
        region=path.derp_region,
        reason=why(path),
    )
