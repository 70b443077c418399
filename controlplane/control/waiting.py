"""Requests that are answered once a person has acted: they hear of it, and look now and then."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from channels.layers import get_channel_layer

from accounts.changes import LAYER_ERRORS

logger = logging.getLogger("trenza.control")

Found = TypeVar("Found")

POLL_SECONDS = 15.0  # how often to look again, in case a message was lost
LAYERLESS_SECONDS = 2.0  # the same while there is no channel layer


async def look_or_hear(
    group: str, look: Callable[[], Awaitable[Found]], is_done: Callable[[Found], bool]
) -> Found:
    """Subscribe, look (so that nothing falls between the two), then wait for a message or the next look."""
    try:
        async with asyncio.timeout(POLL_SECONDS):
            async with _heard(group) as heard:
                found = await look()
                if is_done(found):
                    return found
                await heard()
    except TimeoutError:
        pass
    except LAYER_ERRORS as error:
        logger.warning("what waits in %s is looked at every %.0f s only: %s", group, LAYERLESS_SECONDS, error)
        await asyncio.sleep(LAYERLESS_SECONDS)
    return await look()


@contextlib.asynccontextmanager
async def _heard(group: str) -> AsyncIterator[Callable[[], Awaitable[Any]]]:
    """Subscribed to a group; what it yields waits for its next message."""
    layer: Any = get_channel_layer()
    channel = await layer.new_channel()
    await layer.group_add(group, channel)
    try:
        yield lambda: layer.receive(channel)
    finally:
        with contextlib.suppress(*LAYER_ERRORS):
            async with asyncio.timeout(LAYERLESS_SECONDS):
                await layer.group_discard(group, channel)
