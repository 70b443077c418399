"""The little HTTP/1.1 that a relay speaks: request heads in, responses out. Pure bytes, no socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from relay.limits import MAX_HTTP_HEAD_BYTES
from wire.errors import FrameError

END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """One request's head. Names in ``headers`` are lower-case; a repeated one's values are joined."""

    method: str
    path: str
    http11: bool
    headers: Mapping[str, str]
    head: bytes

    @property
    def has_body(self) -> bool:
        return self.headers.get("content-length", "0") != "0" or "transfer-encoding" in self.headers

    @property
    def keeps_alive(self) -> bool:
        tokens = _tokens(self.headers.get("connection", ""))
        return not self.has_body and ("close" not in tokens if self.http11 else "keep-alive" in tokens)

    def lists(self, header: str, token: str) -> bool:
        return token in _tokens(self.headers.get(header, ""))


def _tokens(value: str) -> set[str]:
    return {part.strip().lower() for part in value.split(",")}


def parse_request(data: bytes) -> tuple[Request, bytes] | None:
    """A request and the bytes after its head; ``None`` while it is not whole. Raises :class:`FrameError`."""
    end = data.find(END_OF_HEAD)
    if end < 0:
        if len(data) > MAX_HTTP_HEAD_BYTES:
            raise FrameError("the HTTP request's head does not end")
        return None
    if end > MAX_HTTP_HEAD_BYTES:
        raise FrameError("the HTTP request's head is too long")
    head = data[: end + len(END_OF_HEAD)]
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
        path = urlsplit(target).path
    except ValueError:
        raise FrameError("not an HTTP request") from None
    if not version.startswith("HTTP/1."):
        raise FrameError("not HTTP/1.1")
    return Request(method, path, version != "HTTP/1.0", _headers(lines), head), data[len(head) :]


def _headers(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise FrameError("a malformed HTTP header")
        name, value = name.lower(), value.strip()
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def response(
    status: HTTPStatus,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    keep_alive: bool = False,
    head_only: bool = False,
) -> bytes:
    """A whole response; ``head_only`` leaves the body away but not its length (HEAD)."""
    fields = {**(headers or {})}
    if status != HTTPStatus.NO_CONTENT:
        fields["Content-Length"] = str(len(body))
    fields["Connection"] = "keep-alive" if keep_alive else "close"
    return _head(status, fields) + (b"" if head_only else body)


def switching(headers: Mapping[str, str]) -> bytes:
    """101: the protocol changes behind this head."""
    return _head(HTTPStatus.SWITCHING_PROTOCOLS, headers)


def _head(status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode("latin-1") + END_OF_HEAD
