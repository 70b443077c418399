"""The three ways to a mapping, each with the same face: look for it, map, give up."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from typing import Protocol

from client.net.portmap import natpmp, pcp, upnp
from client.net.portmap.gateway import Channel
from client.net.portmap.igd import Igd, UpnpError, find_igds

log = logging.getLogger(__name__)

UPNP_SECONDS = 10.0
DESCRIPTION = "Trenza"
OTHER_PORTS = (7919, 15_838, 23_757)  # how far from the first port the next are looked for
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
    """UPnP-IGD. What was found is kept as long as it does as it is told."""

    name = "UPnP"

    def __init__(self, *, port: int, mark: int, search_port: int = upnp.SEARCH_PORT) -> None:
        self._port = port
        self._mark = mark
        self._search_port = search_port
        self._igds: list[Igd] = []
        self._mapped: tuple[Igd, int] | None = None  # with its external port

    async def is_offered(self, gateway: str) -> bool:
        return bool(await self._find(gateway, anew=True))

    async def map(self, gateway: str, wanted_port: int, lifetime: int) -> Granted | None:
        for igd in await self._find(gateway):
            try:
                async with asyncio.timeout(UPNP_SECONDS):
                    granted = await self._map(igd, wanted_port or self._port, lifetime)
            except (UpnpError, TimeoutError) as error:
                log.debug("UPnP: %s", error or "no answer in time")
                continue
            if granted is not None:
                self._mapped = igd, granted.external[1]
                return granted
        self._igds = []  # it may be another one next time
        return None

    async def unmap(self, gateway: str) -> None:
        if self._mapped is not None:
            igd, port = self._mapped
            self._mapped = None
            with contextlib.suppress(UpnpError):
                await igd.delete(port)

    async def _find(self, gateway: str, *, anew: bool = False) -> list[Igd]:
        if anew or not self._igds or self._igds[0].gateway != gateway:
            self._igds = await find_igds(gateway, self._mark, self._search_port)
        return self._igds

    async def _map(self, igd: Igd, first: int, lifetime: int) -> Granted | None:
        """The first port, or another where that is another host's; raises :class:`UpnpError`."""
        host = await igd.external_host()
        if host is None:
            return None
        for port in (first, *((first + step) % 0xFFFF + 1 for step in OTHER_PORTS)):
            try:
                await self._add(igd, port, lifetime)
            except UpnpError as error:
                if error.code != upnp.CONFLICT:
                    raise
            else:
                return Granted((host, port), lifetime)
        return None

    async def _add(self, igd: Igd, port: int, lifetime: int) -> None:
        try:
            await igd.add(port, self._port, name=DESCRIPTION, lifetime=lifetime)
        except UpnpError as error:
            if error.code != upnp.ONLY_PERMANENT or not lifetime:
                raise
            await self._add(igd, port, 0)  # such a router keeps it until we give it back
