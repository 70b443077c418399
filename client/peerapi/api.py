"""The PeerAPI as one thing: what the daemon starts, follows the tunnel with, and tells the server of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path

from client.peerapi.handler import Handler, Resolve
from client.peerapi.rights import behind_shields, offers_exit
from client.peerapi.send import Connect, connect_here
from client.peerapi.server import Listen, PeerServer, listen_here
from client.peerapi.taildrop import Taildrop
from client.prefixes import IPAddress
from client.servertime import utc_now
from wire.control import Service
from wire.netmap import NetMap

DNS_PROXY = Service(proto="peerapi-dns-proxy", port=1)  # its port is a version


def host_time() -> float:
    """Seconds as file times are."""
    return utc_now().timestamp()


class PeerAPI:
    """``netmap`` gives the newest one, ``folder`` the inbox's place, ``now`` the time of files.

    With ``shields_up`` it is there, too, but for devices of the same person alone.
    ``listen`` and ``connect`` reach into the tunnel; ``resolve`` is for those who use this exit node.
    """

    def __init__(
        self,
        netmap: Callable[[], NetMap | None],
        folder: Callable[[], Path],
        now: Callable[[], float] = host_time,
        *,
        resolve: Resolve,
        shields_up: Callable[[], bool] = lambda: False,
        listen: Listen = listen_here,
        connect: Connect = connect_here,
    ) -> None:
        self.connect = connect
        self.taildrop = Taildrop(folder, now)
        self._netmap = netmap
        self._shields_up = shields_up
        self._server = PeerServer(self._judging, Handler(self.taildrop, resolve).answer, listen)
        self._house: asyncio.Task[None] | None = None

    def _judging(self) -> NetMap | None:
        """The netmap by which peers are judged."""
        netmap = self._netmap()
        return behind_shields(netmap) if netmap is not None and self._shields_up() else netmap

    @property
    def doors(self) -> frozenset[tuple[IPAddress, int]]:
        """What the tunnel's filter has to let every peer reach."""
        return self._server.doors

    def services(self) -> tuple[Service, ...]:
        """What the server, and through it peers, are told of."""
        netmap = self._netmap()
        found = [Service(proto=f"peerapi{address.version}", port=port) for address, port in self.doors]
        found.sort(key=lambda service: service.proto)
        is_exit = bool(found) and netmap is not None and offers_exit(netmap.node)
        return (*found, DNS_PROXY) if is_exit else tuple(found)

    async def serve_on(self, addresses: Iterable[IPAddress]) -> None:
        """Listen on these addresses and no others; none = end."""
        wanted = tuple(addresses)
        await self._server.serve_on(wanted)
        if wanted and self._house is None:
            self._house = asyncio.create_task(self.taildrop.keep_house())
        elif not wanted and self._house is not None:
            house, self._house = self._house, None
            house.cancel()
            await asyncio.gather(house, return_exceptions=True)
