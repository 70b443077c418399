"""What a lab without a way out needs of the outside: packages, and a page that tells one's address."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import threading
from http.server import BaseHTTPRequestHandler
from types import TracebackType
from typing import Self

from tests.lab.net import Namespace

CONNECT_SECONDS = 30.0
IDLE_SECONDS = 300.0
CHUNK = 65536


class _Service:
    """A TCP server whose socket is in a namespace, and whose threads are not."""

    def __init__(
        self, namespace: Namespace, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]
    ) -> None:
        with namespace.entered():
            self._server = _Server(address, handler)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # what is connected may stay so; it ends with its namespace


class _Quiet(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class _Tunnel(_Quiet):
    def do_CONNECT(self) -> None:
        host, _, port = self.path.rpartition(":")
        try:
            outside = socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS)
        except (OSError, ValueError):
            self.send_error(502)
            return
        self.send_response_only(200)
        self.end_headers()
        self.close_connection = True
        with outside, contextlib.suppress(OSError):
            outside.settimeout(IDLE_SECONDS)
            _carry(self.connection, outside)


def _carry(inside: socket.socket, outside: socket.socket) -> None:
    """Bytes both ways until either side ends or both are silent."""
    other = {inside: outside, outside: inside}
    while ready := select.select(list(other), [], [], IDLE_SECONDS)[0]:
        for one in ready:
            if not (data := one.recv(CHUNK)):
                return
            other[one].sendall(data)


class _Address(_Quiet):
    def do_GET(self) -> None:
        body = f"{self.client_address[0]}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class PackageProxy(_Service):
    """The machine's own network for what asks this proxy (``CONNECT``) on a namespace's loopback: pip."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace, ("127.0.0.1", 0), _Tunnel)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class AddressPage(_Service):
    """A web page at ``address`` (port 80) that says as whom one asks, as many on the internet do."""

    def __init__(self, namespace: Namespace, address: str) -> None:
        namespace.run("ip", "addr", "replace", f"{address}/32", "dev", "lo")
        super().__init__(namespace, (address, 80), _Address)
