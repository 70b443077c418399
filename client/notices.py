"""Who watches the daemon, and what each is told. Who does not read keeps the newest notices only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

from client.errors import ClientError

MAX_WATCHERS = 64
MAX_NOTICES = 256
Notice = dict[str, Any]


class Watchers:
    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[Notice]] = set()

    def add(self, first: Iterable[Notice]) -> asyncio.Queue[Notice]:
        """A queue with the notices ``first`` in it, for :meth:`remove` in the end; raises ``ClientError``."""
        if len(self._queues) >= MAX_WATCHERS:
            raise ClientError("too many programs watch this daemon already: end some")
        queue: asyncio.Queue[Notice] = asyncio.Queue(MAX_NOTICES)
        for notice in first:
            queue.put_nowait(notice)
        self._queues.add(queue)
        return queue

    def remove(self, queue: asyncio.Queue[Notice]) -> None:
        self._queues.discard(queue)

    def tell(self, notice: Notice) -> None:
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(notice)
