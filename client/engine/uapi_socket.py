"""wireguard-go's UAPI socket: one request on a connection of its own each time."""

from __future__ import annotations

import asyncio
import errno
from contextlib import closing
from pathlib import Path

from client.engine import uapi
from client.engine.host import port_taken
from client.errors import EngineError

ANSWER_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class UapiSocket:
    """The wireguard-go of ``interface`` behind a Unix socket's path."""

    def __init__(self, interface: str, path: Path) -> None:
        self._interface = interface
        self._path = path

    async def answers(self) -> bool:
        """Whether anybody is there."""
        try:
            await self._exchange(uapi.GET)
        except (OSError, asyncio.IncompleteReadError):
            return False
        return True

    async def device(self) -> uapi.Device:
        """All that it is and does. Raises :class:`EngineError`."""
        try:
            return uapi.parse_device(await self._ask(uapi.GET))
        except uapi.UapiError as error:
            raise EngineError(f"{self._interface}: {error}") from error

    async def set(self, request: bytes, port: int = 0) -> None:
        """Change something; ``port`` is the one it sets. Raises ``EngineError``, ``SetupError``."""
        try:
            uapi.parse_errno(await self._ask(request))
        except uapi.UapiError as error:
            if error.number == errno.EADDRINUSE:
                raise port_taken(port) from error
            raise EngineError(f"{self._interface}: {error}") from error

    async def _ask(self, request: bytes) -> bytes:
        try:
            return await self._exchange(request)
        except TimeoutError as error:
            raise EngineError(
                f"the wireguard-go of {self._interface} does not answer; restart trenzad"
            ) from error
        except (OSError, asyncio.IncompleteReadError) as error:
            raise EngineError(f"the wireguard-go of {self._interface} is gone; restart trenzad") from error

    async def _exchange(self, request: bytes) -> bytes:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_unix_connection(self._path, limit=MAX_ANSWER_BYTES)
            with closing(writer):
                writer.write(request)
                return await reader.readuntil(uapi.END)
