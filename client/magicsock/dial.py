"""From a region of the DERP map to an admitted connection: addresses, TCP, TLS, HTTP upgrade, handshake."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from client.magicsock.tls import RelayError, TlsChannel
from client.net.marks import mark_socket
from wire.derp import ClientHandshake, FrameDecoder, ServerInfo
from wire.derpmap import DEFAULT_DERP_PORT, NO_ADDRESS, DERPNode, DERPRegion
from wire.errors import HandshakeError, WireError
from wire.keys import NONCE_BYTES, NodePrivate

DIAL_SECONDS = 10.0
NODE_SECONDS = 5.0
CONNECT_SECONDS = 1.5
RESOLVE_SECONDS = 3.0
NEXT_ADDRESS_SECONDS = 0.2
MAX_ADDRESSES = 6
MAX_HEAD_BYTES = 16 * 1024
RECEIVE_BYTES = 64 * 1024
HEAD_END = b"\r\n\r\n"
HTTP = b"HTTP/"
PLAIN_NAME = re.compile(r"[A-Za-z0-9._:-]{0,253}")
CLOSED = "the relay closed the connection (it may not admit this node's key yet)"

Address = tuple[str, int]

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Connection:
    """An admitted connection; ``frames`` are those that came right behind the handshake."""

    node: DERPNode
    sock: socket.socket
    tls: TlsChannel
    decoder: FrameDecoder
    frames: list[tuple[int, bytes]]
    server_info: ServerInfo


def node_order(region: DERPRegion) -> list[DERPNode]:
    """The relays of a region in the order to try; neither STUN-only hosts nor odd names are among them."""
    return [node for node in region.nodes if not node.stun_only and is_plain(node)]


def is_plain(node: DERPNode) -> bool:
    """Whether a map's relay can be asked by HTTP: its names stand in headers, so they must not make any."""
    names = PLAIN_NAME.fullmatch(node.host_name) and PLAIN_NAME.fullmatch(node.name)
    return bool(names) and 0 < node.effective_derp_port < 65_536


def literal_addresses(node: DERPNode) -> list[str]:
    """The addresses that the map itself names, IPv6 first."""
    named = [host for host in (node.ipv6, node.ipv4) if _is_ip(host)]
    return named or ([node.host_name] if _is_ip(node.host_name) else [])


def upgrade_request(node: DERPNode, ideal: str, *, fast_start: bool) -> bytes:
    """The HTTP/1.1 request for DERP; with ``fast_start`` the relay answers in frames at once."""
    host = f"[{node.host_name}]" if ":" in node.host_name else node.host_name
    port = node.effective_derp_port
    lines = [
        "GET /derp HTTP/1.1",
        f"Host: {host}" if port == DEFAULT_DERP_PORT else f"Host: {host}:{port}",
        "Upgrade: DERP",
        "Connection: Upgrade",
        f"Ideal-Node: {ideal}",
    ]
    if fast_start:
        lines.append("Derp-Fast-Start: 1")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def after_upgrade(received: bytes) -> bytes | None:
    """What follows the HTTP answer; ``None`` = more is needed. Raises :class:`RelayError` for a refusal.

    After a fast start there is no answer: frames begin at once, and none of them begins like HTTP.
    """
    if not received.startswith(HTTP[: len(received)]):
        return received
    head, end, rest = received.partition(HEAD_END)
    if not end:
        if len(received) > MAX_HEAD_BYTES:
            raise RelayError("the relay's HTTP answer does not end")
        return None
    status = head.split(b" ", 2)[1:2]
    if status != [b"101"]:
        code = b"".join(status).decode("ascii", "replace")[:3]
        raise RelayError(f"the relay refuses to speak DERP (HTTP {code})")
    return rest


class Resolver:
    """Addresses of relays; what DNS said once is used again while DNS does not answer."""

    def __init__(self) -> None:
        self._remembered: dict[tuple[str, socket.AddressFamily], list[str]] = {}

    async def addresses(self, node: DERPNode) -> list[Address]:
        """At most six. An address in the map is enough; DNS is asked only for a relay without one."""
        hosts = literal_addresses(node) or await self._lookup(node)
        return [(host, node.effective_derp_port) for host in hosts[:MAX_ADDRESSES]]

    async def _lookup(self, node: DERPNode) -> list[str]:
        family = _family(node)
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                found = await asyncio.get_running_loop().getaddrinfo(
                    node.host_name, None, family=family, type=socket.SOCK_STREAM
                )
        except (OSError, UnicodeError) as error:  # the latter: DNS can have no such name
            remembered = self._remembered.get((node.host_name, family))
            if remembered is None:
                raise RelayError(f"no address for the relay {node.host_name}: {error}") from error
            return remembered
        hosts = sorted((str(entry[4][0]) for entry in found), key=lambda host: ":" not in host)
        self._remembered[node.host_name, family] = hosts
        return hosts


