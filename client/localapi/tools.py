"""Metrics, bug reports, accounts and connections to peers, as the command line asks for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Any

from client.backend import Backend
from client.bugreport import write_report
from client.commands import Commands
from client.errors import ClientError, PeerNotFound
from client.http1 import BadRequest
from client.localapi.server import Joined, Raw, Request
from client.metrics import Facts, Traffic, metrics_text
from client.prefixes import tailnet_addresses
from client.status import find_node

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MAX_NOTE = 1000
DIAL_SECONDS = 20.0


class CannotDial(ClientError):
    """A peer does not take a connection."""

    code = "cannot-dial"


class ToolRoutes:
    """Every method raises ``ClientError``."""

    def __init__(self, backend: Backend, commands: Commands) -> None:
        self._backend = backend
        self._commands = commands
        self._traffic = Traffic()

    async def metrics(self, request: Request) -> Any:
        text = self._metrics().encode()
        return Raw(METRICS_TYPE, len(text), _once(text))

    def _metrics(self) -> str:
        backend, paths = self._backend, self._commands.paths()
        sock = backend.tunnel.sock
        if sock is not None:
            self._traffic.see(paths, sock.relayed_bytes())
        facts = Facts(
            connected=backend.is_connected,
            health=len(backend.health()),
            home_region=backend.follower.home_region,
            advertised=backend.hostinfo().routable_ips,
            netmap=backend.netmap,
            paths=paths,
        )
        return metrics_text(self._traffic, facts)

    async def profiles(self, request: Request) -> Any:
        return self._commands.profiles()

    async def switch(self, request: Request) -> Any:
        return {"Switched": await self._commands.switch(_profile(request))}

    async def new_profile(self, request: Request) -> Any:
        return {"Before": await self._commands.new_profile()}

    async def remove_profile(self, request: Request) -> Any:
        self._commands.remove_profile(_profile(request))
        return {}

    async def bugreport(self, request: Request) -> Any:
        content = request.json()
        note, diagnose = content.get("Note", ""), content.get("Diagnose") is True
        if not isinstance(note, str) or len(note) > MAX_NOTE:
            raise BadRequest(400, f"Note must be a text of at most {MAX_NOTE} characters")
        status = self._commands.status(peers=diagnose)
        return {"Marker": write_report(self._backend, status, note, diagnose=diagnose)}

    async def sleep(self, request: Request) -> Any:
        """This host is about to sleep, or has just woken: said by who puts it to sleep."""
        match request.json().get("Phase"):
            case "pre":
                await self._backend.waking.fall_asleep()
            case "post":
                self._backend.waking.wake_up()
            case _:
                raise BadRequest(400, "Phase must be pre or post")
        return {}

    async def dial(self, request: Request) -> Any:
        """A TCP connection to a peer, as the daemon reaches it."""
        content = request.json()
        host, port = content.get("Host"), content.get("Port")
        if not isinstance(host, str) or not isinstance(port, int) or not 0 < port <= 65535:
            raise BadRequest(400, "Host must be a text and Port a number up to 65535")
        netmap, api = self._commands.netmap(), self._backend.peerapi
        peer = find_node(netmap, host)
        if peer is None or api is None:
            raise PeerNotFound(f"no peer {host!r}: trenza status lists them")
        wanted = next(tailnet_addresses([host]), None) or next(tailnet_addresses(peer.addresses), None)
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(DIAL_SECONDS):
                    streams = await stack.enter_async_context(api.connect(str(wanted), port))
            except OSError as error:
                raise CannotDial(f"cannot connect to {host} port {port}: {error or 'no answer'}") from error
            return Joined(streams, stack.pop_all())


def _profile(request: Request) -> str:
    text = request.json().get("Profile")
    if not isinstance(text, str) or not text:
        raise BadRequest(400, "Profile must be a text")
    return text


async def _once(text: bytes) -> AsyncGenerator[bytes, None]:
    yield text
