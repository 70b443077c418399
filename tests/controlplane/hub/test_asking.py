"""Questions to clients: on their streams, and over the channel layer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from controlplane.control import c2n
from controlplane.hub.asking import Asker, ClientSilent, ask
from tests.controlplane.hub.world import TAILNET, Letters, World
from tests.controlplane.snapshots import node
from wire.keys import MachinePublic
from wire.netmap import MapResponse

ECHO = b"GET /echo HTTP/1.1\r\n\r\n"


class Answer:
    """What a client's POST gets."""

    def __init__(self) -> None:
        self.status = 0

    def finish(self, body: bytes = b"", status: int = 200, headers: Any = None) -> None:
        self.status = status


async def test_a_client_is_asked_on_its_stream(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    room = world.open_room(node(1), node(2))
    stream = await world.subscribe(1)
    await world.settle(room)
    monkeypatch.setattr(c2n, "get_hub", lambda: world.hub)
    machine, stranger = node(1).machine_key, MachinePublic(bytes(32))
    asking = asyncio.create_task(c2n.ask(tailnet_id=TAILNET, node_id=1, machine_key=machine, request=ECHO))
    await world.until(lambda: "PingRequest" in stream.messages[-1])
    ping = stream.messages[-1]
    assert ping["KeepAlive"] is True
    message = MapResponse.from_json(ping).ping_request
    assert message is not None
    assert message.payload == ECHO
    token = message.url.rpartition("/")[2]
    request: Any = type("Request", (), {"body": b"HTTP/1.1 200 OK\r\n\r\n"})
    c2n._take_answer(token, request, stranger, answer := Answer())  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert not asking.done(), "only the machine that was asked may answer"
    c2n._take_answer(token, request, MachinePublic.parse(machine), answer)  # type: ignore[arg-type]
    assert (await asking, answer.status) == (b"HTTP/1.1 200 OK\r\n\r\n", 204)


async def test_a_client_without_a_stream_is_silent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.open_room(node(1))
    monkeypatch.setattr(c2n, "get_hub", lambda: world.hub)
    with pytest.raises(c2n.ClientSilent):
        await c2n.ask(tailnet_id=TAILNET, node_id=1, machine_key="mkey:", request=b"")
    assert c2n._waiting == {}


async def echo(tailnet_id: int, node_id: int, machine_key: str, request: bytes) -> bytes:
    return f"{tailnet_id} {node_id} {machine_key} ".encode() + request


async def silent(tailnet_id: int, node_id: int, machine_key: str, request: bytes) -> bytes:
    raise ClientSilent("the device did not answer in time")


@pytest.mark.parametrize(
    ("asker", "result"),
    [
        (echo, {"response": f"1 2 {node(2).machine_key} \xff\x00"}),
        (silent, {"error": "the device did not answer in time"}),
        (None, {"error": "this process asks nobody"}),
    ],
)
async def test_who_asked_hears_what_became_of_it(asker: Asker | None, result: Mapping[str, str]) -> None:
    layer = Letters()
    message = {"tailnet": 1, "node": 2, "request": "\xff\x00", "reply": "specific.1"}
    await ask(asker, node(2), message, layer)
    await ask(asker, node(2), message | {"reply": ""}, layer)
    assert layer.answers == [("specific.1", result)]
