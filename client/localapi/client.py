"""The command line's end of the local API: blocking calls, one connection each."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from client.errors import ClientError, NotPermitted, NotRunning
from client.http1 import PIECE_BYTES, chunk
from client.places import SYSTEM_SOCKET

HOST = "local-trenzad.sock"
PREFIX = "/localapi/v0/"
DEFAULT_SOCKET = str(SYSTEM_SOCKET)
CALL_SECONDS = 90.0
FILE_SECONDS = 3700.0  # for one piece of a file: the daemon itself gives up before
MAX_ANSWER_BYTES = 256 * 1024 * 1024
MAX_LINE_BYTES = 1024 * 1024


class DaemonError(ClientError):
    """The daemon's answer to something that it cannot or may not do, in its words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, seconds: float | None) -> None:
        super().__init__(HOST, timeout=seconds)
        self._path = path

    def connect(self) -> None:
        # http.client lets go of ``sock`` when an answer has no end; waits are bounded on ``unix``.
        self.sock = self.unix = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.unix.settimeout(self.timeout)
        self.unix.connect(self._path)


class Download:
    """Something of ``size`` bytes on its way."""

    def __init__(self, size: int, response: http.client.HTTPResponse) -> None:
        self.size = size
        self._response = response

    def pieces(self) -> Iterator[bytes]:
        """All of it; raises ``OSError`` when it breaks off."""
        left = self.size
        while left and (piece := self._response.read(min(left, PIECE_BYTES))):
            left -= len(piece)
            yield piece
        if left:
            raise ConnectionResetError(f"{left} bytes are missing")


class Notices:
    """An open watch."""

    def __init__(self, connection: _Connection, response: http.client.HTTPResponse) -> None:
        self._connection, self._response = connection, response

    def next(self, seconds: float | None) -> dict[str, Any]:
        """The next notice; raises ``TimeoutError`` after ``seconds`` (``None``: waits for ever)."""
        self._connection.unix.settimeout(seconds)
        try:
            line = self._response.readline(MAX_LINE_BYTES)
        except TimeoutError:
            raise
        except OSError as error:
            raise NotRunning(f"trenzad ended: {error}") from error
        if not line:
            raise NotRunning("trenzad ended: look at its log")
        return dict(json.loads(line))


class LocalClient:
    """Every method raises :class:`ClientError`: :class:`NotRunning` when nobody answers on the socket."""

    def __init__(self, path: str = DEFAULT_SOCKET) -> None:
        self.path = path

    def get(self, name: str, *, seconds: float = CALL_SECONDS, **query: str) -> Any:
        return self._call("GET", name + (f"?{urlencode(query)}" if query else ""), seconds=seconds)

    def post(
        self, name: str, content: Mapping[str, Any] | None = None, *, seconds: float = CALL_SECONDS
    ) -> Any:
        return self._call("POST", name, content or {}, seconds)

    def patch(self, name: str, content: Mapping[str, Any]) -> Any:
        return self._call("PATCH", name, content)

    def delete(self, name: str) -> Any:
        return self._call("DELETE", name)

    def put(self, name: str, pieces: Iterable[bytes], size: int | None) -> Any:
        """Send a body of any size, ``None`` = unknown."""
        connection = _Connection(self.path, FILE_SECONDS)
        try:
            self._connect(connection)
            connection.putrequest("PUT", PREFIX + name)
            header = ("Transfer-Encoding", "chunked") if size is None else ("Content-Length", str(size))
            connection.putheader(*header)
            connection.endheaders()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has answered already
                for piece in pieces:
                    connection.send(chunk(piece) if size is None else piece)
                if size is None:
                    connection.send(chunk(b""))
            return json.loads(_good(connection.getresponse()).read(MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotRunning(f"trenzad ended while it took the file: {error}") from error
        finally:
            connection.close()

    @contextlib.contextmanager
    def download(self, name: str) -> Iterator[Download]:
        """Something of any size; raises ``OSError``, too, when it breaks off."""
        connection = _Connection(self.path, FILE_SECONDS)
        try:
            with self._ask(connection, "GET", name, None) as response:
                yield Download(int(response.headers["Content-Length"]), response)
        finally:
            connection.close()

    @contextlib.contextmanager
    def dial(self, host: str, port: int) -> Iterator[tuple[socket.socket, Callable[[], bytes]]]:
        """A connection to a peer: a socket to send to, and what gives the next bytes (``b""`` at the end)."""
        connection = _Connection(self.path, CALL_SECONDS)
        try:
            with self._ask(connection, "POST", "dial", {"Host": host, "Port": port}) as response:
                connection.unix.settimeout(None)
                yield connection.unix, lambda: response.read1(PIECE_BYTES)
        finally:
            connection.close()

    @contextlib.contextmanager
    def watch(self) -> Iterator[Notices]:
        """The daemon's notices as they come, the present one first."""
        connection = _Connection(self.path, CALL_SECONDS)
        try:
            with self._ask(connection, "GET", "watch", None) as response:
                yield Notices(connection, response)
        finally:
            connection.close()

    def _call(
        self, method: str, name: str, content: Mapping[str, Any] | None = None, seconds: float = CALL_SECONDS
    ) -> Any:
        connection = _Connection(self.path, seconds)
        try:
            response = self._ask(connection, method, name, content)
            return json.loads(response.read(MAX_ANSWER_BYTES))
        except TimeoutError:
            raise NotRunning(f"trenzad did not answer in {seconds:.0f} s: look at its log") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NotRunning(f"trenzad ended while it answered: {error}") from error
        finally:
            connection.close()

    def _ask(
        self,
        connection: _Connection,
        method: str,
        name: str,
        content: Mapping[str, Any] | None,
    ) -> http.client.HTTPResponse:
        self._connect(connection)
        connection.request(method, PREFIX + name, json.dumps(content) if content is not None else None)
        return _good(connection.getresponse())

    def _connect(self, connection: _Connection) -> None:
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(
                f"trenzad is not running (nothing answers on {self.path}): start it with "
                "sudo systemctl start trenzad, with sudo trenzad, or without root with trenzad alone"
            ) from None
        except PermissionError:
            raise NotPermitted(
                f"you may not use {self.path}: use sudo, or have root run trenza set --operator=YOUR-USER"
            ) from None
        except OSError as error:
            raise NotRunning(f"cannot use the socket {self.path}: {error}") from error


def _good(response: http.client.HTTPResponse) -> http.client.HTTPResponse:
    if response.status != 200:
        raise _error(response)
    return response


def _error(response: http.client.HTTPResponse) -> ClientError:
    try:
        content = json.loads(response.read(MAX_LINE_BYTES))
        return DaemonError(str(content["code"]), str(content["message"]))
    except (ValueError, KeyError, TypeError):
        return ClientError(f"trenzad answers HTTP {response.status}: is this really its socket?")
