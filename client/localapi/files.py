"""Files to and from peers, as the command line asks for them. Paths follow tailscale's local API.

PUT ``file-put/STABLEID/NAME`` sends its body, GET ``file-targets`` says to whom. GET ``files/`` lists what
came (``waitsec=N`` waits for it), GET ``files/NAME`` gives it, DELETE removes it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, BinaryIO
from urllib.parse import unquote

from client.backend import Backend
from client.commands import Commands
from client.errors import ClientError, PeerNotFound
from client.http1 import PIECE_BYTES, BadRequest
from client.localapi.server import Raw, Request
from client.peerapi.api import PeerAPI
from client.peerapi.rights import peerapi_places, takes_files, why_not_target
from client.peerapi.send import send_file
from client.state import State

READ_BYTES = 4 * PIECE_BYTES
FILE_PUT, FILES = "file-put/", "files/"


class FileRoutes:
    """Every method raises ``ClientError``."""

    def __init__(self, backend: Backend, commands: Commands) -> None:
        self._backend = backend
        self._commands = commands

    async def targets(self, request: Request) -> Any:
        """The peers that take files, by name."""
        netmap = self._commands.netmap()
        peers = [peer for peer in netmap.peers.values() if takes_files(netmap, peer)]
        return [
            {"Node": peer.to_json(), "PeerAPIURL": _url(peerapi_places(netmap, peer))}
            for peer in sorted(peers, key=lambda peer: peer.name)
        ]

    async def put(self, request: Request) -> Any:
        stable_id, _, name = request.path.partition(FILE_PUT)[2].partition("/")
        netmap = self._commands.netmap()
        if self._backend.state is not State.RUNNING:
            raise ClientError(f"cannot send files: not connected (state {self._backend.state})")
        peer = next((peer for peer in netmap.peers.values() if peer.stable_id == stable_id), None)
        if peer is None:
            raise PeerNotFound(f"no peer has the ID {stable_id!r}")
        if why := why_not_target(netmap, peer):
            raise ClientError(why)
        if request.content is None:
            raise BadRequest(400, "a file is expected")
        await send_file(peerapi_places(netmap, peer), unquote(name), request.content, self._api().connect)
        return {}

    async def get(self, request: Request) -> Any:
        name = unquote(request.path.partition(FILES)[2], errors="surrogateescape")
        if not name:
            seconds = request.query.get("waitsec", "0")
            if not (seconds.isascii() and seconds.isdigit()) or len(seconds) > 5:
                raise BadRequest(400, "waitsec is a number of seconds")
            return [file.to_json() for file in await self._api().taildrop.waiting(float(seconds))]
        file, size = await self._api().taildrop.open(name)
        return Raw("application/octet-stream", size, _pieces(file))

    async def delete(self, request: Request) -> Any:
        name = unquote(request.path.partition(FILES)[2], errors="surrogateescape")
        await self._api().taildrop.delete(name)
        return {}

    def _api(self) -> PeerAPI:
        if self._backend.peerapi is None:
            raise ClientError("this daemon takes and sends no files")
        return self._backend.peerapi


async def _pieces(file: BinaryIO) -> AsyncGenerator[bytes, None]:
    with file:
        while piece := await asyncio.to_thread(file.read, READ_BYTES):
            yield piece


def _url(places: list[Any]) -> str:
    if not places:
        return ""
    address, port = places[0]
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"
