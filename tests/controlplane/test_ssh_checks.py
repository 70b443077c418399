"""SSH sessions that the policy checks, over the real control protocol: held, let in or not, remembered."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.controlplane.devices import CARRIERS, Answer, Device, devices
from tests.controlplane.serving import Person, Serve, serving
from wire.codec import decode_object


@dataclass
class World:
    """A running server with the default policy, and keys for devices of its owner and for tagged ones."""

    server: Serve
    owners: str
    tagged: str


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("server") / "data") as server:
        owners = server.auth_key("--reusable", "--preapproved")
        yield World(server, owners, server.auth_key("--reusable", "--preapproved", "--tag=tag:web"))


@dataclass
class Session:
    """A laptop that wants to get into a server by SSH, and what the server's client asks about that."""

    world: World
    laptop: int
    server: Device
    server_id: int

    async def question(self, url: str) -> Answer:
        """GET an SSHAction's URL, as a client does: by its path, over the control connection."""
        parts = urlsplit(url)
        return await (await self.server.connected()).request("GET", f"{parts.path}?{parts.query}", b"")

    async def first(self, user: str = "root", source: int = 0) -> dict[str, Any]:
        path = f"/machine/ssh/action/{source or self.laptop}/to/{self.server_id}?local_user={user}"
        return content_of(await (await self.question(path)).whole())


def content_of(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, bytes(answer.body)
    return decode_object(bytes(answer.body))


def link_in(action: dict[str, Any]) -> str:
    found = re.search(r"/ssh-check/[\w-]+", action["message"])
    assert found is not None
    return found[0]


@asynccontextmanager
async def session(world: World, carrier: str = "upgrade", laptops_key: str = "") -> AsyncIterator[Session]:
    word = secrets.token_hex(4)
    async with devices(world.server, f"laptop-{word}", f"server-{word}", carrier=carrier) as (laptop, server):
        await laptop.register(auth_key=laptops_key or world.owners)
        await server.register(auth_key=world.owners)
        yield Session(world, await id_of(laptop), server, await id_of(server))


async def id_of(device: Device) -> int:
    await device.listen()
    return (await device.until(lambda netmap: True)).node.id


def answer_as(world: World, link: str, answer: str) -> None:
    """The person opens the link, signs in for that, and answers."""
    status, page = Person(world.server).post(link, link, answer=answer)
    assert status == 200, page


@pytest.mark.parametrize("carrier", CARRIERS)
async def test_session_is_held_until_its_person_has_signed_in(world: World, carrier: str) -> None:
    async with session(world, carrier) as ssh:
        held = await ssh.first()
        assert held.keys() == {"message", "holdAndDelegate"}
        waiting = await ssh.question(held["holdAndDelegate"])
        await asyncio.sleep(0.5)
        assert not waiting.ended
        await asyncio.to_thread(answer_as, world, link_in(held), "allow")
        action = content_of(await waiting.whole())
        assert action["accept"] is True
        assert action["allowAgentForwarding"] is True
        # the same pair is let in at once from now on, and as another user, too
        assert (await ssh.first("deploy"))["accept"] is True
        # whoever asks again with the same link hears the same
        assert content_of(await (await ssh.question(held["holdAndDelegate"])).whole())["accept"] is True


async def test_session_that_nobody_started_is_turned_away(world: World) -> None:
    async with session(world) as ssh:
        held = await ssh.first()
        waiting = await ssh.question(held["holdAndDelegate"])
        await asyncio.to_thread(answer_as, world, link_in(held), "refuse")
        assert content_of(await waiting.whole())["reject"] is True
        assert "holdAndDelegate" in await ssh.first()


async def test_old_sign_in_lets_nobody_in(world: World) -> None:
    early = await asyncio.to_thread(Person, world.server)
    async with session(world) as ssh:
        held = await ssh.first()
        link = link_in(held)
        status, _ = await asyncio.to_thread(lambda: early.post(link, link, answer="allow"))
        assert status == 409
        waiting = await ssh.question(held["holdAndDelegate"])
        await asyncio.sleep(0.5)
        assert not waiting.ended


async def test_device_that_the_policy_does_not_name_is_not_let_in_at_all(world: World) -> None:
    async with session(world, laptops_key=world.tagged) as ssh:
        assert (await ssh.first())["reject"] is True


async def test_only_the_device_that_is_reached_may_ask(world: World) -> None:
    async with session(world) as ssh, session(world) as other:
        held = await ssh.first()
        stranger = Session(world, ssh.laptop, other.server, ssh.server_id)
        path = f"/machine/ssh/action/{ssh.laptop}/to/{ssh.server_id}?local_user=root"
        for url in (path, held["holdAndDelegate"]):
            assert (await (await stranger.question(url)).whole()).status == 404


@pytest.mark.parametrize(
    "path",
    [
        "/machine/ssh/action/1/to/x?local_user=root",
        "/machine/ssh/action/1/to/2",
        "/machine/ssh/action/1/to/2?local_user=",
        f"/machine/ssh/action/1/to/2?local_user={'x' * 300}",
        f"/machine/ssh/action/{'9' * 40}/to/2?local_user=root",
    ],
)
async def test_question_that_is_none_is_refused(world: World, path: str) -> None:
    async with session(world) as ssh:
        assert (await (await ssh.question(path)).whole()).status == 400


async def test_link_of_another_session_answers_nothing(world: World) -> None:
    async with session(world) as ssh:
        held = await ssh.first("root")
        swapped = held["holdAndDelegate"].replace("local_user=root", "local_user=deploy")
        assert content_of(await (await ssh.question(swapped)).whole())["reject"] is True
