"""Rotating this node's key before it runs out, where the server says that this starts a fresh period.

Trenza's server says so in the node's own capabilities (``trenza/renew-by-rotation``: from how many seconds
before the end on); other servers do not, and there a person signs in again when the key has run out.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from client.errors import ClientError
from wire.netmap import NetMap

logger = logging.getLogger("trenzad")

CAPABILITY = "trenza/renew-by-rotation"
LOOK_SECONDS = 30.0
AGAIN_SECONDS = 3600.0  # after a rotation, also one that failed or changed nothing


def is_due(netmap: NetMap, now: datetime) -> bool:
    """Whether the key is so near its end that the server lets this node renew it. Pure."""
    node = netmap.node
    if node.key_expiry is None or node.expired:
        return False
    granted = node.cap_map.get(CAPABILITY) or ()
    terms = granted[0] if granted and isinstance(granted[0], dict) else {}
    within = terms.get("WithinSeconds")
    if isinstance(within, bool) or not isinstance(within, int | float):
        return False
    return node.key_expiry - now < timedelta(seconds=min(within, timedelta.max.total_seconds() / 2))


class Renewal:
    """Looks now and then; ``netmap`` and ``now`` (the server's time) are the node's."""

    def __init__(
        self,
        *,
        netmap: Callable[[], NetMap | None],
        now: Callable[[], datetime],
        rotate: Callable[[], Awaitable[None]],
        spread: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._netmap = netmap
        self._now = now
        self._rotate = rotate
        self._spread = spread

    async def run(self) -> None:
        """Look until cancelled; many nodes that joined together do not renew together."""
        while True:
            await asyncio.sleep(LOOK_SECONDS * self._spread(0.5, 1.5))
            netmap = self._netmap()
            if netmap is not None and is_due(netmap, self._now()):
                await self._renew()
                await asyncio.sleep(AGAIN_SECONDS * self._spread(0.5, 1.5))

    async def _renew(self) -> None:
        try:
            await self._rotate()
        except (ClientError, TimeoutError) as error:
            logger.info("the node key could not be renewed: %s", error or "no tunnel in time")
        else:
            logger.info("the node key was near its end: renewed")
