"""The router that this host's IPv4 traffic leaves through, and a marked UDP channel to its port mapper."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeVar

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError

from client.net.marks import mark_socket
from client.net.portmap.natpmp import PORT

MAIN_TABLE = 254
TRY_SECONDS = (0.25, 0.5, 1.0)  # RFC 6886 §3.1, RFC 6887 §8.1.1; both go on for longer than we care to wait
MAX_ANSWER_BYTES = 1100  # RFC 6887 §7

T = TypeVar("T")


async def find_gateway() -> str | None:
    """The next hop of the default route with the least metric; ``None`` where there is none."""
    try:
        async with AsyncIPRoute() as netlink:
            found = []
            async for route in await netlink.get_routes(family=socket.AF_INET):
                via = route.get_attr("RTA_GATEWAY")
                table = route.get_attr("RTA_TABLE") or route["table"]
                if via and not route["dst_len"] and table == MAIN_TABLE:
                    found.append((route.get_attr("RTA_PRIORITY") or 0, str(via)))
    except (NetlinkError, OSError):
        return None
    return min(found)[1] if found else None


class Channel:
    """Requests to one gateway, answers from it alone (the socket is connected). Close it."""

    def __init__(self, gateway: str, mark: int, port: int = PORT) -> None:
        """Raises ``OSError`` when there is no way to the gateway."""
        self._sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            mark_socket(self._sock, mark)
            self._sock.connect((gateway, port))
            self.own: str = self._sock.getsockname()[0]
        except BaseException:
            self._sock.close()
            raise

    def close(self) -> None:
        self._sock.close()

    async def ask(self, request: bytes, parse: Callable[[bytes], T | None]) -> T | None:
        """The first answer that ``parse`` takes; ``None`` when none comes, or nobody listens there."""
        for seconds in TRY_SECONDS:
            try:
                self._sock.send(request)
                async with asyncio.timeout(seconds):
                    return await self._answer(parse)
            except TimeoutError:
                continue
            except OSError:  # port unreachable, or no way there any more
                return None
        return None

    async def _answer(self, parse: Callable[[bytes], T | None]) -> T:
        while True:
            packet = await asyncio.get_running_loop().sock_recv(self._sock, MAX_ANSWER_BYTES)
            if (found := parse(packet)) is not None:
                return found
