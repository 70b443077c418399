"""SOCKS5 (RFC 1928): CONNECT and UDP ASSOCIATE without sign-in, for programs on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
from dataclasses import dataclass
from enum import IntEnum

from client.errors import ClientError
from client.proxy.associate import IPV4, IPV6, NAME, Associations, packed
from client.proxy.dialer import Dialer, Unresolved
from client.proxy.splice import Streams, splice

VERSION = 5
NO_SIGN_IN, NOTHING_FITS = 0x00, 0xFF
CONNECT, UDP_ASSOCIATE = 1, 3
# The address that we connect from is nobody's business.
UNSPECIFIED = packed(ipaddress.IPv4Address(0), 0)


class Reply(IntEnum):
    """RFC 1928 §6."""

    DONE = 0
    FAILED = 1
    NO_NETWORK = 3
    NO_HOST = 4
    REFUSED = 5
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS = 8


REPLY_OF_ERRNO = {
    errno.ECONNREFUSED: Reply.REFUSED,
    errno.ENETUNREACH: Reply.NO_NETWORK,
    errno.EHOSTUNREACH: Reply.NO_HOST,
}


class Refused(Exception):
    """What the client asks cannot be done, for this reason."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.name)
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Request:
    """``command`` is CONNECT or UDP_ASSOCIATE; for the latter ``port`` is the program's own, or 0."""

    command: int
    host: str
    port: int


async def greet(client: Streams) -> Request:
    """Everything up to the address asked for; the version byte has been read. Raises :class:`Refused`.

    Also ``IncompleteReadError`` and ``OSError``, for a client that goes, or one that knows no way without a
    sign-in.
    """
    reader, writer = client
    methods = await reader.readexactly((await reader.readexactly(1))[0])
    fits = NO_SIGN_IN in methods
    writer.write(bytes([VERSION, NO_SIGN_IN if fits else NOTHING_FITS]))
    await writer.drain()
    if not fits:
        raise ConnectionAbortedError("no method of signing in fits")
    version, command, _, kind = await reader.readexactly(4)
    if version != VERSION:
        raise ConnectionAbortedError("not SOCKS5")
    host = await _host(reader, kind)
    port = int.from_bytes(await reader.readexactly(2), "big")
    if command not in (CONNECT, UDP_ASSOCIATE):
        raise Refused(Reply.NO_SUCH_COMMAND)
    return Request(command, host, port)


async def _host(reader: asyncio.StreamReader, kind: int) -> str:
    if kind == IPV4:
        return str(ipaddress.IPv4Address(await reader.readexactly(4)))
    if kind == IPV6:
        return str(ipaddress.IPv6Address(await reader.readexactly(16)))
    if kind == NAME:
        length = (await reader.readexactly(1))[0]
        return (await reader.readexactly(length)).decode("ascii", "replace")
    raise Refused(Reply.NO_SUCH_ADDRESS)


async def serve(client: Streams, dialer: Dialer, associations: Associations, greeting_seconds: float) -> None:
    """One client to its end; the version byte has been read. Raises ``OSError``, ``IncompleteReadError``."""
    try:
        async with asyncio.timeout(greeting_seconds):
            asked = await greet(client)
        if asked.command == UDP_ASSOCIATE:
            return await _associate(client, associations, asked.port)
        target = await _dial(dialer, asked.host, asked.port)
    except Refused as error:
        return await _answer(client, error.reply)
    await _answer(client, Reply.DONE)
    return await splice(client, target)


async def _associate(client: Streams, associations: Associations, port: int) -> None:
    here, there = (client[1].get_extra_info(name)[0] for name in ("sockname", "peername"))
    try:
        begun = associations.begin(here, (there, port))
    except OSError as error:
        raise Refused(Reply.FAILED) from error
    with contextlib.closing(begun) as association:
        await _answer(client, Reply.DONE, packed(*association.address))
        await association.run(client[0])


async def _dial(dialer: Dialer, host: str, port: int) -> Streams:
    try:
        return await dialer.dial(host, port)
    except (TimeoutError, Unresolved) as error:
        raise Refused(Reply.NO_HOST) from error
    except OSError as error:
        raise Refused(REPLY_OF_ERRNO.get(error.errno or 0, Reply.FAILED)) from error
    except ClientError as error:
        raise Refused(Reply.FAILED) from error


async def _answer(client: Streams, reply: Reply, bound: bytes = UNSPECIFIED) -> None:
    client[1].write(bytes([VERSION, reply, 0]) + bound)
    await client[1].drain()
