"""The HTTP proxy: CONNECT, and plain requests."""

from __future__ import annotations

import asyncio

import pytest

from client.http1 import BadRequest
from client.proxy.web import authority, parse
from tests.client.proxy.scene import Elsewhere, client, echo, origin, proxy


class Origin:
    """Answers every request alike and remembers its bytes."""

    def __init__(self) -> None:
        self.asked = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in self.asked:
            self.asked += await reader.readuntil(b"0\r\n\r\n")
        elif b"ontent-" in self.asked:
            self.asked += await reader.readexactly(4)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        writer.close()


async def ask(port: int, request: bytes) -> bytes:
    async with client(port) as (reader, writer):
        writer.write(request)
        return await reader.read(-1)


async def test_connect_makes_one_of_two_connections() -> None:
    async with origin(echo) as target, proxy() as port, client(port) as (reader, writer):
        writer.write(f"CONNECT 127.0.0.1:{target} HTTP/1.1\r\nHost: x\r\n\r\nearly".encode())
        assert b" 200 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b" and late")
        writer.write_eof()
        assert await reader.read(-1) == b"early and late"


async def test_a_plain_request_goes_on_without_what_concerns_the_proxy() -> None:
    seen, tunnel = Origin(), Elsewhere()
    async with origin(seen) as target, proxy(tunnel) as port:
        answer = await ask(
            port,
            f"GET http://ben:{target}/a?b=c HTTP/1.1\r\nHost: other\r\nProxy-Connection: keep-alive\r\n"
            "Proxy-Authorization: Basic c2VjcmV0\r\nCookie: a\r\nCookie: b\r\n\r\n".encode(),
        )
    assert answer.endswith(b"\r\n\r\nhi")
    lines = seen.asked.decode().split("\r\n")
    assert lines[0] == "GET /a?b=c HTTP/1.1"
    assert lines[1:5] == [f"Host: ben:{target}", "Cookie: a", "Cookie: b", "Connection: close"]
    assert tunnel.opened == 1


async def test_bodies_go_on_by_their_length_and_by_their_chunks() -> None:
    seen = Origin()
    async with origin(seen) as target, proxy() as port:
        head = f"POST http://127.0.0.1:{target} HTTP/1.1\r\nHost: x\r\n"
        await ask(port, f"{head}Content-Length: 4\r\n\r\nbodyGET http://evil/ HTTP/1.1\r\n\r\n".encode())
        assert seen.asked.startswith(b"POST / HTTP/1.1\r\n")
        assert seen.asked.endswith(b"\r\n\r\nbody")
        chunks = "2\r\nbo\r\n2;x=y\r\ndy\r\n0\r\n\r\n"
        await ask(port, f"{head}Transfer-Encoding: chunked\r\n\r\n{chunks}".encode())
        assert seen.asked.endswith(b"0\r\n\r\n")


async def test_a_client_that_waits_for_leave_has_it() -> None:
    async with origin(Origin()) as target, proxy() as port, client(port) as (reader, writer):
        head = f"POST http://127.0.0.1:{target}/ HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        writer.write(f"{head}Content-Length: 4\r\n\r\n".encode())
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"body")
        assert (await reader.read(-1)).endswith(b"hi")


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        ("GET / HTTP/1.1", b"400"),
        ("GET https://127.0.0.1/ HTTP/1.1", b"400"),
        ("CONNECT 127.0.0.1 HTTP/1.1", b"400"),
        ("CONNECT a@127.0.0.1:80 HTTP/1.1", b"400"),
        ("NONSENSE", b"400"),
        ("CONNECT 127.0.0.1:1 HTTP/1.1", b"502"),
        ("GET http://nobody.invalid/ HTTP/1.1", b"502"),
    ],
)
async def test_what_cannot_be_is_refused_in_words(request_line: str, status: bytes) -> None:
    async with proxy() as port:
        answer = await ask(port, f"{request_line}\r\nHost: x\r\n\r\n".encode())
    head, _, words = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert words.endswith(b"\n")


async def test_an_ambiguous_length_is_refused() -> None:
    async with origin(Origin()) as target, proxy() as port:
        head = f"POST http://127.0.0.1:{target}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
        for second in ("Content-Length: 5", "Transfer-Encoding: chunked"):
            answer = await ask(port, f"{head}{second}\r\n\r\nbody".encode())
            assert answer.split()[1] == b"400"


async def test_a_kind_that_is_not_served_is_hung_up_on() -> None:
    async with proxy(web=False) as port:
        assert await ask(port, b"GET http://a/ HTTP/1.1\r\n\r\n") == b""
    async with proxy(socks=False) as port:
        assert await ask(port, b"\x05\x01\x00") == b""


def test_parsing_refuses_what_is_malformed() -> None:
    for head in (b"GET /\r\n\r\n", b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"G ET / HTTP/1.1\r\n\r\n"):
        with pytest.raises(BadRequest):
            parse(head)
    assert authority("[::1]:80", None) == ("::1", 80)
    assert authority("ben", 80) == ("ben", 80)
    for text in ("", ":80", "ben", "ben:0", "ben:99999", "ben:80/x"):
        with pytest.raises(BadRequest):
            authority(text, None)
