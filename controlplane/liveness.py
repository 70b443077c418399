"""Signs of life of routers whose subnets another node could carry.

A dead link says nothing, and TCP waits long for it. Where somebody could take over, that wait is an outage:
such routers are asked every two seconds over their control connection, and soon given up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from controlplane.netmap.primaries import redundant_routers
from controlplane.netmap.snapshot import TailnetSnapshot

PROBE_SECONDS = 2.0
SILENT_PROBES = 4  # owing this many answers counts as being away, as a closed stream does after ten seconds


class Pinged(Protocol):
    """A node's stream here."""

    def ping(self) -> int: ...


def silent_routers(tailnet: TailnetSnapshot, streams: Mapping[int, Pinged]) -> list[int]:
    """Ask every redundant router whose stream is here once more; those that owe too many answers."""
    asked = sorted(redundant_routers(tailnet.nodes.values()) & streams.keys())
    return [node_id for node_id in asked if streams[node_id].ping() > SILENT_PROBES]
