"""The rest behind Noise: what the server asks of a client (c2n, pings), and small reports from clients.

A PingRequest on the map stream bears a URL that is used once; the client answers by POST to it over Noise.
Source: tailscale tailcfg/tailcfg.go (PingRequest), ipn/ipnlocal/c2n.go.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import TYPE_CHECKING

from controlplane.control.map import find_node
from controlplane.control.streams import answer_json, answer_text
from controlplane.env import environment
from controlplane.hub import ClientSilent, get_hub
from wire.codec import decode_object
from wire.control import PingRequest, node_key
from wire.errors import MessageError
from wire.fields import lower_names
from wire.keys import MachinePublic

if TYPE_CHECKING:
    from controlplane.control.driver import ResponseStream
    from wire.session import RequestReceived

logger = logging.getLogger("trenza.control")

ANSWER_PATH = "/machine/trenza/answer/"
ANSWER_SECONDS = 30.0
MAX_WAITING = 10_000
# Reports that a client may send and that need no more than "heard"; each names its NodeKey.
HEARD = {
    ("POST", "/machine/update-health"),
    ("POST", "/machine/audit-log"),
    ("PATCH", "/machine/set-device-attr"),
}


_waiting: dict[str, tuple[str, asyncio.Future[bytes]]] = {}


async def ask(*, tailnet_id: int, node_id: int, machine_key: str, request: bytes) -> bytes:
    """Have a client run a raw HTTP/1.x request locally; returns its raw HTTP response.

    Raises :class:`ClientSilent`.
    """
    if len(_waiting) >= MAX_WAITING:
        raise ClientSilent("too many questions are open")
    token = secrets.token_urlsafe(16)
    future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    _waiting[token] = (machine_key, future)
    ping = PingRequest(url=f"{environment().url}{ANSWER_PATH}{token}", types="c2n", payload=request)
    try:
        if not get_hub().send_ping(tailnet_id, node_id, ping.to_json()):
            raise ClientSilent("the device is not connected")
        async with asyncio.timeout(ANSWER_SECONDS):
            return await future
    except TimeoutError:
        raise ClientSilent("the device did not answer in time") from None
    finally:
        del _waiting[token]


async def ask_for_others(tailnet_id: int, node_id: int, machine_key: str, request: bytes) -> bytes:
    """:func:`ask`, for questions that come over the channel layer (:mod:`nodes.services.asking`)."""
    return await ask(tailnet_id=tailnet_id, node_id=node_id, machine_key=machine_key, request=request)


async def handle_other(
    request: RequestReceived, peer: MachinePublic, version: int, stream: ResponseStream, client_address: str
) -> None:
    """Everything but register and map."""
    path = request.path.partition("?")[0]
    if path.startswith(ANSWER_PATH):
        return _take_answer(path.removeprefix(ANSWER_PATH), request, peer, stream)
    if (request.method, path) in HEARD:
        fields = lower_names(decode_object(request.body))
        if await find_node(str(node_key(fields, "nodekey")), peer) is None:
            raise MessageError("the node key does not belong to this machine")
        return answer_json(stream, {})
    return answer_text(stream, 404, "this server has no such feature")


def _take_answer(token: str, request: RequestReceived, peer: MachinePublic, stream: ResponseStream) -> None:
    """Only the machine that was asked may answer; an answer that nobody waits for is thanked and dropped."""
    machine_key, future = _waiting.get(token, ("", None))
    if future is not None and machine_key == str(peer) and not future.done():
        future.set_result(request.body)
    stream.finish(b"", 204 if future is not None else 200)
