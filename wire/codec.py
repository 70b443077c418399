"""JSON and the framing of the map stream: u32 little-endian length, then JSON or one zstd frame of it.

Source: tailscale control/controlclient/direct.go (decodeMsg), net/tsaddr; RFC 8878 for zstd.
"""

from __future__ import annotations

import struct
from typing import Any

import orjson
import zstandard

from wire.errors import FrameError, MessageError

LENGTH_BYTES = 4
MAX_MAP_BYTES = 64 * 1024 * 1024
MAX_JSON_BYTES = MAX_MAP_BYTES
KEEPALIVE = b'{"KeepAlive":true}'


def decode_json(data: bytes, max_bytes: int = MAX_JSON_BYTES) -> Any:
    """Parse JSON; raises :class:`MessageError` (also for nesting that is too deep)."""
    if len(data) > max_bytes:
        raise MessageError(f"JSON of {len(data)} bytes (at most {max_bytes})")
    try:
        return orjson.loads(data)
    except (orjson.JSONDecodeError, RecursionError) as error:
        raise MessageError(f"not JSON: {error}") from error


def decode_object(data: bytes, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Parse a JSON object; raises :class:`MessageError` for anything else."""
    value = decode_json(data, max_bytes)
    if not isinstance(value, dict):
        raise MessageError("a JSON object is expected")
    return value


def encode_json(value: Any) -> bytes:
    """Compact UTF-8 without ``\\u`` escapes (some clients die on those)."""
    return orjson.dumps(value)


def compress(data: bytes, level: int = 1) -> bytes:
    """One standalone zstd frame that declares its content size."""
    return zstandard.ZstdCompressor(level=level, write_content_size=True).compress(data)


def frame_map(payload: bytes) -> bytes:
    """One message of a map stream."""
    return struct.pack("<I", len(payload)) + payload


class MapDecoder:
    """The client's end of a map stream: bytes cut anywhere in, message bodies (JSON objects) out."""

    def __init__(self, *, compress: bool, max_bytes: int = MAX_MAP_BYTES) -> None:
        self._zstd = zstandard.ZstdDecompressor() if compress else None
        self._max = max_bytes
        self._buffer = bytearray()

    def receive(self, data: bytes) -> list[dict[str, Any]]:
        """Raises :class:`FrameError`, :class:`MessageError`: both end the stream."""
        self._buffer += data
        messages: list[dict[str, Any]] = []
        while len(self._buffer) >= LENGTH_BYTES:
            (length,) = struct.unpack_from("<I", self._buffer)
            if length > self._max:
                raise FrameError(f"map message of {length} bytes (at most {self._max})")
            if len(self._buffer) < LENGTH_BYTES + length:
                break
            payload = bytes(self._buffer[LENGTH_BYTES : LENGTH_BYTES + length])
            del self._buffer[: LENGTH_BYTES + length]
            messages.append(decode_object(self._decompress(payload), self._max))
        return messages

    def _decompress(self, payload: bytes) -> bytes:
        if self._zstd is None:
            return payload
        try:
            declared = zstandard.frame_content_size(payload)
            if declared > self._max:
                raise FrameError(f"map message inflates to {declared} bytes (at most {self._max})")
            # A frame that declares no size is inflated under the same bound.
            return self._zstd.decompress(payload, max_output_size=self._max)
        except zstandard.ZstdError as error:
            raise MessageError("a map message is not a zstd frame") from error
