"""The hub: one per web worker. It holds the engine of every tailnet with streams here and pushes changes.

==============  ==========================================================================================
``hub``         the hub as a whole, and what the control protocol asks of it
``rooms``       which tailnets are loaded; ``room``: one of them, put together from the parts below
``audience``    who listens: nodes' streams, and those of machines that share a node's keys
``refresh``     durable changes: rows that changed are read, the difference is pushed
``facts``       volatile facts: reported, pushed at once; ``reports`` keeps them and writes them behind
``pushing``     the engine's steps, in order, to those they concern; whole maps
``presence``    claims, leases, going offline
``expiry``      keys that end; ``nodekeys``: whose a key is
``clockwork``   what happens by the clock, in all rooms
``asking``      questions to clients
``database``    all that is read and written; ``layer``: messages of the channel layer
==============  ==========================================================================================

Truth is ``Tailnet.netmap_version``. Messages of the channel layer say that rows changed; a lost, reordered or
foreign change is caught by comparing versions once a second. Volatile facts (endpoints, disco keys, home
relays, who is online) are pushed at once, kept in the snapshot, merged over reloads, and written behind.
"""

from __future__ import annotations

import os
import secrets

from controlplane.hub.asking import ClientSilent
from controlplane.hub.database import Database
from controlplane.hub.hub import Hub
from controlplane.hub.layer import Layer
from controlplane.services import evaluations

__all__ = ["ClientSilent", "Hub", "get_hub", "start_hub", "stop_hub"]

_hub: Hub | None = None


async def start_hub() -> Hub:
    """Make and start this process's hub."""
    global _hub  # noqa: PLW0603 - one hub per process, made at start-up
    worker = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
    _hub = Hub(Database(worker), Layer(worker))
    await _hub.start()
    evaluations.follow(_hub.snapshot_of)
    return _hub


async def stop_hub() -> None:
    global _hub  # noqa: PLW0603
    if _hub is not None:
        evaluations.follow(None)
        await _hub.stop()
        _hub = None


def get_hub() -> Hub:
    """This process's hub; raises ``RuntimeError`` outside a running web worker."""
    if _hub is None:
        raise RuntimeError("no hub runs in this process")
    return _hub
