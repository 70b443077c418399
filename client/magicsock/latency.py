"""How far a relay is over TLS, for networks that block UDP. Source: tailscale net/netcheck (HTTPS probe)."""

from __future__ import annotations

import asyncio
import socket

from client.magicsock.dial import HEAD_END, MAX_HEAD_BYTES, RECEIVE_BYTES, Resolver, connect
from client.magicsock.tls import RelayError, TlsChannel
from wire.derpmap import DERPNode


async def tls_latency(node: DERPNode, *, resolver: Resolver, mark: int) -> float:
    """Seconds for a request on a connection that is already set up. Raises ``RelayError``, ``OSError``."""
    sock = await connect(await resolver.addresses(node), mark)
    try:
        channel = _Channel(sock, TlsChannel(node))
        await channel.handshake()
        await channel.head(node.host_name)
        begin = asyncio.get_running_loop().time()
        await channel.head(node.host_name)
        return asyncio.get_running_loop().time() - begin
    finally:
        sock.close()


class _Channel:
    """A TLS connection that asks one thing at a time."""

    def __init__(self, sock: socket.socket, tls: TlsChannel) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._tls = tls

    async def handshake(self) -> None:
        while not self._tls.handshake():
            await self._flush()
            await self._fill()

    async def head(self, host: str) -> None:
        self._tls.write(f"HEAD /derp/latency-check HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        await self._flush()
        received = b""
        while HEAD_END not in received:
            if len(received) > MAX_HEAD_BYTES:
                raise RelayError("the relay's HTTP answer does not end")
            if data := self._tls.read():
                received += data
            else:
                await self._fill()
        if received.split(b" ", 2)[1:2] != [b"200"]:
            raise RelayError("the relay does not answer latency checks")

    async def _flush(self) -> None:
        if data := self._tls.pending():
            await self._loop.sock_sendall(self._sock, data)

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self._sock, RECEIVE_BYTES)
        if not data:
            raise RelayError("the relay closed the connection")
        self._tls.receive(data)
