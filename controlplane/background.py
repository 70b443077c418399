"""Tasks in the background: those of one component are started in one place and end together. No Django."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

logger = logging.getLogger("trenza.tasks")

RETRY_SECONDS = 1.0  # after what failed, before it is tried again


class Tasks:
    """What a component has running; nothing of it outlives :meth:`stop`."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def spawn(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    def repeat(self, step: Callable[[], Awaitable[None]]) -> None:
        """Run a step, which does its own waiting, over and over."""
        self.spawn(self._forever(step))

    async def _forever(self, step: Callable[[], Awaitable[None]]) -> None:
        """A failed round is logged and the next one tries again."""
        while True:
            try:
                await step()
            except asyncio.CancelledError:
                raise
            except Exception:  # the edge of a task: it outlives a database or a Redis that is away
                logger.exception("%s failed; trying again", step.__name__)
                await asyncio.sleep(RETRY_SECONDS)

    async def stop(self) -> None:
        for task in list(self._running):
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)
