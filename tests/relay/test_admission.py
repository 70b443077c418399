"""Whom the relay serves: the list, its link to a server, and the server being away."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import Server, ServerConnection, serve

from relay import VERSION
from relay.admission import Admission, parse_keys
from relay.files import KEYS_FILE, load_served
from relay.server import Relay
from tests.relay.conftest import Connect, StartRelay
from tests.relay.peer import PATIENCE, Peer, Refused, any_certificate, http, new_key
from wire.keys import NodePrivate, NodePublic

TOKEN = "a token of the test"


class Control:
    """The server's side of ``/relay/v1``, as ``controlplane.consumers.relay`` speaks it."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.heard: list[dict[str, Any]] = []
        self.links: list[ServerConnection] = []
        self.paths: list[str] = []
        self.version = 0
        self.port = 0
        self.server: Server | None = None

    async def start(self) -> None:
        self.server = await serve(self._serve, "127.0.0.1", self.port)
        self.port = next(iter(self.server.sockets)).getsockname()[1]

    async def stop(self) -> None:
        if self.server is not None:
            self.server.close()
            await self.server.wait_closed()
            self.server = None

    async def _serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.paths.append(socket.request.path)
        if socket.request.headers.get("Authorization") != f"Bearer {TOKEN}":
            await socket.close(4401)
            return
        self.links.append(socket)
        await self._say(socket, "keys", self.keys)
        async for text in socket:
            self.heard.append(json.loads(text))
        self.links.remove(socket)

    async def _say(self, socket: ServerConnection, kind: str, keys: list[str]) -> None:
        self.version += 1
        await socket.send(json.dumps({"type": kind, "version": self.version, "keys": keys}))

    async def add(self, *keys: NodePrivate) -> None:
        texts = [str(key.public()) for key in keys]
        self.keys += texts
        for link in self.links:
            await self._say(link, "add", texts)

    async def remove(self, *keys: NodePrivate) -> None:
        texts = [str(key.public()) for key in keys]
        self.keys = [key for key in self.keys if key not in texts]
        for link in self.links:
            await self._say(link, "remove", texts)

    async def hears(self, kind: str) -> dict[str, Any]:
        await eventually(lambda: any(message["type"] == kind for message in self.heard))
        return next(message for message in self.heard if message["type"] == kind)


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def control() -> AsyncIterator[Control]:
    control = Control()
    await control.start()
    yield control
    await control.stop()


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.admission.LINK_BACKOFF_FIRST", 0.05)
    monkeypatch.setattr("relay.admission.LINK_BACKOFF_MAX", 0.1)
    monkeypatch.setattr("relay.admission.SAVE_SECONDS", 0.02)


Managed = Callable[..., Any]


@pytest.fixture
def managed(start_relay: StartRelay, control: Control) -> Managed:
    async def start(name: str = "managed", *, linked: bool = True, **changes: Any) -> Relay:
        relay = await start_relay(
            name,
            open_admission=False,
            control_url=f"http://127.0.0.1:{control.port}",
            token=TOKEN,
            **changes,
        )
        if linked:
            await eventually(lambda: relay.link is not None and relay.link.connected)
        return relay

    return start


async def test_listed_keys_are_served_and_others_refused(
    control: Control, managed: Managed, connect: Connect
) -> None:
    alice, bob = new_key(), new_key()
    control.keys = [str(alice.public()), str(bob.public())]
    relay = await managed()
    relay.admission._wait = 0.05
    await (await connect(to=relay, key=alice)).reaches(await connect(to=relay, key=bob))
    with pytest.raises(Refused):
        await connect(to=relay)
    await eventually(lambda: relay.switch.counters.refused == 1)


async def test_the_link_says_hello_and_stats(control: Control, managed: Managed) -> None:
    relay = await managed(tls=True)
    assert control.paths == ["/relay/v1"]
    hello = await control.hears("hello")
    assert hello == {
        "type": "hello",
        "version": VERSION,
        "derp_key": str(relay.key.public()),
        "derp_port": relay.derp_port,
        "stun_port": 0,
        "cert_fingerprint": relay.fingerprint,
    }
    assert len(hello["cert_fingerprint"]) == 64
    stats = await control.hears("stats")
    assert {"clients", "bytes_in", "bytes_out", "packets", "drops"} < stats.keys()


async def test_a_ping_is_answered(control: Control, managed: Managed) -> None:
    await managed()
    await control.links[0].send('{"type": "ping"}')
    await control.hears("pong")


async def test_a_revoked_key_is_cut_off_at_once(control: Control, managed: Managed, connect: Connect) -> None:
    keys = [new_key() for _ in range(3)]
    control.keys = [str(key.public()) for key in keys]
    relay = await managed()
    relay.admission._wait = 0.05
    alice, bob, carol = [await connect(to=relay, key=key) for key in keys]
    second = await connect(to=relay, key=keys[0])
    await control.remove(keys[0])
    assert await alice.closed()
    assert await second.closed()
    await bob.reaches(carol)
    with pytest.raises(Refused):
        await connect(to=relay, key=keys[0])


async def test_a_key_on_its_way_is_waited_for(control: Control, managed: Managed, connect: Connect) -> None:
    relay = await managed()
    key = new_key()
    joining = asyncio.create_task(connect(to=relay, key=key))
    await eventually(lambda: relay.admission._waiting == 1)
    await control.add(key)
    await (await joining).settle()
    assert relay.admission._waiting == 0
    assert relay.admission._waiters == {}


