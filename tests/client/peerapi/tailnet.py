"""A PeerAPI on loopback whose visitors come, as it believes, from tailnet addresses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from client.errors import ClientError
from client.http1 import Body, parse_answer
from client.peerapi.api import PeerAPI
from client.peerapi.handler import Resolve
from client.peerapi.rights import EXIT_ROUTES, FILE_SHARING
from client.prefixes import IPAddress
from tests.client.fakes import ALLOW_ALL, netmap, node
from wire.netmap import NetMap, Node, UserProfile

OWN = ip_address("100.64.0.1")
ANN, BOB = 7, 8


def own_node(**members: Any) -> Node:
    return node(1, name="me.tail.example.", user=ANN, cap_map={FILE_SHARING: None}, **members)


def tailnet(*peers: Node, **members: Any) -> NetMap:
    """Ann's node 1 with ``peers``; else Ann's 2, Bob's 3, and a tagged 4."""
    shown = peers or (
        node(2, name="laptop.tail.example.", user=ANN),
        node(3, name="other.tail.example.", user=BOB),
        node(4, name="tagged.tail.example.", user=ANN, tags=("tag:x",)),
    )
    values: dict[str, Any] = {
        "own": own_node(),
        "user_profiles": {ANN: UserProfile(id=ANN, login_name="ann@example.com")},
        "packet_filters": {"base": (ALLOW_ALL,)},
    }
    return netmap(*shown, **(values | members))


def exit_node(*peers: Node, **members: Any) -> NetMap:
    """The same with node 1 as an approved exit node."""
    addresses = own_node().addresses
    return tailnet(*peers, own=own_node(allowed_ips=(*addresses, *EXIT_ROUTES)), **members)


async def no_names(question: bytes) -> bytes:
    raise ClientError("nobody is asked")


class Seat:
    """A StreamWriter that says it is on the tailnet."""

    def __init__(self, writer: asyncio.StreamWriter, remote: str, own: str) -> None:
        self._writer = writer
        self._names = {"peername": (remote, 1), "sockname": (own, 1)}

    def get_extra_info(self, name: str) -> Any:
        return self._names[name]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)


class Peers:
    """The PeerAPI of node 1, and what its peers send to it; ``came`` is where they come from."""

    def __init__(self, folder: Path, shown: NetMap, *, resolve: Resolve = no_names) -> None:
        self.netmap: NetMap | None = shown
        self.inbox = folder / "files"
        self.now = 1_800_000_000.0
        self.came = "100.64.0.2"
        self.shields_up = False
        self.api = PeerAPI(
            lambda: self.netmap,
            lambda: self.inbox,
            lambda: self.now,
            resolve=resolve,
            shields_up=lambda: self.shields_up,
            listen=self._listen,
        )

    async def _listen(self, accept: Any, address: str, port: int, /) -> asyncio.Server:
        async def seated(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await accept(reader, Seat(writer, self.came, str(OWN)))

        return await asyncio.start_server(seated, "127.0.0.1", 0, limit=128 * 1024)

    @property
    def port(self) -> int:
        return next(iter(self.api.doors))[1]

    @property
    def host(self) -> str:
        return f"Host: {OWN}:{self.port}\r\n"

    async def connect(self, came: str = "100.64.0.2") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        self.came = came
        return await asyncio.open_connection("127.0.0.1", self.port, limit=128 * 1024)

    async def ask(
        self, method: str, path: str, body: bytes = b"", *, headers: str = "", came: str = "100.64.0.2"
    ) -> tuple[int, bytes]:
        """One request on a connection of its own; status 0 when that just ends."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\n{self.host}{length}{headers}Connection: close\r\n\r\n"
        return await self.say(head.encode() + body, came=came)

    async def say(self, raw: bytes, *, came: str = "100.64.0.2") -> tuple[int, bytes]:
        reader, writer = await self.connect(came)
        try:
            writer.write(raw)
            return await answer_of(reader)
        finally:
            writer.close()

    def files(self) -> dict[str, bytes]:
        """What is in the inbox's folder."""
        found = sorted(self.inbox.iterdir()) if self.inbox.exists() else []
        return {path.name: path.read_bytes() for path in found}


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return 0, b""
    status, headers = parse_answer(raw)
    chunked = "transfer-encoding" in headers
    body = Body(reader, None if chunked else int(headers["content-length"]))
    return status, await body.whole(1_000_000)


@contextlib.asynccontextmanager
async def peers_of(
    folder: Path, shown: NetMap, *, on: IPAddress = OWN, **options: Any
) -> AsyncIterator[Peers]:
    peers = Peers(folder, shown, **options)
    await peers.api.serve_on([on])
    try:
        yield peers
    finally:
        await peers.api.serve_on([])
