"""SOCKS5 (RFC 1928): CONNECT without sign-in, for programs on this machine."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
from enum import IntEnum

from client.errors import ClientError
from client.proxy.dialer import Dialer, Unresolved
from client.proxy.splice import Streams, splice

VERSION = 5
NO_SIGN_IN, NOTHING_FITS = 0x00, 0xFF
CONNECT = 1
IPV4, NAME, IPV6 = 1, 3, 4
UNSPECIFIED = bytes([0, IPV4, 0, 0, 0, 0, 0, 0])  # the address that we connect from is nobody's business


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


async def greet(client: Streams) -> tuple[str, int]:
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
    if command != CONNECT:
        raise Refused(Reply.NO_SUCH_COMMAND)
    return host, port


async def _host(reader: asyncio.StreamReader, kind: int) -> str:
    if kind == IPV4:
        return str(ipaddress.IPv4Address(await reader.readexactly(4)))
    if kind == IPV6:
        return str(ipaddress.IPv6Address(await reader.readexactly(16)))
    if kind == NAME:
        length = (await reader.readexactly(1))[0]
        return (await reader.readexactly(length)).decode("ascii", "replace")
    raise Refused(Reply.NO_SUCH_ADDRESS)


async def serve(client: Streams, dialer: Dialer, greeting_seconds: float) -> None:
    """One client to its end; the version byte has been read. Raises ``OSError``, ``IncompleteReadError``."""
    try:
        async with asyncio.timeout(greeting_seconds):
            host, port = await greet(client)
        target = await _dial(dialer, host, port)
    except Refused as error:
        return await _answer(client, error.reply)
    await _answer(client, Reply.DONE)
    return await splice(client, target)


async def _dial(dialer: Dialer, host: str, port: int) -> Streams:
    try:
        return await dialer.dial(host, port)
    except (TimeoutError, Unresolved) as error:
        raise Refused(Reply.NO_HOST) from error
    except OSError as error:
        raise Refused(REPLY_OF_ERRNO.get(error.errno or 0, Reply.FAILED)) from error
    except ClientError as error:
        raise Refused(Reply.FAILED) from error


async def _answer(client: Streams, reply: Reply) -> None:
    client[1].write(bytes([VERSION, reply]) + UNSPECIFIED)
    await client[1].drain()
