"""Mesh: the relays of one region know each other's clients and pass packets on, one hop at most.

Each relay dials the others with the shared mesh key, watches who is there (PeerPresent, PeerGone), and sends
packets for those as ForwardPacket. Source: tailscale cmd/derper/mesh.go, derp/derphttp/mesh_client.go.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import ssl
from concurrent.futures import Executor
from urllib.parse import urlsplit

from relay.connection import Connection
from relay.http import END_OF_HEAD
from relay.limits import HANDSHAKE_SECONDS, MAX_HTTP_HEAD_BYTES, MESH_RETRY_SECONDS
from relay.switch import Switch
from wire.derp import ClientHandshake, ClientInfo, FrameDecoder, encode_frame
from wire.errors import HandshakeError, WireError
from wire.keys import NONCE_BYTES, NodePrivate

logger = logging.getLogger("trenza.relay.mesh")

PORTS = {"https": 443, "http": 80}


class MeshLink:
    """One other relay, by its URL (``https://HOST[:PORT]``; a bare HOST means https), dialled again for ever.

    Any certificate is accepted: packets are sealed by the clients, and the mesh key in DERP's own box.
    """

    def __init__(self, url: str, switch: Switch, *, key: NodePrivate, mesh_key: str, pool: Executor) -> None:
        self._url = urlsplit(url if "://" in url else f"https://{url}")
        self._switch = switch
        self._key = key
        self._mesh_key = mesh_key
        self._pool = pool

    async def run(self) -> None:
        """Keep the link until cancelled, or until it turns out to lead to ourselves."""
        while True:
            try:
                if not await self._follow():
                    logger.info("%s is this relay itself", self._url.netloc)
                    return
            except (OSError, TimeoutError, WireError, ValueError) as error:
                logger.warning("no mesh link to %s: %s", self._url.netloc, error or type(error).__name__)
            await asyncio.sleep(MESH_RETRY_SECONDS)

    async def _follow(self) -> bool:
        """One connection's life; ``False`` when the other end bears our own key."""
        conn = await self._dial()
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                leftover = await self._greet(conn)
            if leftover is None:
                return False
            self._switch.add_link(conn, leftover)
            logger.info("mesh link to %s", self._url.netloc)
            await self._switch.link_ended(conn)
            raise ConnectionError("the link ended")
        finally:
            if conn in self._switch.links:
                self._switch.close(conn)
            elif not conn.closed:
                conn.close()

    async def _dial(self) -> Connection:
        loop = asyncio.get_running_loop()
        host = self._url.hostname or ""
        port = self._url.port or PORTS.get(self._url.scheme, 443)
        infos = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        family, kind, number, _, address = infos[0]
        conn = Connection(socket.socket(family, kind, number), (str(address[0]), port))
        try:
            async with asyncio.timeout(HANDSHAKE_SECONDS):
                await loop.sock_connect(conn.sock, address)
                if self._url.scheme == "https":
                    await conn.start_tls(_client_context(), self._pool, host)
        except BaseException:
            conn.close()
            raise
        return conn

    async def _greet(self, conn: Connection) -> bytes | None:
        """HTTP and DERP's handshake as a client; returns what came behind it, ``None`` for our own key."""
        host = self._url.netloc
        await conn.send(
            f"GET /derp HTTP/1.1\r\nHost: {host}\r\nUpgrade: DERP\r\nConnection: Upgrade\r\n\r\n".encode()
        )
        data = b""
        while END_OF_HEAD not in data:
            if len(data) > MAX_HTTP_HEAD_BYTES:
                raise HandshakeError("its answer does not end")
            data += await conn.receive()
        head, _, data = data.partition(END_OF_HEAD)
        if not head.startswith(b"HTTP/1.1 101"):
            raise HandshakeError(f"it answered {head.splitlines()[0][:100].decode('latin-1')}")
        info = ClientInfo(mesh_key=self._mesh_key)
        handshake = ClientHandshake(self._key, secrets.token_bytes(NONCE_BYTES), info)
        decoder = FrameDecoder()
        while True:
            frames = decoder.receive(data)
            for number, (kind, payload) in enumerate(frames):
                if reply := handshake.receive(kind, payload):
                    await conn.send(reply)
                if handshake.server == self._key.public():
                    return None
                if handshake.server is not None:
                    conn.key = handshake.server.raw
                if handshake.done:
                    rest = b"".join(encode_frame(*frame) for frame in frames[number + 1 :])
                    return rest + decoder.buffered
            data = await conn.receive()


def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
