"""HTTP on streams: bodies come out as they went in, and whatever else comes is a declared error."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.http1 import (
    MAX_TRAILERS,
    BadRequest,
    Body,
    BrokenOff,
    body_length,
    chunk,
    parse_answer,
    parse_head,
    read_head,
)

pieces = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def fed(data: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1024)
    reader.feed_data(data)
    reader.feed_eof()
    return reader


async def read_all(data: bytes, size: int | None, limit: int = 10_000) -> bytes:
    return await Body(fed(data), size).whole(limit)


@given(pieces, st.binary(max_size=20))
def test_a_chunked_body_is_its_pieces_and_no_more(sent: list[bytes], after: bytes) -> None:
    async def go() -> tuple[bytes, bytes]:
        reader = fed(b"".join(map(chunk, sent)) + chunk(b"") + after)
        body = Body(reader, None)
        whole = await body.whole(10_000)
        assert body.is_read
        return whole, await reader.read()

    assert asyncio.run(go()) == (b"".join(sent), after)


@given(st.binary(max_size=200), st.none() | st.integers(0, 300))
def test_any_bytes_are_a_body_or_a_declared_error(data: bytes, size: int | None) -> None:
    try:
        found = asyncio.run(read_all(data, size))
    except (BadRequest, BrokenOff):
        return
    assert size is None or found == data[:size]


@given(st.binary(max_size=200))
def test_any_head_is_read_or_refused(data: bytes) -> None:
    for parse in (parse_head, parse_answer):
        for head in (data, b"GET / HTTP/1.1\r\n" + data, b"HTTP/1.1 200 OK\r\n" + data):
            try:
                parse(head)
            except BadRequest:
                continue


def test_a_body_has_a_bound() -> None:
    for data, size in ((b"x" * 11, 11), (chunk(b"x" * 11), None)):
        with pytest.raises(BadRequest) as caught:
            asyncio.run(read_all(data, size, limit=10))
        assert caught.value.status == 413


def test_trailers_have_a_bound() -> None:
    assert asyncio.run(read_all(b"0\r\nA: b\r\n\r\n", None)) == b""
    with pytest.raises(BadRequest):
        asyncio.run(read_all(b"0\r\n" + b"A: b\r\n" * MAX_TRAILERS + b"\r\n", None))


def test_a_silent_sender_is_given_up() -> None:
    async def go() -> None:
        await Body(asyncio.StreamReader(), 5, seconds=0.01).read()

    with pytest.raises(TimeoutError):
        asyncio.run(go())


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ({}, 0),
        ({"content-length": "12"}, 12),
        ({"transfer-encoding": "Chunked"}, None),
    ],
)
def test_lengths_are_read(headers: dict[str, str], length: int | None) -> None:
    assert body_length(headers) == length


@pytest.mark.parametrize(
    "headers",
    [
        {"content-length": "+1"},
        {"content-length": "1_0"},
        {"content-length": "²"},
        {"content-length": "9" * 30},
        {"transfer-encoding": "gzip, chunked"},
        {"transfer-encoding": "chunked", "content-length": "0"},
    ],
)
def test_ambiguous_lengths_are_refused(headers: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        body_length(headers)


def test_nothing_is_no_head_and_half_of_one_is_refused() -> None:
    assert asyncio.run(_head(b"")) == b""
    with pytest.raises(BadRequest):
        asyncio.run(_head(b"GET / HT"))


async def _head(data: bytes) -> bytes:
    return await read_head(fed(data))
