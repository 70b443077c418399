"""Questions to clients that come over the channel layer (:mod:`nodes.services.asking`)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from controlplane.hub.layer import Layer
from controlplane.netmap.snapshot import NodeSnapshot

logger = logging.getLogger("trenza.hub")

# Asks a client over its stream: tailnet, node, its machine key, a raw HTTP/1.x request; gives the raw answer.
Asker = Callable[[int, int, str, bytes], Awaitable[bytes]]


class ClientSilent(Exception):
    """The client has no stream here, or did not answer in time."""


async def ask(asker: Asker | None, node: NodeSnapshot, message: Mapping[str, Any], layer: Layer) -> None:
    """Have a client that holds its stream here answer; who waits for that is told, or why there is none."""
    try:
        if asker is None:
            raise ClientSilent("this process asks nobody")
        request = message["request"].encode("latin-1")
        answer = await asker(message["tailnet"], node.id, node.machine_key, request)
        result = {"response": answer.decode("latin-1")}
    except ClientSilent as error:
        logger.info("%s was asked in vain: %s", node.name, error)
        result = {"error": str(error)}
    if message["reply"]:
        await layer.answer(message["reply"], result)
