"""The embedded relay's process: found, started, kept, stopped. It may be the child of an earlier parent."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from controlplane.env import Environment
from controlplane.supervisor.backoff import Backoff
from controlplane.supervisor.relaysetup import relay_environment

logger = logging.getLogger("trenza.serve")

RELAY_STOP_SECONDS = 5.0  # with the wait for its status less than the parent's patience: it is killed in time
STATUS_SECONDS = 2.0
MAX_STATUS_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class RelayStatus:
    pid: int
    clients: int


async def read_relay_status(data: Path) -> RelayStatus | None:
    """Ask the running relay through DATA/relay.sock; ``None`` when none answers in time."""
    try:
        async with asyncio.timeout(STATUS_SECONDS):
            reader, writer = await asyncio.open_unix_connection(str(data / "relay.sock"))
            try:
                writer.write(b"GET /status HTTP/1.1\r\nHost: relay\r\nConnection: close\r\n\r\n")
                answer = await reader.read(MAX_STATUS_BYTES)
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        if b" 200 " not in head.split(b"\r\n", 1)[0]:
            return None
        status = json.loads(body)
        return RelayStatus(pid=int(status["pid"]), clients=int(status.get("clients", 0)))
    except (OSError, TimeoutError, ValueError, KeyError):
        return None


def locked_relay(data: Path) -> int | None:
    """The pid of the relay that holds DATA's lock, whether it answers or not; ``None`` when none does."""
    try:
        with (data / "relay.lock").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(json.load(file)["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return None


async def running_relay(data: Path) -> int | None:
    """The pid of the relay that runs on DATA."""
    if (status := await read_relay_status(data)) is not None:
        logger.info("found the running relay (pid %d, %d clients)", status.pid, status.clients)
        return status.pid
    if (pid := locked_relay(data)) is not None:
        logger.warning("the running relay (pid %d) does not answer", pid)
    return pid


async def _wait_for_end(pid: int) -> None:
    """Wait until a process ends, ours or not (one that is not our child cannot be reaped, only watched)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


class RelayKeeper:
    """Keeps one relay running on DATA until :meth:`stop`."""

    def __init__(self, env: Environment) -> None:
        self._env = env
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._stopping = False

    async def keep(self) -> None:
        """Adopt a relay that lives on from an earlier parent, else start one; restart it when it dies."""
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        while not self._stopping:
            started = loop.time()
            if (adopted := await self._adopt_or_start()) is not None:
                await _wait_for_end(adopted)
            elif self._process is not None:
                code = await self._process.wait()
                self._process = None
                if not self._stopping:
                    logger.warning("the relay ended (%s); starting it again", code)
            if not self._stopping:
                await asyncio.sleep(backoff.after(loop.time() - started))

    async def _adopt_or_start(self) -> int | None:
        """The pid of a running relay, or ``None``: ``_process`` is a new one, unless we are stopping."""
        async with self._starting:
            if self._stopping:
                return None
            if (pid := await running_relay(self._env.data)) is not None:
                return pid
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "relay", env=relay_environment(self._env), start_new_session=True
            )
            return None

    async def stop(self) -> None:
        """End the relay; one that does not go in time is killed."""
        self._stopping = True
        async with self._starting:  # one that is about to start would be left behind
            pid = self._process.pid if self._process else await running_relay(self._env.data)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        try:
            async with asyncio.timeout(RELAY_STOP_SECONDS):
                await _wait_for_end(pid)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
