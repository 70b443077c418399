"""SOCKS5, as RFC 1928 has it."""

from __future__ import annotations

import asyncio

import pytest

from client.proxy.socks import Reply
from client.proxy.splice import reset
from tests.client.proxy.scene import Elsewhere, client, echo, origin, proxy

GREETING = b"\x05\x02\x02\x00"
NO_SIGN_IN = b"\x05\x00"


def connect(port: int, host: str = "127.0.0.1", *, command: int = 1) -> bytes:
    name = host.encode()
    return bytes([5, command, 0, 3, len(name)]) + name + port.to_bytes(2, "big")


async def test_it_connects_and_passes_ends_on() -> None:
    async with origin(echo) as target, proxy() as port, client(port) as (reader, writer):
        writer.write(GREETING)
        assert await reader.readexactly(2) == NO_SIGN_IN
        writer.write(bytes([5, 1, 0, 1, 127, 0, 0, 1]) + target.to_bytes(2, "big") + b"early")
        assert (await reader.readexactly(10))[:2] == bytes([5, Reply.DONE])
        writer.write(b" and late" * 100_000)
        writer.write_eof()
        assert await reader.read(-1) == b"early" + b" and late" * 100_000


@pytest.mark.parametrize("name", ["ben", "ben.tail.example", "BEN.tail.example.", "100.64.0.2"])
async def test_the_tailnets_names_lead_into_the_tunnel(name: str) -> None:
    tunnel = Elsewhere()
    async with origin(echo) as target, proxy(tunnel) as port, client(port) as (reader, writer):
        writer.write(GREETING + connect(target, name))
        assert (await reader.readexactly(12))[2:4] == bytes([5, Reply.DONE])
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
    assert tunnel.opened == 1


async def test_what_cannot_be_is_refused_by_number() -> None:
    with_nobody = connect(1)
    unknown = connect(80, "nobody.invalid")
    for request, reply in (
        (with_nobody, Reply.REFUSED),
        (unknown, Reply.NO_HOST),
        (connect(80, command=2), Reply.NO_SUCH_COMMAND),
        (bytes([5, 1, 0, 9]), Reply.NO_SUCH_ADDRESS),
    ):
        async with proxy() as port, client(port) as (reader, writer):
            writer.write(GREETING + request)
            assert (await reader.readexactly(12))[2:4] == bytes([5, reply])
            assert await reader.read(-1) == b""


@pytest.mark.parametrize("greeting", [b"\x05\x01\x02", b"\x05\x00"])
async def test_a_client_that_must_sign_in_is_told_so(greeting: bytes) -> None:
    async with proxy() as port, client(port) as (reader, writer):
        writer.write(greeting)
        assert await reader.read(-1) == b"\x05\xff"


@pytest.mark.parametrize("noise", [b"\x04\x01\x00\x50", b"\x00", b"\x05\x01\x00\x04\x01\x00\x01"])
async def test_anything_else_is_hung_up_on(noise: bytes) -> None:
    async with proxy() as port, client(port) as (reader, writer):
        writer.write(noise)
        writer.write_eof()
        assert await reader.read(-1) in (b"", NO_SIGN_IN)


async def test_a_target_that_breaks_off_breaks_off_the_client() -> None:
    async def break_off(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        reset(writer)

    async with origin(break_off) as target, proxy() as port, client(port) as (reader, writer):
        writer.write(GREETING + connect(target))
        await reader.readexactly(12)
        writer.write(b"x" * 100_000)
        with pytest.raises(ConnectionError):
            await reader.read(-1)


async def test_localhost_is_this_host_for_everybody() -> None:
    async with origin(echo) as target, proxy() as port, client(port) as (reader, writer):
        writer.write(GREETING + connect(target, "app.localhost"))
        assert (await reader.readexactly(12))[2:4] == bytes([5, Reply.DONE])
