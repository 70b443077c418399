"""The web workers: processes on one inherited socket, kept running and replaced without refusing a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count as counting
from pathlib import Path

from controlplane.background import Tasks
from controlplane.env import CHECKOUT, UNUSABLE
from controlplane.supervisor.backoff import Backoff

logger = logging.getLogger("trenza.serve")

READY_SECONDS = 60.0


@dataclass(eq=False)
class Slot:
    """One web worker's place, kept filled until it is retired. ``ready``: a process in it has accepted.

    ``number`` is no other slot's; what the process counts goes by it (:mod:`controlplane.measures`).
    ``lifeline`` is the process's; it closes when the parent dies.
    """

    number: int = 0
    process: asyncio.subprocess.Process | None = None
    lifeline: int = -1
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    retired: asyncio.Event = field(default_factory=asyncio.Event)

    def close_lifeline(self) -> None:
        if self.lifeline >= 0:
            os.close(self.lifeline)
            self.lifeline = -1

    def retire(self) -> None:
        """Let the process finish, and start no other: also where the slot just waits for the next start."""
        self.retired.set()
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.kill()

    async def ended(self) -> int:
        """The process's exit status, once it has ended."""
        return await self.process.wait() if self.process is not None else 0


def forget_measures(folder: Path, pattern: str = "*.db") -> None:
    """Remove what workers have counted: all of it before the first starts, what was so of one that ends."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for file in folder.glob(pattern):
        file.unlink(missing_ok=True)


class Workers:
    """The slots of one socket. ``unusable`` is called when a worker finds that it cannot run at all.

    ``measures`` is the folder of what workers count.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        count: int,
        tasks: Tasks,
        unusable: Callable[[], None],
        measures: Path,
    ) -> None:
        self.slots: list[Slot] = []
        self._sock = sock
        self._count = count
        self._tasks = tasks
        self._unusable = unusable
        self._replacing = asyncio.Lock()
        self._measures = measures
        forget_measures(measures)

    async def fill(self) -> list[Slot]:
        """As many new slots as there are to be."""
        return [await self.add() for _ in range(self._count)]

    async def add(self) -> Slot:
        taken = {slot.number for slot in self.slots}
        slot = Slot(next(number for number in counting() if number not in taken))
        await self._start(slot)
        self.slots.append(slot)
        self._tasks.spawn(self._keep(slot))
        return slot

    async def replace(self) -> None:
        """SIGHUP: new workers on the same socket first, then the old ones finish and go."""
        async with self._replacing:
            old = list(self.slots)
            logger.info("replacing %d web worker(s)", len(old))
            fresh = await self.fill()
            try:
                async with asyncio.timeout(READY_SECONDS):
                    for slot in fresh:
                        await slot.ready.wait()
            except TimeoutError:
                logger.error("a new web worker did not become ready; the old ones stay")
                retiring = fresh
            else:
                retiring = old
            for slot in retiring:
                slot.retire()

    # -- one slot

    async def _start(self, slot: Slot) -> None:
        lifeline_read, lifeline_write = os.pipe()
        ready_read, ready_write = os.pipe()
        slot.process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(CHECKOUT / "manage.py"),
            "webworker",
            f"--fd={self._sock.fileno()}",
            f"--lifeline={lifeline_read}",
            f"--ready={ready_write}",
            pass_fds=(self._sock.fileno(), lifeline_read, ready_write),
            start_new_session=True,
            env=os.environ | {"TRENZA_WORKER": str(slot.number)},
        )
        os.close(lifeline_read)
        os.close(ready_write)
        slot.lifeline = lifeline_write
        self._tasks.spawn(self._watch_ready(slot, ready_read))
        if slot.retired.is_set():  # while the process was made
            slot.retire()

    @staticmethod
    async def _watch_ready(slot: Slot, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        readable = asyncio.Event()
        loop.add_reader(descriptor, readable.set)
        try:
            await readable.wait()
            if os.read(descriptor, 1):
                slot.ready.set()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)

    async def _keep(self, slot: Slot) -> None:
        """Keep a slot filled, restarting with backoff, until it is retired."""
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            code = await slot.ended()
            slot.close_lifeline()
            forget_measures(self._measures, f"gauge_*_{slot.number}.db")
            if slot.retired.is_set():
                break
            if code == UNUSABLE:  # it has said why
                self._unusable()
                break
            wait = backoff.after(loop.time() - started)
            logger.warning("a web worker ended (%s); starting another in %.1f s", code, wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await slot.retired.wait()
                break
            await self._start(slot)
        self.slots.remove(slot)
