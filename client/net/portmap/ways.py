"""The three ways to a mapping, each with the same face: look for it, map, give up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from client.net.portmap import natpmp, pcp
from client.net.portmap.gateway import Channel

log = logging.getLogger(__name__)

UPNP_SECONDS = 10.0
UPNP_DISCOVER_MILLISECONDS = 1000
DESCRIPTION = "Trenza"
CONFLICT, ONLY_PERMANENT = "ConflictInMappingEntry", "OnlyPermanentLeasesSupported"  # errors 718 and 725
OTHER_PORTS = (7919, 15_838, 23_757)  # how far from the first port the next are looked for
NO_HOST = "0.0.0.0"  # noqa: S104 - a router without an address of its own
MAX_LIFETIME = 24 * 3600

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Granted:
    """What a router forwards to us; ``lifetime`` in seconds."""

    external: Address
    lifetime: int


class Way(Protocol):
    """One protocol. Nothing here raises for what a router may do."""

    name: str

    async def is_offered(self, gateway: str) -> bool: ...

    async def map(self, gateway: str, wanted_port: int, lifetime: int) -> Granted | None: ...

    async def unmap(self, gateway: str) -> None: ...


class _OverChannel:
    """What PCP and NAT-PMP share."""

    def __init__(self, *, port: int, mark: int, router_port: int = natpmp.PORT) -> None:
        self._port = port
        self._mark = mark
        self._router_port = router_port

    def _channel(self, gateway: str) -> Channel | None:
        try:
            return Channel(gateway, self._mark, self._router_port)
        except OSError:
            return None


class Pcp(_OverChannel):
    """RFC 6887. ``nonce`` proves over restarts that the mapping is ours."""

    name = "PCP"

    def __init__(self, *, port: int, mark: int, nonce: bytes, router_port: int = natpmp.PORT) -> None:
        super().__init__(port=port, mark=mark, router_port=router_port)
        self._nonce = nonce

    async def is_offered(self, gateway: str) -> bool:
        channel = self._channel(gateway)
        if channel is None:
            return False
        try:
            request = pcp.announce_request(channel.own)
            answer = await channel.ask(request, lambda packet: pcp.parse_answer(packet) or _no_pcp(packet))
            return isinstance(answer, pcp.Answer) and answer.result == pcp.OK
        finally:
            channel.close()

    async def map(self, gateway: str, wanted_port: int, lifetime: int) -> Granted | None:
        channel = self._channel(gateway)
        if channel is None:
            return None
        try:
            request = pcp.map_request(
                channel.own, self._port, wanted_port or self._port, lifetime, self._nonce
            )
            mapped = await channel.ask(request, self._answer)
        finally:
            channel.close()
        if not isinstance(mapped, pcp.Mapped) or not (
            mapped.lifetime and mapped.host and mapped.external_port
        ):
            return None
        return Granted((mapped.host, mapped.external_port), min(mapped.lifetime, MAX_LIFETIME))

    async def unmap(self, gateway: str) -> None:
        await self.map(gateway, 0, 0)

    def _answer(self, packet: bytes) -> pcp.Mapped | bytes | None:
        return pcp.parse_map(packet, self._port, self._nonce) or _no_pcp(packet)


def _no_pcp(packet: bytes) -> bytes | None:
    """The answer of a router that speaks NAT-PMP only: version 0 (RFC 6887 appendix A)."""
    return packet if packet[:1] == b"\0" else None


class NatPmp(_OverChannel):
    """RFC 6886."""

    name = "NAT-PMP"

    async def is_offered(self, gateway: str) -> bool:
        return await self._external_host(gateway) is not None

    async def map(self, gateway: str, wanted_port: int, lifetime: int) -> Granted | None:
        host = await self._external_host(gateway)
        mapped = await self._ask(gateway, wanted_port or self._port, lifetime) if host else None
        if host is None or mapped is None or not mapped.lifetime or not mapped.external_port:
            return None
        return Granted((host, mapped.external_port), min(mapped.lifetime, MAX_LIFETIME))

    async def unmap(self, gateway: str) -> None:
        await self._ask(gateway, 0, 0)

    async def _ask(self, gateway: str, wanted_port: int, lifetime: int) -> natpmp.Mapped | None:
        channel = self._channel(gateway)
        if channel is None:
            return None
        try:
            request = natpmp.map_request(self._port, wanted_port, lifetime)
            return await channel.ask(request, lambda packet: natpmp.parse_map(packet, self._port))
        finally:
            channel.close()

    async def _external_host(self, gateway: str) -> str | None:
        channel = self._channel(gateway)
        if channel is None:
            return None
        try:
            answer = await channel.ask(natpmp.address_request(), natpmp.parse_address)
            return answer.host if answer is not None else None
        finally:
            channel.close()


class Upnp:
    """UPnP-IGD through miniupnpc, whose calls block (they let go of the interpreter) and bear no mark.

    With an exit node in use it therefore reaches the router only while LAN access is allowed.
    """

    name = "UPnP"

    def __init__(self, *, port: int) -> None:
        self._port = port
        self._external_port = 0
        self._router: Any = None

    async def is_offered(self, gateway: str) -> bool:
        self._router = await _in_thread(self._find)
        return self._router is not None

    async def map(self, gateway: str, wanted_port: int, lifetime: int) -> Granted | None:
        if self._router is None:
            self._router = await _in_thread(self._find)
        granted: Granted | None = None
        if self._router is not None:
            granted = await _in_thread(lambda: self._map(wanted_port, lifetime))
        if granted is None:
            self._router = None  # it may be another one next time
        return granted

    async def unmap(self, gateway: str) -> None:
        router, port = self._router, self._external_port
        if router is not None and port:
            await _in_thread(lambda: router.deleteportmapping(port, "UDP"))

    def _find(self) -> Any:
        """Blocks for about a second; raises when no router answers."""
        import miniupnpc  # only here: most networks never need it

        router = miniupnpc.UPnP()
        router.discoverdelay = UPNP_DISCOVER_MILLISECONDS
        router.discover()
        router.selectigd()
        return router

    def _map(self, wanted_port: int, lifetime: int) -> Granted | None:
        host = str(self._router.externalipaddress() or "")
        if not host or host == NO_HOST:
            return None
        first = wanted_port or self._port
        for port in (first, *((first + step) % 0xFFFF + 1 for step in OTHER_PORTS)):
            with contextlib.suppress(_Taken):
                self._add(port, lifetime)
                self._external_port = port
                return Granted((host, port), lifetime)
        return None

    def _add(self, port: int, lifetime: int) -> None:
        """Raises :class:`_Taken` when the port is another host's, ``Exception`` for the rest."""
        router = self._router
        try:
            router.addportmapping(port, "UDP", router.lanaddr, self._port, DESCRIPTION, "", lifetime)
        except Exception as error:
            if CONFLICT in str(error):
                raise _Taken from error
            if ONLY_PERMANENT not in str(error) or not lifetime:
                raise
            self._add(port, 0)  # such a router keeps it until we give it back


class _Taken(Exception):
    """Another host's port."""


async def _in_thread(work: Callable[[], Any]) -> Any:
    """What ``work`` returns; ``None`` when it fails or takes too long."""
    try:
        async with asyncio.timeout(UPNP_SECONDS):
            return await asyncio.to_thread(work)
    except Exception as error:  # noqa: BLE001 - miniupnpc raises just that, in the words of routers
        log.debug("UPnP: %s", error)
        return None
