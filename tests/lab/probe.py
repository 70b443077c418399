"""One control connection at a time, over either carrier, as far as a question and its answer."""

from __future__ import annotations

import base64
import http.client
import json
import secrets
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

from tests.lab.net import LabError, Namespace
from tests.lab.websocket import WebSocket
from wire.keys import MachinePrivate, MachinePublic
from wire.session import ClientSession, DataReceived, ResponseStarted, StreamEnded

CAPABILITY = 130
HANDSHAKE_BYTES = 51
TIMEOUT_SECONDS = 20.0
QUESTION = "/machine/trenza/nothing-here"
ANSWER = (404, b"this server has no such feature")
SUBPROTOCOL = "tailscale-control-protocol"
UPGRADE = (
    "POST /ts2021 HTTP/1.1\r\nHost: {name}\r\nUpgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n"
    "X-Tailscale-Handshake: {initiation}\r\nContent-Length: 0\r\n\r\n"
)


@dataclass
class Probe:
    """Where a server or its proxy is: dialled at ``address``, called ``name``; TLS when it has a context."""

    namespace: Namespace
    address: str
    port: int
    name: str
    context: ssl.SSLContext | None = None
    machine: MachinePrivate = field(default_factory=lambda: MachinePrivate.generate(secrets.token_bytes(32)))

    def dial(self) -> socket.socket:
        """A connected socket, inside TLS without ALPN as clients have it."""
        with self.namespace.entered():
            plain = socket.create_connection((self.address, self.port), timeout=TIMEOUT_SECONDS)
        return self.context.wrap_socket(plain, server_hostname=self.name) if self.context else plain

    def get(self, path: str, connection: socket.socket | None = None) -> tuple[int, bytes]:
        """One GET; on a connection of its own, or on one that stays open."""
        client = http.client.HTTPConnection(self.name, timeout=TIMEOUT_SECONDS)
        client.sock = connection or self.dial()
        try:
            client.request("GET", path)
            response = client.getresponse()
            return response.status, response.read()
        finally:
            if connection is None:
                client.close()

    def server_key(self) -> MachinePublic:
        """The Noise key, from ``/key``."""
        status, body = self.get(f"/key?v={CAPABILITY}")
        if status != 200:
            raise LabError(f"/key answered {status}")
        return MachinePublic.parse(json.loads(body)["publicKey"])

    def upgrade(self, key: MachinePublic, connection: socket.socket | None = None) -> None:
        """A whole handshake by ``POST /ts2021``, then one question over it."""
        session, initiation = self._session(key)
        with connection or self.dial() as sock:
            sock.sendall(UPGRADE.format(name=self.name, initiation=initiation).encode())
            head = b""
            while b"\r\n\r\n" not in head:
                head += _some(sock.recv(65536))
            first, _, rest = head.partition(b"\r\n\r\n")
            if not first.startswith(b"HTTP/1.1 101 "):
                raise LabError(f"the upgrade was answered {head[:400]!r}")
            _ask(session, rest, lambda: sock.recv(65536), sock.sendall)

    def websocket(self, key: MachinePublic) -> None:
        """A whole handshake by WebSocket, then one question over it."""
        session, initiation = self._session(key)
        scheme = "wss" if self.context else "ws"
        uri = f"{scheme}://{self.name}/ts2021?X-Tailscale-Handshake={quote(initiation, safe='')}"
        with WebSocket(self.dial(), uri, subprotocols=[SUBPROTOCOL]) as ws:
            _ask(session, b"", ws.receive, ws.send)

    def relay_link(self, token: str) -> int:
        """Open ``/relay/v1`` as a relay does; returns how many keys it may serve."""
        scheme = "wss" if self.context else "ws"
        headers = {"Authorization": f"Bearer {token}"}
        with WebSocket(self.dial(), f"{scheme}://{self.name}/relay/v1", headers=headers) as ws:
            message = json.loads(ws.receive())
        if message["type"] != "keys":
            raise LabError(f"/relay/v1 sent {message}")
        return len(message["keys"])

    def _session(self, key: MachinePublic) -> tuple[ClientSession, str]:
        session = ClientSession(self.machine, key, CAPABILITY, secrets.token_bytes(32))
        return session, base64.b64encode(session.initiation()).decode()


def _some(data: bytes) -> bytes:
    if not data:
        raise LabError("the connection was closed")
    return data


def _ask(
    session: ClientSession, rest: bytes, receive: Callable[[], bytes], send: Callable[[bytes], object]
) -> None:
    """Finish the handshake and ask something that every server must answer."""
    while len(rest) < HANDSHAKE_BYTES:
        rest += _some(receive())
    session.receive_handshake(rest[:HANDSHAKE_BYTES])
    stream = session.request("POST", QUESTION)
    data, status, body = rest[HANDSHAKE_BYTES:], 0, b""
    while True:
        for event in session.receive_data(data) if data else ():
            if isinstance(event, ResponseStarted) and event.stream_id == stream:
                status = event.status
            elif isinstance(event, DataReceived) and event.stream_id == stream:
                body += event.data
            elif isinstance(event, StreamEnded) and event.stream_id == stream:
                if (status, body) != ANSWER:
                    raise LabError(f"the question was answered {status} {body!r}")
                return
        if out := session.data_to_send():
            send(out)
        data = _some(receive())
