"""The channel layer as the hub uses it: this worker's mailbox, and what it tells other workers and pages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from channels.layers import get_channel_layer

from accounts.changes import LAYER_ERRORS, publish
from controlplane.env import environment

logger = logging.getLogger("trenza.hub")

LAYER_SECONDS = 2.0  # a channel layer that does not answer in this time is away
MOMENTS = ("last_seen", "online_since")


def plain(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts of a node as a message carries them."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else value for name, value in facts.items()
    }


def facts_in(message: Mapping[str, Any]) -> dict[str, Any]:
    """The facts in another worker's message: what :func:`plain` was given there."""
    return {name: _from_plain(name, value) for name, value in message["facts"].items()}


def _from_plain(name: str, value: Any) -> Any:
    if name in MOMENTS and isinstance(value, str):
        return datetime.fromisoformat(value)
    return tuple(value) if name == "endpoints" else value


class Layer:
    """This worker's place on the channel layer. Without one, versions and leases must do."""

    def __init__(self, worker: str) -> None:
        self.worker = worker
        self._layer: Any = None
        self._channel = ""

    async def open(self) -> None:
        self._layer = get_channel_layer()
        self._channel = await self._layer.new_channel()

    async def receive(self) -> dict[str, Any]:
        """The next message of the tailnets that were joined."""
        message: dict[str, Any] = await self._layer.receive(self._channel)
        return message

    async def join(self, tailnet_id: int) -> None:
        """Subscribe to a tailnet's messages, or renew that."""
        try:
            async with asyncio.timeout(LAYER_SECONDS):
                await self._layer.group_add(f"tailnet.{tailnet_id}", self._channel)
        except LAYER_ERRORS as error:
            logger.warning("no messages about tailnet %d for now: %s", tailnet_id, error or "no answer")

    async def leave(self, tailnet_id: int) -> None:
        with contextlib.suppress(*LAYER_ERRORS):
            async with asyncio.timeout(LAYER_SECONDS):
                await self._layer.group_discard(f"tailnet.{tailnet_id}", self._channel)

    async def answer(self, channel: str, result: Mapping[str, str]) -> None:
        """Send what became of a question to the channel that waits for it."""
        with contextlib.suppress(*LAYER_ERRORS):
            async with asyncio.timeout(LAYER_SECONDS):
                await self._layer.send(channel, {"type": "netmap.answer", **result})

    def publish(self, group: str, message: dict[str, Any]) -> None:
        """Send a message to all members of a group, soon."""
        publish(group, message)

    def tell_workers(self, tailnet_id: int, node_id: int, facts: Mapping[str, Any], epoch: int = 0) -> None:
        """Tell the other workers a node's volatile facts; ``epoch`` is its stream's here, 0 = not told."""
        if not environment().scaled:  # no other worker
            return
        self.publish(
            f"tailnet.{tailnet_id}",
            {
                "type": "netmap.volatile",
                "tailnet": tailnet_id,
                "worker": self.worker,
                "node": node_id,
                "epoch": epoch,
                "facts": plain(facts),
            },
        )

    def tell_pages(self, tailnet_id: int, version: int, count: int, node_ids: Collection[int]) -> None:
        """Tell the panel that the rows of these nodes are new; ``count`` grows with each such message."""
        self.publish(
            f"panel.{tailnet_id}",
            {
                "type": "panel.change",
                "tailnet": tailnet_id,
                "version": version,
                "changes": [
                    {"type": "node", "id": node_id, "version": count, "op": "upsert"} for node_id in node_ids
                ],
            },
        )
