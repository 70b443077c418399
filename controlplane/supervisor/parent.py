"""The parent process: starts its children, says when the server is ready, and takes all of them down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from controlplane.background import Tasks
from controlplane.env import CHECKOUT, Environment
from controlplane.supervisor.relay import RelayKeeper
from controlplane.supervisor.sockets import bind_web_socket
from controlplane.supervisor.workers import Slot, Workers

logger = logging.getLogger("trenza.serve")

STOP_SECONDS = 8.0


class Supervisor:
    """Owns the children; the package's docstring says who outlives whom. ``status`` is the exit status."""

    def __init__(self, env: Environment, *, workers: int, downloads: bool = False) -> None:
        self.env = env
        self.downloads = downloads
        self.status = 0
        self.stopping = asyncio.Event()
        self.sock = bind_web_socket(env.listen)
        self.tasks = Tasks()
        self.workers = Workers(
            self.sock,
            count=workers,
            tasks=self.tasks,
            unusable=self._give_up,
            measures=env.measures,
        )
        self.relay = RelayKeeper(env)

    async def run(self) -> None:
        """Serve until a signal comes, or a worker finds that it cannot."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stopping.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: self.tasks.spawn(self.workers.replace()))
        greeting = loop.create_task(first_start())
        self.tasks.spawn(self.relay.keep())
        fresh = await self.workers.fill()
        self.tasks.spawn(self._announce(fresh, greeting))
        await self.stopping.wait()
        await self.stop()

    def _give_up(self) -> None:
        self.status = 1
        self.stopping.set()

    async def _announce(self, fresh: Sequence[Slot], greeting: asyncio.Task[str]) -> None:
        for slot in fresh:
            await slot.ready.wait()
        text = await greeting
        print(f"Trenza is ready on {self.env.url}\n{text}", end="", flush=True)
        if self.downloads:
            await build_downloads()

    async def stop(self) -> None:
        """Have every child end; those that take too long are killed."""
        logger.info("stopping")
        slots = list(self.workers.slots)
        for slot in slots:
            slot.retire()
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await asyncio.gather(self.relay.stop(), *(slot.ended() for slot in slots))
        except TimeoutError:
            for slot in slots:
                slot.kill()
        await self.tasks.stop()


# --- children that end by themselves ---------------------------------------------------------------------


async def first_start() -> str:
    """What a first start prepares (tailnet, owner, sign-in link), as lines to print."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(CHECKOUT / "manage.py"), "firststart", stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await process.communicate()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
        raise
    return output.decode()


async def build_downloads() -> None:
    """Make what the install script fetches, while the server serves; it says itself what failed."""
    process = await asyncio.create_subprocess_exec(
        "nice", sys.executable, str(CHECKOUT / "manage.py"), "builddownloads", start_new_session=True
    )
    try:
        await process.wait()
    except asyncio.CancelledError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # pip, too
        await process.wait()
        raise
