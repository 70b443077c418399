"""uvicorn's HTTP/1.1 protocol, with bounds on what strangers may take.

A request must be whole in time, its head and its body are bounded, and so are all bodies together: a worker
that holds :data:`MAX_BODIES_BYTES` of them lets go of the one that has been arriving for longest. uvicorn
itself knows only a bound on idle connections.
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_SECONDS = 10.0  # from the connection, or a request's first byte, to its whole head
BODY_SECONDS = 60.0  # from there to the whole body
MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 4 * 1024 * 1024
MAX_BODIES_BYTES = 64 * 1024 * 1024  # of all requests that are not answered yet, in this process


def _refusal(status: str, text: str) -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\n"
        f"Content-Length: {len(text)}\r\n\r\n{text}"
    ).encode()


TOO_LARGE = _refusal("413 Content Too Large", "The request body is too large.")
TOO_BUSY = _refusal("503 Service Unavailable", "Too much is being sent at once; try again soon.")


class Bodies:
    """How much of requests' bodies this process holds, by connection, the longest held first."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self._held: dict[BoundedHttpProtocol, int] = {}

    def add(self, owner: BoundedHttpProtocol, size: int) -> None:
        """Count ``size`` more bytes of ``owner``; over the limit, the oldest connections are refused."""
        self._held[owner] = self._held.get(owner, 0) + size
        self.total += size
        while self.total > self.limit:
            oldest = next(iter(self._held))
            self.release(oldest)
            oldest.refuse(TOO_BUSY)

    def release(self, owner: BoundedHttpProtocol) -> None:
        self.total -= self._held.pop(owner, 0)


class BoundedHttpProtocol(HttpToolsProtocol):
    """One HTTP connection; a request that exceeds a bound is refused and its connection closed."""

    bodies = Bodies(MAX_BODIES_BYTES)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_bytes = self._body_bytes = 0
        self._deadline = self.loop.call_later(HEAD_SECONDS, transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        self.bodies.release(self)
        super().connection_lost(exc)

    def _expect_within(self, seconds: float) -> None:
        self._deadline.cancel()
        self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def refuse(self, answer: bytes) -> None:
        """Say why and close; whatever else arrives is dropped."""
        if self.pipeline or (self.cycle is not None and self.cycle.response_started):
            self.transport.abort()  # words would get into another answer
        elif not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._expect_within(HEAD_SECONDS)
        self._head_bytes = self._body_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._expect_within(BODY_SECONDS)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        if self._body_bytes > MAX_BODY_BYTES:
            self.refuse(TOO_LARGE)
        if self.transport.is_closing():
            return
        super().on_body(body)
        if not self.cycle.response_complete:  # else uvicorn has dropped it
            self.bodies.add(self, len(body))

    def on_message_complete(self) -> None:
        self._deadline.cancel()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if not self.pipeline:  # else part of the next body may be counted already
            self.bodies.release(self)
        super().on_response_complete()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def _count_head(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            raise httptools.HttpParserError("request head too large")
