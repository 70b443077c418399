"""A router's Internet Gateway Device, found and told by sockets that bear the mark. Nobody else is heard."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass

from client.errors import ClientError
from client.http1 import BUFFER_BYTES, Body, body_length, parse_answer, read_head
from client.net.marks import mark_socket
from client.net.portmap import upnp
from client.net.portmap.gateway import TRY_SECONDS, Channel

log = logging.getLogger(__name__)

ASK_SECONDS = 4.0
MAX_SEARCH_BYTES = 2048
MAX_LOCATIONS = 4
MAX_BODY_BYTES = 256 * 1024
OK = 200


class UpnpError(Exception):
    """The router refuses, with a code of UPnP's, or makes no sense (``None``)."""

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Igd:
    """``own``: our IPv4 address towards the gateway. Every method raises :class:`UpnpError`."""

    gateway: str
    own: str
    service: upnp.Service
    mark: int

    async def external_host(self) -> str | None:
        return upnp.parse_external_host(await self._control("GetExternalIPAddress", {}))

    async def add(self, port: int, own_port: int, *, name: str, lifetime: int) -> None:
        """Forward the router's UDP ``port`` to us; ``lifetime`` in seconds, 0 = for ever."""
        arguments = {
            "NewRemoteHost": "",
            "NewExternalPort": port,
            "NewProtocol": upnp.UDP,
            "NewInternalPort": own_port,
            "NewInternalClient": self.own,
            "NewEnabled": 1,
            "NewPortMappingDescription": name,
            "NewLeaseDuration": lifetime,
        }
        await self._control("AddPortMapping", arguments)

    async def delete(self, port: int) -> None:
        arguments = {"NewRemoteHost": "", "NewExternalPort": port, "NewProtocol": upnp.UDP}
        await self._control("DeletePortMapping", arguments)

    async def _control(self, action: str, arguments: Mapping[str, object]) -> str:
        request = upnp.control_request(self.gateway, self.service, action, arguments)
        status, text = await _ask(self.gateway, self.service.place.port, request, self.mark)
        if status != OK:
            code = upnp.parse_error(text)
            raise UpnpError(f"{action}: the router says {code or status}", code)
        return text


async def find_igds(gateway: str, mark: int, search_port: int = upnp.SEARCH_PORT) -> list[Igd]:
    """What maps ports at the gateway, each connection of it; none within some seconds = it does not."""
    try:
        channel = Channel(gateway, mark, search_port)
    except OSError:
        return []
    own = channel.own
    channel.close()
    async with contextlib.aclosing(_locations(gateway, own, mark, search_port)) as locations:
        async for location in locations:
            if services := await _services(gateway, location, mark):
                return [Igd(gateway, own, service, mark) for service in services]
    return []


async def _services(gateway: str, location: str, mark: int) -> list[upnp.Service]:
    place = upnp.place_of(location)
    if place is None:
        return []
    try:
        status, text = await _ask(gateway, place.port, upnp.get_request(gateway, place), mark)
    except UpnpError as error:
        log.debug("UPnP: %s", error)
        return []
    return upnp.parse_description(text, location) if status == OK else []


async def _locations(gateway: str, own: str, mark: int, port: int) -> AsyncGenerator[str, None]:
    """The descriptions that the gateway tells of, as they are heard of."""
    loop, heard = asyncio.get_running_loop(), set[str]()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        mark_socket(sock, mark)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
        for seconds in TRY_SECONDS:
            _send_searches(sock, gateway, port)
            until = loop.time() + seconds
            while len(heard) < MAX_LOCATIONS and (packet := await _hear(sock, gateway, until)) is not None:
                location = upnp.parse_search(packet)
                if location is not None and location not in heard:
                    heard.add(location)
                    yield location


def _send_searches(sock: socket.socket, gateway: str, port: int) -> None:
    """To the group, as is proper, and to the gateway: many a firewall lets in only whom we spoke to."""
    for host in (gateway, upnp.SEARCH_GROUP):
        for sought in upnp.SOUGHT:
            with contextlib.suppress(OSError):
                sock.sendto(upnp.search_request(sought), (host, port))


async def _hear(sock: socket.socket, gateway: str, until: float) -> bytes | None:
    """What the gateway says next; ``None`` when it says nothing more ``until`` then (the loop's time)."""
    try:
        async with asyncio.timeout_at(until):
            while True:
                packet, source = await asyncio.get_running_loop().sock_recvfrom(sock, MAX_SEARCH_BYTES)
                if source[0] == gateway:
                    return packet
    except (TimeoutError, OSError):
        return None


async def _ask(gateway: str, port: int, request: bytes, mark: int) -> tuple[int, str]:
    """Status and body of the gateway's answer; raises :class:`UpnpError`."""
    try:
        async with asyncio.timeout(ASK_SECONDS):
            reader, writer = await _connect(gateway, port, mark)
            try:
                writer.write(request)
                return await _answer(reader)
            finally:
                writer.transport.abort()
    except (OSError, ClientError, TimeoutError) as error:
        raise UpnpError(f"{gateway} port {port}: {error or 'no answer in time'}") from error


async def _connect(gateway: str, port: int, mark: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        mark_socket(sock, mark)
        await asyncio.get_running_loop().sock_connect(sock, (gateway, port))
        return await asyncio.open_connection(sock=sock, limit=BUFFER_BYTES)
    except BaseException:
        sock.close()
        raise


async def _answer(reader: asyncio.StreamReader) -> tuple[int, str]:
    status, headers = parse_answer(await read_head(reader))
    if "content-length" in headers or "transfer-encoding" in headers:
        body = await Body(reader, body_length(headers)).whole(MAX_BODY_BYTES)
    else:
        body = await _rest(reader)
    return status, body.decode("utf-8", "replace")


async def _rest(reader: asyncio.StreamReader) -> bytes:
    """Up to the end of the connection (RFC 9112 §6.3), or as much as is read of anybody."""
    data = b""
    while len(data) < MAX_BODY_BYTES and (piece := await reader.read(MAX_BODY_BYTES - len(data))):
        data += piece
    return data
