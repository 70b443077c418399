"""A WebSocket client on one blocking socket, in one thread (the TLS of Python 3.11 bears no two)."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from types import TracebackType

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from tests.lab.net import LabError


class WebSocket:
    """An open connection; leaving it as a context closes the socket."""

    def __init__(
        self,
        sock: socket.socket,
        uri: str,
        *,
        subprotocols: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self._sock = sock
        self._protocol = ClientProtocol(
            parse_uri(uri), subprotocols=[Subprotocol(name) for name in subprotocols] or None
        )
        self._queue: list[object] = []
        request = self._protocol.connect()
        request.headers.update(headers or {})
        self._protocol.send_request(request)
        self._flush()
        answer = self._next_event()
        if not isinstance(answer, Response) or self._protocol.handshake_exc is not None:
            sock.close()
            raise LabError(f"the WebSocket was refused: {self._protocol.handshake_exc or answer}")

    def send(self, data: bytes) -> None:
        """Send a binary message."""
        self._protocol.send_binary(data)
        self._flush()

    def receive(self) -> bytes:
        """The next text or binary message; :class:`LabError` when the connection ends instead."""
        while True:
            event = self._next_event()
            if isinstance(event, Frame) and event.opcode in (Opcode.TEXT, Opcode.BINARY):
                return bytes(event.data)
            if isinstance(event, Frame) and event.opcode is Opcode.CLOSE:
                raise LabError(f"the WebSocket was closed: {bytes(event.data)!r}")

    def _next_event(self) -> object:
        while not self._queue:
            data = self._sock.recv(65536)
            if not data:
                raise LabError("the connection was closed")
            self._protocol.receive_data(data)
            self._flush()
            self._queue += self._protocol.events_received()
        return self._queue.pop(0)

    def _flush(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._sock.sendall(data)

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._sock.close()
