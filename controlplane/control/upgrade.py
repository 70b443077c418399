"""Carrier 1: ``POST /ts2021`` with ``Upgrade: tailscale-control-protocol`` on uvicorn's HTTP port.

uvicorn's httptools protocol knows one upgrade, WebSocket. This subclass adds ours at the same two methods
(``_should_upgrade``, ``handle_websocket_upgrade``), on any request of a kept-alive connection, because a
proxy's upstream connection may have carried ordinary requests before. uvicorn is pinned, and a test fails
when those methods change. Protocol: tailscale control/controlhttp/controlhttpserver/controlhttpserver.go.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from typing import Any

import httptools

from controlplane.bounded_http import BoundedHttpProtocol
from controlplane.control.driver import ControlDriver, new_session
from controlplane.env import environment
from controlplane.middleware import client_address
from wire.errors import WireError

UPGRADE = b"tailscale-control-protocol"
HANDSHAKE_HEADER = b"x-tailscale-handshake"
WRITE_HIGH_WATER = 1024 * 1024

access_logger = logging.getLogger("uvicorn.access")


class UpgradedConnection(asyncio.Protocol):
    """A connection after its 101: moves bytes between the transport and the control driver."""

    def __init__(self, transport: asyncio.Transport, driver: ControlDriver, connections: set[Any]) -> None:
        self.transport = transport
        self.driver = driver
        self.connections = connections
        connections.add(self)
        transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)

    def data_received(self, data: bytes) -> None:
        self.driver.feed(data)

    def eof_received(self) -> None:
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.connections.discard(self)
        self.driver.lost()

    def shutdown(self) -> None:
        """uvicorn's graceful stop: the client redials at once and finds the next worker."""
        self.driver.close("server is restarting")


class TransportCarrier:
    """The driver's view of a TCP or TLS transport."""

    name = "upgrade"

    def __init__(self, transport: asyncio.Transport) -> None:
        self.transport = transport

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def buffered(self) -> int:
        return self.transport.get_write_buffer_size()

    def close(self) -> None:
        self.transport.close()

    def abort(self) -> None:
        self.transport.abort()


class ControlHttpProtocol(BoundedHttpProtocol):
    """The server's HTTP/1.1 protocol plus the control upgrade."""

    def _is_control(self) -> bool:
        return self._get_upgrade() == UPGRADE

    def _should_upgrade(self) -> bool:
        return self._is_control() or super()._should_upgrade()

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._is_control():
                self._take_over(data[upgrade.args[0] :])
            elif self._should_upgrade():
                self.handle_websocket_upgrade()
            else:
                self._unsupported_upgrade_warning()
        except (httptools.HttpParserError, httptools.HttpParserCallbackError):
            self.send_400_response("Invalid HTTP request received.")

    def _take_over(self, rest: bytes) -> None:
        """Answer the Noise initiation with 101 and hand the connection to a control driver."""
        if self.cycle is not None and not self.cycle.response_complete:
            return self.send_400_response("An upgrade cannot follow an unanswered request.")
        headers = dict(self.headers)
        if self.url.split(b"?", 1)[0] != b"/ts2021" or self.scope["method"] != "POST":
            return self.send_400_response("This upgrade belongs to POST /ts2021.")
        try:
            initiation = base64.b64decode(headers.get(HANDSHAKE_HEADER, b""), validate=True)
            session = new_session(early_payload=True)
            session.receive_handshake(initiation)
        except (binascii.Error, WireError):
            return self.send_400_response("X-Tailscale-Handshake is missing or is not a Noise initiation.")
        self._switch_protocols(session, headers, rest)
        return None

    def _switch_protocols(self, session: Any, headers: dict[bytes, bytes], rest: bytes) -> None:
        transport = self.transport
        peer = self.client[0] if self.client else ""
        forwarded = headers.get(b"x-forwarded-for", b"").decode("latin-1")
        address = client_address(peer, forwarded, environment().trusted_proxies)
        access_logger.info('%s - "POST /ts2021 HTTP/1.1" 101', address)
        self.connections.discard(self)
        driver = ControlDriver(session, TransportCarrier(transport), address)
        connection = UpgradedConnection(transport, driver, self.connections)
        transport.set_protocol(connection)
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tailscale-control-protocol\r\n"
            b"Connection: upgrade\r\n\r\n"
        )
        driver.start()
        if rest:
            driver.feed(rest)
