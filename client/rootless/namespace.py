"""A network namespace of this daemon's own, seen from outside: sockets of it, and programs run in it.

It is made at the first need and ends with this process, with :meth:`Namespace.close`, or with the program
that it keeps; then the next need makes a new one.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from pyroute2 import AsyncIPRoute

from client.errors import EngineError, SetupError
from client.rootless import keeper
from client.rootless.words import forbidden

START_SECONDS = 15.0
ANSWER_SECONDS = 10.0
RUN_SECONDS = keeper.RUN_SECONDS + 5.0
END_SECONDS = 5.0
MAX_PROGRAMS = 8
MAX_OUTPUT_BYTES = 64 * 1024 * 1024

log = logging.getLogger(__name__)


class Namespace:
    """``on_end`` is called when it ended by itself: the program that it keeps has died, or was killed."""

    def __init__(self) -> None:
        self.on_end: Callable[[], None] = lambda: None
        self._opening = asyncio.Lock()
        self._programs = asyncio.Semaphore(MAX_PROGRAMS)
        self._ids = itertools.count()
        self._waiting: dict[int, asyncio.Future[_Answer]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._channel: socket.socket | None = None
        self._run = -1

    @property
    def is_open(self) -> bool:
        return self._channel is not None

    def path(self, name: str) -> Path:
        """A file in its ``/var/run``, as this process reaches it."""
        return Path(f"/proc/self/fd/{self._run}", name)

    async def open(self) -> None:
        """Make it, unless it is there. Raises :class:`SetupError` with the switch that forbids it."""
        async with self._opening:
            if self._channel is None:
                await self._start()

    async def open_socket(self, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A non-blocking socket of its network. Raises :class:`OSError` and ``ClientError``."""
        await self.open()
        request = {"do": "socket", "family": int(family), "type": int(kind), "protocol": protocol}
        answer = await self._ask(request, ANSWER_SECONDS)
        made = socket.socket(fileno=answer.take())
        made.setblocking(False)
        return made

    @contextlib.asynccontextmanager
    async def netlink(self) -> AsyncIterator[AsyncIPRoute]:
        """Its links, addresses and routes. Raises ``OSError`` and ``ClientError``."""
        # A datagram socket: asyncio takes no raw one, and netlink makes no difference.
        with await self.open_socket(socket.AF_NETLINK, socket.SOCK_DGRAM) as sock:
            async with AsyncIPRoute(use_socket=sock) as netlink:
                yield netlink

    async def run(self, *program: str, stdin: bytes = b"") -> tuple[int, str]:
        """Exit status and complaint of a program run in there; raises :class:`EngineError`."""
        await self.open()
        async with self._programs:
            with _file_of(stdin) as file:
                return await self._finish(program, file)

    async def read(self, *program: str, stdin: bytes = b"") -> tuple[int, str, bytes]:
        """The same, and what the program prints."""
        await self.open()
        async with self._programs:
            with _file_of(stdin) as file, _file_of(b"") as output:
                status, said = await self._finish(program, file, output)
                return status, said, os.pread(output, MAX_OUTPUT_BYTES, 0)

    async def _finish(self, program: tuple[str, ...], *files: int) -> tuple[int, str]:
        try:
            answer = await self._ask({"do": "run", "program": program}, RUN_SECONDS, *files)
        except OSError as error:
            raise EngineError(f"cannot run {program[0]}: {error.strerror}") from error
        return int(answer.content["status"]), str(answer.content["said"])

    async def keep(self, *program: str) -> int:
        """Start a program that lives, and dies, with the namespace; gives a pidfd. Raises ``EngineError``."""
        await self.open()
        try:
            return (await self._ask({"do": "keep", "program": program}, ANSWER_SECONDS)).take()
        except OSError as error:
            raise EngineError(f"cannot run {program[0]}: {error.strerror}") from error

    async def close(self) -> None:
        """End it with everything in it; nothing happens when it is not there."""
        async with self._opening:
            self._end()
            process, self._process = self._process, None
            if process is not None:
                await _ended(process)

    # --- its life ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._process is not None:
            await _ended(self._process)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            with theirs:
                self._process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", keeper.__file__, str(theirs.fileno())),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    cwd="/",
                    start_new_session=True,  # a terminal's Ctrl-C is for us, who end it in order
                )
            self._run = await self._greeted(ours)
        except BaseException:
            ours.close()
            raise
        self._channel = ours
        asyncio.get_running_loop().add_reader(ours, self._receive, ours)

    async def _greeted(self, channel: socket.socket) -> int:
        """Wait until it is furnished; returns the descriptor of its ``/run``."""
        loop = asyncio.get_running_loop()
        heard = asyncio.Event()
        loop.add_reader(channel, heard.set)
        try:
            async with asyncio.timeout(START_SECONDS):
                await heard.wait()
        except TimeoutError as error:
            raise SetupError(f"the user namespace is not ready after {START_SECONDS:.0f} s") from error
        finally:
            loop.remove_reader(channel)
        answer = _read(channel)
        if answer is None:
            raise SetupError("the user namespace ended before it was ready: see trenzad's log")
        if "step" in answer.content:
            raise forbidden(str(answer.content["step"]), int(answer.content["error"]))
        return answer.take()

    def _end(self) -> None:
        """Let go: the keeper ends when nobody holds the other end of its channel."""
        channel, self._channel = self._channel, None
        if channel is None:
            return
        asyncio.get_running_loop().remove_reader(channel)
        channel.close()
        os.close(self._run)
        self._run = -1
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(_gone())

    # --- questions and answers ---------------------------------------------------------------------------

    async def _ask(self, request: dict[str, Any], seconds: float, *descriptors: int) -> _Answer:
        """Raises ``OSError`` with what the kernel said in there, :class:`EngineError` when nobody answers."""
        if self._channel is None:
            raise _gone()
        number = next(self._ids)
        future = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        try:
            socket.send_fds(self._channel, [json.dumps(request | {"id": number}).encode()], descriptors)
            async with asyncio.timeout(seconds):
                answer: _Answer = await future
                return answer.good()
        except (TimeoutError, BlockingIOError, BrokenPipeError) as error:
            raise EngineError(f"the user namespace does not answer in {seconds:.0f} s") from error
        finally:
            self._waiting.pop(number, None)

    def _receive(self, channel: socket.socket) -> None:
        while True:
            try:
                answer = _read(channel)
            except BlockingIOError:
                return
            if answer is None:
                log.warning("the user namespace has ended")
                self._end()
                self.on_end()
                return
            future = self._waiting.get(answer.content["id"])
            if future is None or future.done():
                answer.drop()
            else:
                future.set_result(answer)


