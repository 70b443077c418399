"""What the server asks of this node through the map stream (PingRequest), and the answers.

Types "": answer a HEAD. "c2n": run a raw HTTP/1.x request here and post the raw HTTP response back. A list of
ping kinds with an IP: ping that peer. Source: tailscale ipn/ipnlocal/c2n.go, tailcfg (PingRequest).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from client.control.session import Session
from client.errors import ClientError, ControlError
from wire.codec import encode_json
from wire.control import PingRequest

logger = logging.getLogger("trenzad.c2n")

MAX_OPEN = 8
REASONS = {200: "OK", 400: "Bad Request", 405: "Method Not Allowed", 500: "Internal Server Error"}
Ping = Callable[[str], Awaitable[dict[str, Any]]]


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    body: bytes


def parse_request(raw: bytes) -> Request | None:
    """A raw HTTP/1.x request; ``None`` when it is none."""
    head, _, body = raw.partition(b"\r\n\r\n")
    line, _, headers = head.partition(b"\r\n")
    words = line.decode("latin-1").split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not words[1].startswith("/"):
        return None
    size = _content_length(headers, len(body))
    return Request(words[0], words[1].partition("?")[0], body[:size])


def _content_length(headers: bytes, default: int) -> int:
    for line in headers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and value.strip().isdigit():
            return int(value)
    return default


def response(status: int, body: bytes) -> bytes:
    head = f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Answerer:
    """Answers questions, each URL once, a few at a time. What it is made of is the node's."""

    def __init__(
        self,
        *,
        rotate: Callable[[], Awaitable[None]],
        ping: Ping,
        set_exit_node: Callable[[bytes], Awaitable[None]] | None = None,
    ) -> None:
        self._posts: dict[str, Callable[[bytes], Awaitable[None]]] = {
            "/trenza/rotate-node-key": lambda _: rotate()
        }
        if set_exit_node is not None:
            self._posts["/trenza/exit-node"] = set_exit_node
        self._ping = ping
        self._last_url = ""
        self._open = 0

    async def answer(self, session: Session, question: PingRequest) -> None:
        """Never raises for what a server can ask: an answer that cannot be given is logged."""
        if question.url == self._last_url or not question.url_is_noise or self._open >= MAX_OPEN:
            return
        self._last_url = question.url
        self._open += 1
        try:
            await self._answer(session, question)
        except (ControlError, TimeoutError, ValueError) as error:  # the last: a URL that is none
            logger.info("cannot answer %s: %s", question.types[:40] or "HEAD", error)
        finally:
            self._open -= 1

    async def _answer(self, session: Session, question: PingRequest) -> None:
        if not question.types:
            await session.head(question.url)
        elif question.types == "c2n":
            await session.answer(question.url, await self._run(parse_request(question.payload)))
        elif question.ip:
            await session.answer(question.url, encode_json(await self._ping(question.ip)))

    async def _run(self, request: Request | None) -> bytes:
        if request is None:
            return response(400, b"not an HTTP request")
        if request.path == "/echo":
            return response(200, request.body)
        if request.path not in self._posts:
            return response(400, b"unknown path")
        if request.method != "POST":
            return response(405, b"POST only")
        try:
            await self._posts[request.path](request.body)
        except ClientError as error:
            return response(500, str(error).encode())
        return response(200, b"{}")
