"""Who can open connections to whom, asked over and over; and servers that send back what they get."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from tests.lab.net import LabError, Namespace
from tests.lab.processes import wait_for

TRY_SECONDS = 0.3
PAUSE_SECONDS = 0.05
WORD = b"still here\n"


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while content := self.request.recv(4096):
            self.request.sendall(content)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # connections that a policy cut end never


class Echoes:
    """Servers on these ports of a host, on all its addresses."""

    def __init__(self, host: Namespace, ports: Iterable[int]) -> None:
        with host.entered():
            self._servers = [_Server(("0.0.0.0", port), _Echo) for port in ports]
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def close(self) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Try:
    """One connection: when it was begun, when that was over, whether there was an answer."""

    begun: float
    over: float
    worked: bool


class Knocking:
    """Tries to connect from ``source`` again and again, each time anew, until it is closed."""

    def __init__(self, source: Namespace, address: str, port: int) -> None:
        self.tries: list[Try] = []
        self.name = f"{source.short} to {address}:{port}"
        self._source = source
        self._place = (address, port)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        with self._source.entered():
            while not self._ended.wait(PAUSE_SECONDS):
                begun = time.monotonic()
                worked = self._works()
                self.tries.append(Try(begun, time.monotonic(), worked))

    def _works(self) -> bool:
        try:
            with socket.create_connection(self._place, timeout=TRY_SECONDS) as connection:
                connection.sendall(WORD)
                return connection.recv(len(WORD)) != b""
        except OSError:
            return False

    def opened_after(self, moment: float, *, seconds: float) -> float:
        """Wait until one works that was over after ``moment``; returns how long after."""

        def first() -> Try | None:
            return next((one for one in list(self.tries) if one.worked and one.over > moment), None)

        found = wait_for(f"{self.name} works", first, seconds=seconds)
        if found is None:
            raise LabError(f"{self.name} does not work")
        return found.over - moment

    def worked_since(self, moment: float) -> list[bool]:
        """The outcomes of those begun after it."""
        return [one.worked for one in list(self.tries) if one.begun > moment]


class Kept:
    """A connection that stays open."""

    def __init__(self, source: Namespace, address: str, port: int) -> None:
        with source.entered():
            self._socket = socket.create_connection((address, port), timeout=5)

    def works(self, seconds: float = 2.0) -> bool:
        """Whether what is sent comes back."""
        self._socket.settimeout(seconds)
        try:
            self._socket.sendall(WORD)
            return self._socket.recv(len(WORD)) == WORD
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()
