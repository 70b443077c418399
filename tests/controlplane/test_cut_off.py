"""Who is suspended is cut off within seconds, everywhere at once, and is back as soon as they are restored.

With a real server, control streams, its own relay, an open page and an API token; so does a tailnet end.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from tests.controlplane.devices import Device, devices
from tests.controlplane.serving import Person, Serve, patience, serving
from tests.relay.peer import Peer, Refused, any_certificate

WITHIN_SECONDS = 5.0
SIGNED_OUT = 4401
MEMBER = "ana@example.com"


@dataclass
class World:
    """A running server, its owner in the panel, and a member with devices of her own."""

    server: Serve
    owner: Person
    member: Person
    hers: str
    his: str

    @property
    def relay_port(self) -> int:
        return int(self.server.relay["TRENZA_RELAY_LISTEN"].rpartition(":")[2])

    def member_id(self) -> str:
        found = re.search(r'href="/users/(\d+)"', self.owner.get(f"/users?q={MEMBER}")[1])
        assert found is not None
        return found[1]

    def does(self, action: str) -> None:
        """The owner does something to the member, in the panel."""
        path = f"/users/{self.member_id()}/{action}"
        assert self.owner.post(path, path)[0] == 302


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(tmp_path_factory.mktemp("server") / "data") as server:
        owner, member = Person(server), Person(server, MEMBER)
        yield World(
            server=server,
            owner=owner,
            member=member,
            hers=server.auth_key("--reusable", "--preapproved", "--user", MEMBER),
            his=server.auth_key("--reusable", "--preapproved"),
        )


@contextlib.asynccontextmanager
async def open_page(person: Person) -> AsyncIterator[ClientConnection]:
    """The WebSocket of a page that somebody has open, after its greeting."""
    _, page = await asyncio.to_thread(person.get, "/devices")
    tailnet = re.search(r'data-tailnet="(\d+)"', page)
    assert tailnet is not None
    jar = next(one for one in person.opener.handlers if isinstance(one, urllib.request.HTTPCookieProcessor))
    cookies = "; ".join(f"{one.name}={one.value}" for one in jar.cookiejar)
    url = person.server.url.replace("http", "ws", 1)
    async with connect(
        f"{url}/ws/panel/{tailnet[1]}",
        origin=person.server.url,  # type: ignore[arg-type]
        additional_headers={"Cookie": cookies},
    ) as socket:
        assert "hello" in str(await socket.recv())
        yield socket


async def closing_code(socket: ClientConnection) -> int | None:
    with contextlib.suppress(ConnectionClosed):
        async with asyncio.timeout(patience(WITHIN_SECONDS)):
            while True:
                await socket.recv()
    return socket.close_code


async def eventually(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(patience(WITHIN_SECONDS)):
        while True:
            if await asyncio.to_thread(holds):
                return
            await asyncio.sleep(0.05)


def relay_serves(server: Serve, device: Device) -> bool:
    """What the server says to a relay that asks about a device's key."""
    question = f'{{"NodePublic": "{device.node.public()}", "Source": "192.0.2.7"}}'.encode()
    request = urllib.request.Request(f"{server.url}/verify", question, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return b"true" in answer.read()


async def test_who_is_suspended_is_cut_off_and_who_is_restored_is_back(world: World) -> None:
    server = world.server
    names = [f"{word}-{secrets.token_hex(4)}" for word in ("desk", "laptop", "late")]
    async with devices(server, *names) as (desk, laptop, late), open_page(world.member) as page:
        await desk.join(world.his)
        await laptop.join(world.hers)
        await desk.sees(laptop, online=True)
        relayed = await Peer(world.relay_port, laptop.node, tls=any_certificate()).connect()

        await asyncio.to_thread(world.does, "suspend")
        await desk.misses(laptop, seconds=patience(WITHIN_SECONDS))
        await laptop.until(
            lambda netmap: not netmap.peers and not netmap.node.machine_authorized,
            seconds=patience(WITHIN_SECONDS),
        )
        assert await relayed.closed()
        relayed.leave()
        again = Peer(world.relay_port, laptop.node, tls=any_certificate())
        with pytest.raises(Refused):
            await again.connect()
        again.leave()
        await eventually(lambda: not relay_serves(server, laptop))
        assert (await late.register(auth_key=world.hers)).error
        assert await closing_code(page) == SIGNED_OUT
        status, shown = await asyncio.to_thread(world.member.get, "/devices")
        assert (status, "You are suspended" in shown) == (403, True)

        await asyncio.to_thread(world.does, "restore")
        peer = await desk.sees(laptop, seconds=patience(WITHIN_SECONDS))
        assert peer.key == laptop.node.public()
        await laptop.sees(desk, seconds=patience(WITHIN_SECONDS))
        await eventually(lambda: relay_serves(server, laptop))
        assert (await asyncio.to_thread(world.member.get, "/devices"))[0] == 200


async def test_who_is_removed_is_gone_with_their_devices(world: World) -> None:
    names = [f"{word}-{secrets.token_hex(4)}" for word in ("desk", "laptop")]
    async with devices(world.server, *names) as (desk, laptop):
        await desk.join(world.his)
        await laptop.join(world.hers)
        await desk.sees(laptop, online=True)
        await asyncio.to_thread(world.does, "delete")
        await desk.misses(laptop, seconds=patience(WITHIN_SECONDS))
        await eventually(lambda: not relay_serves(world.server, laptop))
        assert [one["hostname"] for one in world.server.command("listnodes", "default", "--json")] == names[
            :1
        ]
        assert laptop.poll is not None
        await eventually(lambda: laptop.poll is not None and laptop.poll.ended)


async def test_with_a_tailnet_every_stream_and_page_of_it_ends(world: World) -> None:
    async with (
        devices(world.server, f"desk-{secrets.token_hex(4)}") as (desk,),
        open_page(world.member) as page,
    ):
        await desk.join(world.his)
        path = "/settings/delete"
        answer = await asyncio.to_thread(world.owner.post, path, path, name="default")
        assert answer[0] == 302
        await eventually(lambda: desk.poll is not None and desk.poll.ended)
        await eventually(lambda: not relay_serves(world.server, desk))
        assert await closing_code(page) == SIGNED_OUT
        assert (await asyncio.to_thread(world.owner.get, "/devices"))[0] == 403
