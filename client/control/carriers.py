"""What carries a control session: a WebSocket (the default, passes every proxy) or an HTTP Upgrade.

A carrier moves bytes and knows no protocol. Source: tailscale control/controlhttp.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol
from urllib.parse import quote

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.typing import Subprotocol

from client.control.dial import BUSY, CONNECT_SECONDS, USER_AGENT, Dialer, Server, busy, not_ours, tls_refusal
from client.errors import ControlError

PROTOCOL = "tailscale-control-protocol"
HANDSHAKE = "X-Tailscale-Handshake"
MAX_MESSAGE_BYTES = 8 * 1024 * 1024  # a server may send all that our windows (wire.session) take at once
MAX_MESSAGES = 4
READ_BYTES = 256 * 1024
CLOSE_SECONDS = 0.5


class CarrierKind(StrEnum):
    WEBSOCKET = "websocket"
    UPGRADE = "upgrade"


class HandshakeRefused(ControlError):
    """The server answered, but does not take this initiation: its key may have changed."""


class Carrier(Protocol):
    kind: CarrierKind

    async def read(self) -> bytes:
        """The next bytes; empty when the peer or the network ended it."""
        ...

    async def write(self, data: bytes) -> None:
        """Raises ``ConnectionError`` when it has ended."""
        ...

    async def close(self) -> None:
        """Say goodbye as the carrier does it; takes a moment."""

    def abort(self) -> None:
        """End it now, also after :meth:`close`."""


class WebSocketCarrier:
    kind = CarrierKind.WEBSOCKET

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection

    async def read(self) -> bytes:
        try:
            message = await self._connection.recv()
        except ConnectionClosed:
            return b""
        return message if isinstance(message, bytes) else b""

    async def write(self, data: bytes) -> None:
        try:
            await self._connection.send(data)
        except ConnectionClosed as error:
            raise ConnectionError("the WebSocket is closed") from error

    async def close(self) -> None:
        await self._connection.close()

    def abort(self) -> None:
        self._connection.transport.abort()


class UpgradeCarrier:
    kind = CarrierKind.UPGRADE

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes:
        try:
            return await self._reader.read(READ_BYTES)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._writer.wait_closed()

    def abort(self) -> None:
        self._writer.transport.abort()


async def open_carrier(kind: CarrierKind, dialer: Dialer, server: Server, initiation: bytes) -> Carrier:
    """A carrier that has delivered the Noise initiation; raises :class:`ControlError`."""
    opener = _open_websocket if kind is CarrierKind.WEBSOCKET else _open_upgrade
    return await opener(dialer, server, base64.b64encode(initiation).decode())


async def _open_websocket(dialer: Dialer, server: Server, handshake: str) -> Carrier:
    sock = await dialer.open(server)
    context = dialer.tls_context(server)
    scheme = "wss" if context else "ws"
    try:
        connection = await connect(
            f"{scheme}://{server.netloc}/ts2021?{HANDSHAKE}={quote(handshake, safe='')}",
            sock=sock,
            ssl=context,
            server_hostname=server.host if context else None,
            subprotocols=[Subprotocol(PROTOCOL)],
            compression=None,
            proxy=None,
            user_agent_header=USER_AGENT,
            open_timeout=CONNECT_SECONDS,
            ping_interval=None,  # the session inside has its own
            close_timeout=CLOSE_SECONDS,
            max_size=MAX_MESSAGE_BYTES,
            max_queue=MAX_MESSAGES,
        )
    except InvalidStatus as error:
        sock.close()
        headers = {name.lower(): value for name, value in error.response.headers.raw_items()}
        raise _refused(server, error.response.status_code, headers) from error
    except (InvalidHandshake, ValueError) as error:  # the latter: it would lead us elsewhere
        sock.close()
        raise not_ours(server, "no WebSocket at /ts2021") from error
    except (OSError, TimeoutError) as error:
        sock.close()
        raise (
            tls_refusal(server, error) if context else not_ours(server, "no WebSocket at /ts2021")
        ) from error
    except BaseException:
        sock.close()
        raise
    return WebSocketCarrier(connection)


async def _open_upgrade(dialer: Dialer, server: Server, handshake: str) -> Carrier:
    reader, writer = await dialer.streams(server)
    head = (
        f"POST /ts2021 HTTP/1.1\r\nHost: {server.netloc}\r\nUser-Agent: {USER_AGENT}\r\n"
        f"Upgrade: {PROTOCOL}\r\nConnection: upgrade\r\n{HANDSHAKE}: {handshake}\r\nContent-Length: 0\r\n\r\n"
    )
    carrier = UpgradeCarrier(reader, writer)
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            writer.write(head.encode())
            answer = await reader.readuntil(b"\r\n\r\n")
        _check_upgrade(server, answer)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        await carrier.close()
        raise not_ours(server, "it does not answer POST /ts2021") from error
    except BaseException:
        writer.close()
        raise
    return carrier


def _check_upgrade(server: Server, answer: bytes) -> None:
    lines = answer.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    status = int(words[1]) if len(words) > 1 and re.fullmatch("[0-9]{3}", words[1]) else 0
    headers = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])
    }
    if status != 101:
        raise _refused(server, status, headers)
    if headers.get("upgrade", "").lower() != PROTOCOL:
        raise not_ours(server, "it switches to another protocol")


def _refused(server: Server, status: int, headers: Mapping[str, str]) -> ControlError:
    """A server that knows /ts2021 answers 400 or 403 to an initiation that it cannot open."""
    if status in (400, 403):
        return HandshakeRefused(f"{server.url} does not accept this client's handshake (HTTP {status})")
    if status >= 500 or status in BUSY:
        return busy(server, status, headers)
    return not_ours(server, f"HTTP {status} for /ts2021; a proxy in front must pass WebSockets and Upgrade")
