"""The command line's end of the local API: blocking calls, one connection each."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from client.errors import ClientError, NotPermitted, NotRunning

HOST = "local-trenzad.sock"
PREFIX = "/localapi/v0/"
DEFAULT_SOCKET = "/run/trenza/trenzad.sock"
CALL_SECONDS = 90.0
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

    def get(self, name: str, **query: str) -> Any:
        return self._call("GET", name + (f"?{urlencode(query)}" if query else ""))

    def post(
        self, name: str, content: Mapping[str, Any] | None = None, *, seconds: float = CALL_SECONDS
    ) -> Any:
        return self._call("POST", name, content or {}, seconds)

    def patch(self, name: str, content: Mapping[str, Any]) -> Any:
        return self._call("PATCH", name, content)

    @contextlib.contextmanager
    def watch(self) -> Iterator[Notices]:
        """The daemon's notices as they come, the present one first."""
        connection = _Connection(self.path, CALL_SECONDS)
        try:
            response = self._ask(connection, "GET", "watch", None)
            yield Notices(connection, response)
            response.close()
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
        try:
            connection.connect()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunning(
                f"trenzad is not running (nothing answers on {self.path}): start it with "
                "sudo systemctl start trenzad, or with sudo trenzad"
            ) from None
        except PermissionError:
            raise NotPermitted(
                f"you may not use {self.path}: use sudo, or have root run trenza set --operator=YOUR-USER"
            ) from None
        except OSError as error:
            raise NotRunning(f"cannot use the socket {self.path}: {error}") from error
        connection.request(method, PREFIX + name, json.dumps(content) if content is not None else None)
        response = connection.getresponse()
        if response.status != 200:
            raise _error(response)
        return response


def _error(response: http.client.HTTPResponse) -> ClientError:
    try:
        content = json.loads(response.read(MAX_LINE_BYTES))
        return DaemonError(str(content["code"]), str(content["message"]))
    except (ValueError, KeyError, TypeError):
        return ClientError(f"trenzad answers HTTP {response.status}: is this really its socket?")
