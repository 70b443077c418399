"""The control protocol's questions, typed, on an open :class:`client.control.link.Link`.

Source: tailscale control/controlclient/direct.go.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from client.control.dial import BUSY, retry_after
from client.control.link import Answer, Link
from client.errors import ControlError, LoginError, UnknownNode
from wire.codec import MapDecoder, decode_object, encode_json
from wire.control import MapRequest, RegisterRequest, RegisterResponse
from wire.errors import WireError
from wire.keys import NodePublic
from wire.netmap import MapResponse

WATCHDOG_SECONDS = 120.0  # a keepalive comes every 50 to 60 s
HEAD_SECONDS = 15.0
DEFAULT_RETRY_SECONDS = 7.5
MAX_RETRIES = 20
MAX_WORDS = 200
NewKey = Callable[[], NodePublic]


class Session:
    """What a joined, or joining, node asks of its server."""

    def __init__(self, link: Link) -> None:
        self.link = link

    async def register(self, request: RegisterRequest) -> RegisterResponse:
        """One register request; waits out HTTP 429. A follow-up waits until a person has decided.

        Raises :class:`LoginError` with the server's words when it refuses.
        """
        body = encode_json(request.to_json())
        for _ in range(MAX_RETRIES):
            answer = await self.link.request("POST", "/machine/register", body, patience=_patience(request))
            if answer.status != 429:
                break
            await asyncio.sleep(_asked_for(answer) or DEFAULT_RETRY_SECONDS)
        _check(answer, "registration")
        try:
            response = RegisterResponse.from_json(decode_object(answer.body))
        except WireError as error:
            raise ControlError(f"the server's answer to the registration makes no sense: {error}") from error
        if response.error:
            raise LoginError(one_line(response.error))
        return response

    async def poll(self, request: MapRequest) -> AsyncGenerator[MapResponse, None]:
        """The map stream, until it ends; raises :class:`UnknownNode` when the node key is not known."""
        decoder = MapDecoder(compress=request.compress == "zstd")
        async with self.link.stream("POST", "/machine/map", encode_json(request.to_json())) as exchange:
            try:
                async with asyncio.timeout(WATCHDOG_SECONDS):
                    status = await exchange.head()
                if status != 200:
                    body = await exchange.read()
                    _check(Answer(status, exchange.headers, body), "network map")
                while True:
                    async with asyncio.timeout(WATCHDOG_SECONDS):
                        data = await exchange.read()
                    if not data:
                        return
                    for message in decoder.receive(data):
                        yield MapResponse.from_json(message)
            except TimeoutError:
                raise ControlError("the network map stream went silent") from None
            except WireError as error:
                raise ControlError(f"the server's network map makes no sense: {error}") from error

    async def update(self, request: MapRequest) -> None:
        """A lite update: what this node says of itself."""
        lite = replace(request, stream=False, omit_peers=True, keep_alive=False)
        _check(await self.link.request("POST", "/machine/map", encode_json(lite.to_json())), "report")

    async def answer(self, url: str, body: bytes) -> None:
        """Post the answer to something that the server asked for in the map stream."""
        await self.link.request("POST", _path(url), body)

    async def head(self, url: str) -> None:
        await self.link.request("HEAD", _path(url), patience=HEAD_SECONDS)


@dataclass(frozen=True, slots=True)
class Registered:
    """The server took ``node_key``."""

    node_key: NodePublic
    response: RegisterResponse


async def login(
    session: Session,
    request: RegisterRequest,
    *,
    new_key: NewKey,
    on_url: Callable[[str], Awaitable[None]],
) -> Registered:
    """Register until the server lets this node in, showing each AuthURL; raises :class:`LoginError`.

    The order is the protocol's: an expired key is replaced once, then an AuthURL is followed up.
    """
    renewed = False
    while True:
        response = await session.register(request)
        if response.node_key_expired:
            if renewed:
                raise LoginError(
                    "the server says that a brand-new key has expired: its clock or ours is wrong"
                )
            renewed = True
            request = replace(request, node_key=new_key(), followup="")
        elif response.auth_url:
            await on_url(response.auth_url)
            request = replace(request, followup=response.auth_url, auth_key="")
        else:
            return Registered(request.node_key, response)


def one_line(text: str) -> str:
    """A server's words as they may stand in a log or on a terminal."""
    readable = "".join(character if character.isprintable() else " " for character in text[: 2 * MAX_WORDS])
    return " ".join(readable.split())[:MAX_WORDS]


def _patience(request: RegisterRequest) -> float | None:
    return None if request.followup else 30.0


def _path(url: str) -> str:
    parts = urlsplit(url)
    return (parts.path or "/") + (f"?{parts.query}" if parts.query else "")


def _check(answer: Answer, subject: str) -> None:
    if answer.status == 200:
        return
    words = one_line(answer.body.decode("utf-8", "replace"))
    if answer.status == 404 and subject != "registration":
        raise UnknownNode(words or "the server does not know this node")
    raise ControlError(
        f"the server refuses the {subject} (HTTP {answer.status}): {words or 'without a word'}",
        retry_after=_asked_for(answer) if answer.status in BUSY else 0.0,
    )


def _asked_for(answer: Answer) -> float:
    return retry_after(answer.headers.get("retry-after", ""))
