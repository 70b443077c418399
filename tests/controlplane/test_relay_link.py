"""``/relay/v1``: which keys a relay is told, as they come and go, and to whom it is closed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from controlplane import relaykeys, snapshots
from controlplane.consumers.relay import BAD_MESSAGE, MAX_MESSAGE_BYTES, UNAUTHORIZED
from controlplane.relaykeys import MAX_QUEUED_KEYS, KeyChange, KeySubscription, RelayKeys
from controlplane.snapshots import ServedKeys
from tests.controlplane.devices import devices
from tests.controlplane.serving import Person, Serve, serving

PATIENCE_SECONDS = 20.0
OWN_RELAY = """
import django, sys
django.setup(set_prefix=False)
from accounts.credentials import digest
from accounts.models import Tailnet
from controlplane.models import Relay
tailnet = Tailnet.objects.get(name=sys.argv[1])
Relay.objects.create(
    tailnet=tailnet, region_id=int(sys.argv[3]), region_code="own", region_name="Own",
    node_name=sys.argv[3] + "a", host_name="192.0.2.1", token_hash=digest(sys.argv[2]),
)
"""


DELETE = """
import django, sys
django.setup(set_prefix=False)
from accounts.actors import Actor
from accounts.models import Tailnet
from accounts.tenancy import scope
from nodes.selectors import find_node
from nodes.services.lifecycle import delete_node
with scope(tailnet=Tailnet.objects.get(name="default")):
    delete_node(node=find_node(sys.argv[1]), by=Actor.command())
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def approved(server: Serve) -> str:
    return server.auth_key("--reusable", "--preapproved")


@pytest.fixture(scope="module")
def waiting(server: Serve) -> str:
    return server.auth_key("--reusable")


@pytest.fixture(scope="module")
def owner(server: Serve) -> Person:
    return Person(server)


@pytest.fixture(scope="module")
def other_tailnets_token(server: Serve) -> str:
    """The token of a relay that belongs to another tailnet than the devices here."""
    server.command("createtailnet", "elsewhere", "--owner", "eva@example.com", "--json")
    return own_relay(server, "elsewhere", 901)


def own_relay(server: Serve, tailnet: str, region: int) -> str:
    token = secrets.token_urlsafe(32)
    server.script(OWN_RELAY, tailnet, token, str(region))
    return token


class Link:
    """A relay's end of the link, and the keys that it has made of what it heard."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.keys: set[str] = set()
        self.versions: list[int] = []
        self.news = asyncio.Event()
        self.reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            async for text in self.socket:
                self.take(json.loads(text))

    def take(self, message: dict[str, Any]) -> None:
        keys = set(message.get("keys", []))
        if message["type"] == "keys":
            self.keys = keys
        elif message["type"] == "add":
            self.keys |= keys
        elif message["type"] == "remove":
            assert keys <= self.keys
            self.keys -= keys
        if "version" in message:
            self.versions.append(message["version"])
        self.news.set()

    async def until(self, condition: Callable[[set[str]], bool]) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not condition(self.keys):
                self.news.clear()
                await self.news.wait()


@contextlib.asynccontextmanager
async def link_of(server: Serve, token: str) -> AsyncIterator[Link]:
    headers = {"Authorization": f"Bearer {token}"}
    url = f"ws://127.0.0.1:{server.port}/relay/v1"
    async with connect(url, additional_headers=headers, compression=None) as socket:
        link = Link(socket)
        try:
            yield link
        finally:
            link.reader.cancel()
            await asyncio.gather(link.reader, return_exceptions=True)


def embedded_token(server: Serve) -> str:
    return (server.data / "relay.token").read_text().strip()


async def test_a_link_starts_with_every_key_and_follows_each_change(
    server: Serve, approved: str, waiting: str
) -> None:
    async with devices(server, "early", "late", "pending") as (early, late, pending):
        await early.register(auth_key=approved)
        async with link_of(server, embedded_token(server)) as link:
            await link.until(lambda keys: str(early.node.public()) in keys)
            await late.register(auth_key=approved)
            await link.until(lambda keys: str(late.node.public()) in keys)
            await pending.register(auth_key=waiting)
            await link.until(lambda keys: str(pending.node.public()) in keys)
            old = late.new_node_key()
            await late.register(old_node_key=old, trenza_rotate=True)
            await link.until(lambda keys: str(late.node.public()) in keys and str(old) not in keys)
            await early.register(expiry=datetime.fromtimestamp(123, UTC))
            await link.until(lambda keys: str(early.node.public()) not in keys)
            assert link.versions == sorted(link.versions)


async def test_a_deleted_devices_key_is_taken_away(server: Serve, approved: str, owner: Person) -> None:
    async with devices(server, "doomed") as (doomed,), link_of(server, embedded_token(server)) as link:
        await doomed.join(approved)
        await link.until(lambda keys: str(doomed.node.public()) in keys)
        assert doomed.netmap is not None
        path = f"/devices/{doomed.netmap.node.id}/delete"
        await asyncio.to_thread(owner.post, path, path)
        await link.until(lambda keys: str(doomed.node.public()) not in keys)


async def test_a_change_by_a_command_is_noticed(server: Serve, approved: str) -> None:
    """Another process's change has no message for this one: the version check finds it."""
    async with devices(server, "far") as (far,), link_of(server, embedded_token(server)) as link:
        await far.register(auth_key=approved)
        await link.until(lambda keys: str(far.node.public()) in keys)
        await asyncio.to_thread(server.script, DELETE, "far")
        await link.until(lambda keys: str(far.node.public()) not in keys)