async def test_a_key_revoked_during_its_handshake_gets_nothing(tmp_path: Path) -> None:
    admission = Admission(tmp_path, lambda _: None)
    admission.add([b"k" * 32])
    assert await admission.admit(b"k" * 32)
    admission.remove([b"k" * 32])
    assert not admission.allows(b"k" * 32)


async def test_waiting_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.admission.MAX_ADMISSION_WAITERS", 3)
    admission = Admission(tmp_path, lambda _: None, wait=5)
    waiting = [asyncio.create_task(admission.admit(bytes([n]) * 32)) for n in range(3)]
    await asyncio.sleep(0)
    assert not await admission.admit(b"x" * 32)  # at once
    admission.add([bytes([n]) * 32 for n in range(3)])
    assert await asyncio.gather(*waiting) == [True] * 3


async def test_the_list_serves_on_while_the_server_is_away(
    control: Control, managed: Managed, connect: Connect, tmp_path: Path
) -> None:
    keys = [new_key() for _ in range(2)]
    control.keys = [str(key.public()) for key in keys]
    first = await managed("kept")
    alice = await connect(to=first, key=keys[0])
    kept = tmp_path / "kept" / KEYS_FILE
    await eventually(kept.exists)
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    await control.stop()
    await alice.reaches(await connect(to=first, key=keys[1]))
    await first.stop()
    second = await managed("kept", linked=False)  # started with no server at all
    second.admission._wait = 0.05
    assert not second.status()["control_connected"]
    alice = await connect(to=second, key=keys[0])
    await alice.reaches(await connect(to=second, key=keys[1]))
    with pytest.raises(Refused):
        await connect(to=second)


async def test_without_list_and_server_nobody_is_served(
    control: Control, managed: Managed, connect: Connect
) -> None:
    await control.stop()
    relay = await managed(linked=False)
    relay.admission._wait = 0.05
    with pytest.raises(Refused):
        await connect(to=relay)


async def test_the_link_comes_back_and_its_list_replaces_ours(
    control: Control, managed: Managed, connect: Connect
) -> None:
    keys = [new_key() for _ in range(2)]
    control.keys = [str(key.public()) for key in keys]
    relay = await managed()
    alice, bob = [await connect(to=relay, key=key) for key in keys]
    await control.stop()
    await eventually(lambda: relay.link is not None and not relay.link.connected)
    control.keys = [str(keys[1].public())]  # alice was removed meanwhile
    await control.start()
    assert await alice.closed()
    await bob.settle()
    assert load_served(relay.config.data) is not None


async def test_an_unknown_token_is_said_and_tried_again(
    control: Control, start_relay: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    await start_relay(
        open_admission=False, control_url=f"http://127.0.0.1:{control.port}", token="some other token"
    )
    await eventually(lambda: len(control.paths) >= 3)
    messages = [record.getMessage() for record in caplog.records if record.name == "trenza.relay.admission"]
    assert len(messages) == 1
    assert "does not know this relay's token; set TRENZA_RELAY_TOKEN" in messages[0]


async def test_nonsense_from_the_server_changes_nothing(
    control: Control, managed: Managed, connect: Connect
) -> None:
    key = new_key()
    control.keys = [str(key.public())]
    relay = await managed()
    for text in (
        '{"type": "unheard of"}',
        "[]",
        "3",
        '{"type": "add", "keys": 7}',
        '{"type":"add","keys":["x"]}',
    ):
        await control.links[0].send(text)
    await control.links[0].send("not json")
    await eventually(lambda: len(control.paths) == 2)
    await (await connect(to=relay, key=key)).settle()


async def test_saving_again_after_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = [OSError(28, "No space left on device")]

    def save(data: Path, keys: frozenset[bytes]) -> None:
        if failures:
            raise failures.pop()
        (data / "saved").write_text(str(len(keys)))

    monkeypatch.setattr("relay.admission.save_served", save)
    admission = Admission(tmp_path, lambda _: None)
    keeping = asyncio.create_task(admission.keep_saved())
    admission.add([b"k" * 32])
    await eventually((tmp_path / "saved").exists)
    keeping.cancel()


@pytest.mark.parametrize("content", [b"nodekey:zz\n", b"\xff\xfe\xfd", b"[1, 2]"])
def test_a_damaged_list_serves_nobody(tmp_path: Path, content: bytes) -> None:
    (tmp_path / KEYS_FILE).write_bytes(content)
    assert load_served(tmp_path) is None
    assert len(Admission(tmp_path, lambda _: None)) == 0


def test_malformed_keys_are_left_out() -> None:
    good = NodePublic(b"\x07" * 32)
    assert parse_keys({"keys": [str(good), "nodekey:short", 5, None, str(good).upper()]}) == [good.raw]
    assert parse_keys({}) == parse_keys({"keys": "nodekey:"}) == []


async def test_a_mesh_key_needs_no_place_on_the_list(
    control: Control, managed: Managed, connect: Connect
) -> None:
    from wire.derp import ClientInfo

    relay = await managed(mesh_key="ab" * 32)
    relay.admission._wait = 0.05
    await (await connect(to=relay, info=ClientInfo(mesh_key="ab" * 32))).settle()
    with pytest.raises(Refused):
        await connect(to=relay, info=ClientInfo(mesh_key="cd" * 32))


async def test_health_is_told_without_a_server(control: Control, managed: Managed) -> None:
    await control.stop()
    relay = await managed(linked=False, tls=True)
    answer = await http(
        relay.derp_port, b"GET /healthz HTTP/1.1\r\nConnection: close\r\n\r\n", any_certificate()
    )
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert Peer(relay.derp_port).read_limit