async def dial(region: DERPRegion, key: NodePrivate, *, resolver: Resolver, mark: int) -> Connection:
    """The first relay that admits us. Raises :class:`RelayError`, ``OSError``, ``WireError``."""
    problem: Exception = RelayError(f"region {region.region_id} has no relay")
    async with asyncio.timeout(DIAL_SECONDS):
        for node in node_order(region):
            try:
                async with asyncio.timeout(NODE_SECONDS):
                    return await _dial_node(node, region, key, resolver, mark)
            except (OSError, WireError, RelayError) as error:
                log.debug("relay %s: %s", node.name, error)
                problem = error
    raise problem


async def _dial_node(
    node: DERPNode, region: DERPRegion, key: NodePrivate, resolver: Resolver, mark: int
) -> Connection:
    sock = await connect(await resolver.addresses(node), mark)
    try:
        return await _Greeting(node, sock, key).run(ideal=node_order(region)[0].name)
    except BaseException:
        sock.close()
        raise


async def connect(addresses: Sequence[Address], mark: int) -> socket.socket:
    """The first address that answers; the next is tried after a failure, or 200 ms (RFC 8305)."""
    waiting, attempts = list(addresses), set[asyncio.Task[socket.socket]]()
    problem: BaseException = RelayError("the relay has no address")
    try:
        while waiting or attempts:
            if waiting:
                attempts.add(asyncio.create_task(_connect_to(waiting.pop(0), mark)))
            pause = NEXT_ADDRESS_SECONDS if waiting else None
            done, _ = await asyncio.wait(attempts, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                attempts.discard(attempt)
                if (error := attempt.exception()) is None:
                    return attempt.result()
                problem = error
    finally:
        await _abandon(attempts)
    raise problem


async def _abandon(attempts: set[asyncio.Task[socket.socket]]) -> None:
    for attempt in attempts:
        attempt.cancel()
    for result in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(result, socket.socket):
            result.close()


async def _connect_to(address: Address, mark: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        mark_socket(sock, mark)
        async with asyncio.timeout(CONNECT_SECONDS):
            await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class _Greeting:
    """Everything between TCP's connect and the relay's ServerInfo."""

    def __init__(self, node: DERPNode, sock: socket.socket, key: NodePrivate) -> None:
        self._loop = asyncio.get_running_loop()
        self._node = node
        self._sock = sock
        self._tls = TlsChannel(node)
        self._derp = ClientHandshake(key, os.urandom(NONCE_BYTES))

    async def run(self, *, ideal: str) -> Connection:
        while not self._tls.handshake():
            await self._flush()
            await self._fill()
        # A pinned certificate is the relay's own: no proxy is between us that would miss an HTTP answer.
        fast_start = self._node.pinned_sha256 is not None
        await self._send(upgrade_request(self._node, ideal, fast_start=fast_start))
        decoder = FrameDecoder()
        frames = decoder.receive(await self._upgraded())
        while True:
            while frames:
                if answer := self._derp.receive(*frames.pop(0)):
                    await self._send(answer)
                if self._derp.server_info is not None:
                    info = self._derp.server_info
                    return Connection(self._node, self._sock, self._tls, decoder, frames, info)
            frames = decoder.receive(await self._receive())

    async def _upgraded(self) -> bytes:
        received = b""
        while True:
            received += await self._receive()
            if (rest := after_upgrade(received)) is not None:
                return rest

    async def _send(self, data: bytes) -> None:
        self._tls.write(data)
        await self._flush()

    async def _flush(self) -> None:
        if data := self._tls.pending():
            await self._loop.sock_sendall(self._sock, data)

    async def _receive(self) -> bytes:
        while not (data := self._tls.read()):
            if self._tls.ended:
                raise HandshakeError(CLOSED)
            await self._fill()
        return data

    async def _fill(self) -> None:
        data = await self._loop.sock_recv(self._sock, RECEIVE_BYTES)
        if not data:
            raise HandshakeError(CLOSED)
        self._tls.receive(data)


def _family(node: DERPNode) -> socket.AddressFamily:
    if node.ipv6 == NO_ADDRESS:
        return socket.AF_INET
    return socket.AF_INET6 if node.ipv4 == NO_ADDRESS else socket.AF_UNSPEC


def _is_ip(host: str) -> bool:
    """A name where an address belongs would be asked of DNS later, by calls that block."""
    if "%" in host:
        return False
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return False