async def test_a_key_that_ends_is_taken_away(server: Serve, approved: str) -> None:
    async with (
        devices(server, "brief", "peer") as (brief, peer),
        link_of(server, embedded_token(server)) as link,
    ):
        await peer.join(approved)
        ends = datetime.now(UTC) + timedelta(seconds=2)
        await brief.join(approved, expiry=ends)
        await link.until(lambda keys: str(brief.node.public()) in keys)
        await link.until(lambda keys: str(brief.node.public()) not in keys)
        await peer.sees(brief, expired=True)
        assert str(peer.node.public()) in link.keys


async def test_a_list_is_read_again_when_a_key_in_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = datetime.now(UTC) + timedelta(seconds=0.2)

    def load(tailnet_id: int) -> ServedKeys:
        return ServedKeys(1, ["brief"] if datetime.now(UTC) < ends else [], ends)

    monkeypatch.setattr(snapshots, "in_thread", in_thread)
    monkeypatch.setattr(snapshots, "load_all_versions", lambda: {1: 1})
    monkeypatch.setattr(snapshots, "load_served_keys", load)
    keys = RelayKeys()
    link = await keys.subscribe(None)
    assert link.keys == ["brief"]
    monkeypatch.setattr(relaykeys, "CHECK_SECONDS", 0.05)
    change = asyncio.create_task(link.next())
    while not change.done():
        await keys.check_versions()
        await asyncio.sleep(0)
    assert (await change) == KeyChange(2, [], ["brief"])


def in_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function as a coroutine, in this very thread."""

    async def call(*arguments: Any) -> Any:
        return function(*arguments)

    return call


async def test_another_tailnets_relay_gets_only_its_own_keys(
    server: Serve, approved: str, other_tailnets_token: str
) -> None:
    async with (
        devices(server, "mine") as (mine,),
        link_of(server, other_tailnets_token) as theirs,
        link_of(server, embedded_token(server)) as ours,
    ):
        await mine.register(auth_key=approved)
        await ours.until(lambda keys: str(mine.node.public()) in keys)
        key = await asyncio.to_thread(server.command, "createauthkey", "elsewhere", "--preapproved", "--json")
        async with devices(server, "foreign") as (foreign,):
            await foreign.register(auth_key=key["key"])
            await theirs.until(lambda keys: keys == {str(foreign.node.public())})


@pytest.mark.parametrize("token", ["", "wrong", "x" * 5000])
async def test_a_bad_token_is_shown_the_door(server: Serve, token: str) -> None:
    async with link_of(server, token) as link:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.socket.wait_closed()
        assert link.socket.close_code == UNAUTHORIZED
        assert link.keys == set()


async def test_a_deleted_relays_link_ends_with_its_next_report(
    server: Serve, other_tailnets_token: str
) -> None:
    token = own_relay(server, "elsewhere", 902)
    async with link_of(server, token) as link:
        await link.until(lambda keys: bool(link.versions))
        with (
            contextlib.closing(sqlite3.connect(server.data / "db.sqlite3", timeout=20)) as database,
            database,
        ):
            database.execute("DELETE FROM controlplane_relay WHERE region_id = 902")
        await link.socket.send(json.dumps({"type": "stats", "clients": 3}))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.socket.wait_closed()
        assert link.socket.close_code == UNAUTHORIZED


async def test_no_token_at_all_is_shown_the_door(server: Serve) -> None:
    async with connect(f"ws://127.0.0.1:{server.port}/relay/v1", compression=None) as socket:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await socket.wait_closed()
        assert socket.close_code == UNAUTHORIZED


@pytest.mark.parametrize("message", ["junk", "[]", "5", "x" * (MAX_MESSAGE_BYTES + 1), b"\x00binary"])
async def test_a_hostile_message_ends_the_link(
    server: Serve, other_tailnets_token: str, message: str | bytes
) -> None:
    async with link_of(server, other_tailnets_token) as link:
        await link.socket.send(message)
        async with asyncio.timeout(PATIENCE_SECONDS):
            await link.socket.wait_closed()
        assert link.socket.close_code == BAD_MESSAGE


@pytest.mark.parametrize(
    "report",
    [
        {"type": "stats", "clients": "many", "bytes_in": -1, "packets": 2**70, "drops": None},
        {"type": "hello", "derp_port": "x", "stun_port": 99999, "cert_fingerprint": 5, "version": ["x"] * 99},
        {"type": "hello", "derp_key": "nodekey:junk", "cert_fingerprint": "zz"},
        {"type": "pong"},
        {"type": "unknown"},
        {},
    ],
)
async def test_odd_reports_are_taken_for_what_they_are_worth(
    server: Serve, other_tailnets_token: str, approved: str, report: dict[str, Any]
) -> None:
    async with link_of(server, other_tailnets_token) as link:
        await link.socket.send(json.dumps(report))
        await link.socket.send(json.dumps({"type": "stats", "clients": 3}))
        pong = await link.socket.ping()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await pong
        assert link.socket.close_code is None


# --- what waits for a slow link ----------------------------------------------------------------------------


async def test_a_link_that_falls_too_far_behind_is_told_to_start_over() -> None:
    link = KeySubscription(None, 0, [])
    for version in range(1, 4):
        link.put(KeyChange(version, ["key"] * (MAX_QUEUED_KEYS // 2), []))
    assert await link.next() is None
    assert not link._queue, "what it will never read is not kept"


async def test_changes_are_read_in_order() -> None:
    link = KeySubscription(None, 0, [])
    for version in range(1, 4):
        link.put(KeyChange(version, ["a"], []))
    assert [(await link.next()).version for _ in range(3)] == [1, 2, 3]  # type: ignore[union-attr]
    waiting = asyncio.create_task(link.next())
    await asyncio.sleep(0)
    link.put(KeyChange(4, [], ["a"]))
    assert (await waiting) == KeyChange(4, [], ["a"])
