"""Signs of life of routers whose subnets another node could carry.

A dead link says nothing, and TCP waits long for it. Where somebody could take over, that wait is an outage:
such routers are asked every two seconds over their control connection, and soon given up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from controlplane.netmap.primaries import redundant_routers

if TYPE_CHECKING:
    from controlplane.hub import Room, Subscriber

PROBE_SECONDS = 2.0
SILENT_PROBES = 4  # owing this many answers counts as being away, as a closed stream does after ten seconds


def silent_routers(room: Room) -> list[Subscriber]:
    """Ask every redundant router whose stream is here once more; those that owe too many answers."""
    asked = redundant_routers(room.snapshot.nodes.values()) & room.subscribers.keys()
    subscribers = [room.subscribers[node_id] for node_id in sorted(asked)]
    return [one for one in subscribers if one.stream.ping() > SILENT_PROBES]
