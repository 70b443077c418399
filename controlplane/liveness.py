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
    """Ask every redundant router whose stream is here once more; those that owe too many answers.

    Where all of a group are silent nobody could take over, and it is rather our own network that is away:
    they are left in peace, for what their peers have may well work.
    """
    groups = redundant_routers(tailnet.nodes.values())
    asked = frozenset[int]().union(*groups) & streams.keys()
    silent = {node_id for node_id in asked if streams[node_id].ping() > SILENT_PROBES}
    return sorted({node_id for group in groups if group - silent for node_id in group & silent})