class _Answer:
    """A message of the keeper, with the descriptor that it brought (-1: none)."""

    def __init__(self, content: dict[str, Any], descriptors: list[int]) -> None:
        self.content = content
        self._descriptor = descriptors[0] if descriptors else -1

    def good(self) -> _Answer:
        if "error" in self.content:
            code = int(self.content["error"])
            if code == errno.ETIMEDOUT:
                raise EngineError("a program in the user namespace did not end in time")
            raise OSError(code, os.strerror(code))
        return self

    def take(self) -> int:
        """The descriptor; from now on it is the caller's."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor < 0:
            raise EngineError("the user namespace answers without the socket asked for")
        return descriptor

    def drop(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)


def _read(channel: socket.socket) -> _Answer | None:
    """``None`` when the keeper is gone; raises ``BlockingIOError`` when it says nothing now."""
    try:
        data, descriptors, _, _ = socket.recv_fds(channel, keeper.MAX_MESSAGE_BYTES, 1)
    except ConnectionResetError:
        return None
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    return _Answer(json.loads(data), descriptors) if data else None


@contextlib.contextmanager
def _file_of(content: bytes) -> Iterator[int]:
    """A file in memory with this content, to be read from its beginning."""
    with os.fdopen(os.memfd_create("stdin", os.MFD_CLOEXEC), "w+b") as file:
        file.write(content)
        file.flush()
        file.seek(0)
        yield file.fileno()


async def _ended(process: asyncio.subprocess.Process) -> None:
    try:
        async with asyncio.timeout(END_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


def _gone() -> EngineError:
    return EngineError("the user namespace is gone: its WireGuard has ended")
