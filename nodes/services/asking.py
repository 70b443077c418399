"""Asking a connected client something (c2n), from any process: a view, a job, a command beside Redis.

The question goes to the tailnet's group on the channel layer; the web worker that holds the node's stream
asks the client over it and sends the answer back. Only what Trenza's clients know is asked here.
"""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import threading
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from asgiref.sync import async_to_sync
from channels.layers import get_channel_layer
from django.utils import timezone

from accounts.changes import LAYER_ERRORS, publish
from accounts.errors import Conflict
from nodes.hostinfo import text
from nodes.models import Node
from nodes.selectors import is_online

ANSWER_SECONDS = 35.0  # the worker gives a client 30 s
MAX_ASKING = 12  # questions of one process that wait for an answer: each holds a thread that pages need, too
MAX_WORDS = 300
_places = threading.BoundedSemaphore(MAX_ASKING)


class Why(StrEnum):
    """Why a question has no good answer."""

    AWAY = "away"
    SILENT = "silent"
    REFUSED = "refused"


class NodeSilent(Conflict):
    """The device is not connected, did not answer, or said no; the text says which in words."""

    def __init__(self, why: Why, text: str) -> None:
        super().__init__(text)
        self.why = why


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client answered. ``body`` is an object of JSON, or words."""

    status: int
    body: bytes

    @property
    def words(self) -> str:
        """The answer as one readable line."""
        shown = self.body.decode("utf-8", "replace")
        return " ".join("".join(c if c.isprintable() else " " for c in shown).split())[:MAX_WORDS]


def understands_us(node: Node) -> bool:
    """Whether the device runs Trenza's own client, which knows the questions asked here."""
    return text(node.hostinfo, "App").lower() == "trenza"


def ask_node(*, node: Node, path: str, body: Any = None, now: datetime | None = None) -> Reply:
    """POST ``body`` (JSON) to the client's ``path``; raises :class:`NodeSilent`. Not on a server's loop."""
    if not is_online(node, now or timezone.now()):
        raise NodeSilent(Why.AWAY, "the device is not connected")
    if not _places.acquire(blocking=False):
        raise NodeSilent(Why.SILENT, "too many devices are being asked now: try again in a minute")
    try:
        reply = async_to_sync(_ask)(node, path, body)
    finally:
        _places.release()
    if reply.status != 200:
        raise NodeSilent(Why.REFUSED, reply.words or f"the device answered with status {reply.status}")
    return reply


async def _ask(node: Node, path: str, body: Any) -> Reply:
    layer: Any = get_channel_layer()
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            channel = await layer.new_channel()
            await layer.group_send(f"tailnet.{node.tailnet_id}", _question(node, path, body, channel))
            answer = await layer.receive(channel)
    except TimeoutError:
        raise NodeSilent(Why.SILENT, "the device did not answer in time") from None
    except LAYER_ERRORS as error:
        raise NodeSilent(Why.SILENT, "the device cannot be asked now: Redis does not answer") from error
    if answer.get("error"):
        raise NodeSilent(Why.SILENT, answer["error"])
    return _read(answer["response"].encode("latin-1"))


def tell_node(*, node: Node, path: str, body: Any = None) -> None:
    """POST ``body`` to the client's ``path`` without waiting for what becomes of it; from any thread."""
    publish(f"tailnet.{node.tailnet_id}", _question(node, path, body, ""))


def _question(node: Node, path: str, body: Any, reply: str) -> dict[str, Any]:
    """The message of the channel layer; ``reply`` is the channel that waits for the answer, if one does."""
    return {
        "type": "netmap.ask",
        "tailnet": node.tailnet_id,
        "node": node.pk,
        "request": _raw_request(path, body),
        "reply": reply,
    }


def _raw_request(path: str, body: Any) -> str:
    """A raw HTTP/1.1 request; bytes as latin-1 text, for channel layers carry text."""
    content = json.dumps(body if body is not None else {}).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
    return (f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content).decode("latin-1")


class _Bytes:
    """Whole bytes as the socket that :class:`http.client.HTTPResponse` reads."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def makefile(self, mode: str) -> io.BytesIO:
        return self._file


def _read(raw: bytes) -> Reply:
    fake: Any = _Bytes(raw)
    response = http.client.HTTPResponse(fake)
    try:
        response.begin()
        return Reply(response.status, response.read())
    except http.client.HTTPException as error:
        raise NodeSilent(Why.REFUSED, "the device answered with something that is no HTTP") from error
