"""JSON and the framing of the map stream, with bombs."""

from __future__ import annotations

import contextlib
import struct
import tracemalloc
from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import cuts, json_values, texts
from wire.codec import (
    KEEPALIVE,
    MAX_MAP_BYTES,
    MapDecoder,
    compress,
    decode_json,
    decode_object,
    encode_json,
    frame_map,
)
from wire.errors import FrameError, MessageError, WireError

objects = st.dictionaries(texts, json_values, max_size=4)
SMALL = 64 * 1024


@given(json_values)
def test_json_round_trips(value: Any) -> None:
    assert decode_json(encode_json(value)) == value


def test_json_is_compact_utf8() -> None:
    assert encode_json({"a": "ñ€", "b": [1, True]}) == '{"a":"ñ€","b":[1,true]}'.encode()
    assert KEEPALIVE == b'{"KeepAlive":true}'


@given(st.binary(max_size=100))
def test_bytes_that_are_no_json_are_a_declared_error(junk: bytes) -> None:
    for decode in (decode_json, decode_object):
        with contextlib.suppress(MessageError):
            decode(junk)


@pytest.mark.parametrize(
    "content", [b"[]", b"1", b"null", b'"x"', b"[" * 100_000, b'{"a":' * 100_000, b"NaN"]
)
def test_what_is_no_object_is_a_declared_error(content: bytes) -> None:
    with pytest.raises(MessageError):
        decode_object(content)


def test_json_is_bounded_before_it_is_read() -> None:
    with pytest.raises(MessageError, match="at most"):
        decode_json(b" " * 101, max_bytes=100)


@given(st.lists(objects, max_size=5), st.booleans(), st.lists(st.integers(0, 5000), max_size=10))
def test_a_map_stream_cut_anywhere_gives_its_messages(
    messages: list[dict[str, Any]], zstd: bool, places: list[int]
) -> None:
    bodies = [encode_json(message) for message in messages]
    stream = b"".join(frame_map(compress(body) if zstd else body) for body in bodies)
    decoder = MapDecoder(compress=zstd)
    assert [message for piece in cuts(stream, places) for message in decoder.receive(piece)] == messages


def test_a_frame_is_little_endian_length_and_body() -> None:
    assert frame_map(b"{}") == b"\x02\x00\x00\x00{}"
    assert zstandard.frame_content_size(compress(b"x" * 1000)) == 1000


@given(st.integers(MAX_MAP_BYTES + 1, 2**32 - 1))
def test_a_message_over_the_bound_is_refused_by_its_header(length: int) -> None:
    with pytest.raises(FrameError):
        MapDecoder(compress=False).receive(struct.pack("<I", length))


@given(st.binary(max_size=200), st.booleans())
def test_hostile_streams_are_declared_errors(junk: bytes, zstd: bool) -> None:
    for stream in (junk, frame_map(junk)):
        with contextlib.suppress(WireError):
            MapDecoder(compress=zstd).receive(stream)


@given(objects, st.data())
def test_a_touched_zstd_frame_is_a_declared_error_or_a_message(
    content: dict[str, Any], data: st.DataObject
) -> None:
    packed = bytearray(compress(encode_json(content)))
    packed[data.draw(st.integers(0, len(packed) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(WireError):
        MapDecoder(compress=True).receive(frame_map(bytes(packed)))


def peak_of(stream: bytes) -> int:
    """The most memory that refusing ``stream`` took."""
    decoder = MapDecoder(compress=True, max_bytes=SMALL)
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decoder.receive(stream)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("declares", [True, False])
def test_a_zstd_bomb_is_refused_within_the_bound(declares: bool) -> None:
    compressor = zstandard.ZstdCompressor(level=19, write_content_size=declares)
    if declares:
        bomb = compressor.compress(bytes(64 * 1024 * 1024))
    else:
        packer = compressor.compressobj()
        bomb = b"".join([packer.compress(bytes(64 * 1024 * 1024)), packer.flush()])
    assert len(bomb) < SMALL
    assert peak_of(frame_map(bomb)) < 20 * SMALL


def test_a_bomb_that_lies_about_its_size_is_refused() -> None:
    bomb = bytearray(zstandard.ZstdCompressor(level=1).compress(bytes(1024 * 1024)))
    honest = zstandard.get_frame_parameters(bytes(bomb))
    assert honest.content_size == 1024 * 1024
    at = bytes(bomb).index(struct.pack("<I", 1024 * 1024))
    bomb[at : at + 4] = struct.pack("<I", 100)
    assert peak_of(frame_map(bytes(bomb))) < 20 * SMALL
