"""Files of peers on their way into the inbox: taken piece by piece, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from client.http1 import Body, BrokenOff
from client.peerapi.inbox import Inbox, InboxError, Incoming, Waiting

logger = logging.getLogger("trenzad.peerapi")

WRITE_BYTES = 512 * 1024  # gathered before a thread writes it
SWEEP_SECONDS = 600.0
MAX_WAIT_SECONDS = 3600.0


class Taildrop:
    """The inbox for the event loop. ``now`` gives seconds as file times are."""

    def __init__(self, folder: Callable[[], Path], now: Callable[[], float]) -> None:
        self._inbox = Inbox(folder)
        self._now = now
        self._arrived = asyncio.Event()

    # --- for peers ---------------------------------------------------------------------------------------

    async def partials(self, sender: str) -> list[str]:
        return await asyncio.to_thread(self._inbox.partials, sender)

    async def partial(self, sender: str, name: str) -> BinaryIO | None:
        """What is here of a file that ``sender`` began to send."""
        return await asyncio.to_thread(self._inbox.partial, sender, name)

    async def receive(self, sender: str, name: str, offset: int, body: Body) -> int:
        """Take a file, from ``offset`` on; returns its whole size. What came of a broken one stays a while.

        Raises ``ClientError``, ``OSError``, ``TimeoutError``.
        """
        incoming = await asyncio.to_thread(self._inbox.begin, sender, name, offset, body.size)
        try:
            await self._copy(body, incoming)
            size = await asyncio.to_thread(incoming.finish)
        finally:
            incoming.close()
        self._arrived.set()
        self._arrived = asyncio.Event()
        return size

    async def _copy(self, body: Body, incoming: Incoming) -> None:
        pieces: list[bytes] = []
        try:
            while piece := await body.read():
                pieces.append(piece)
                if sum(map(len, pieces)) >= WRITE_BYTES:
                    block, pieces = b"".join(pieces), []
                    await asyncio.to_thread(incoming.write, block)
        except (BrokenOff, OSError, TimeoutError):  # what came until then need not be sent again
            await asyncio.to_thread(incoming.write, b"".join(pieces))
            raise
        await asyncio.to_thread(incoming.write, b"".join(pieces))

    # --- for whoever fetches them ------------------------------------------------------------------------

    async def waiting(self, seconds: float = 0.0) -> list[Waiting]:
        """The files that are here; with none, wait up to ``seconds`` for one."""
        arrived = self._arrived
        files = await asyncio.to_thread(self._inbox.waiting)
        if not files and seconds > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(seconds, MAX_WAIT_SECONDS)):
                    await arrived.wait()
            files = await asyncio.to_thread(self._inbox.waiting)
        return files

    async def open(self, name: str) -> tuple[BinaryIO, int]:
        return await asyncio.to_thread(self._inbox.open, name)

    async def delete(self, name: str) -> None:
        await asyncio.to_thread(self._inbox.delete, name)

    async def keep_house(self) -> None:
        """Remove what nobody resumes, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self._inbox.sweep, self._now())
            except InboxError as error:
                logger.info("%s", error)
            await asyncio.sleep(SWEEP_SECONDS)
