"""The hub by itself, on a real loop with a real engine and streams that only listen."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import zstandard

from controlplane import hub as hub_module
from controlplane.control import c2n
from controlplane.hub import MAX_PENDING_BYTES, Hub, Room, Subscriber
from controlplane.liveness import SILENT_PROBES
from controlplane.netmap.engine import Engine
from controlplane.netmap.incarnations import MAX_SHADOWS
from controlplane.netmap.snapshot import NodeSnapshot
from nodes.services.presence import Claim
from tests.controlplane.snapshots import node, tailnet
from wire.codec import MapDecoder, decode_object
from wire.delta import apply
from wire.keys import MachinePublic
from wire.netmap import MapResponse, NetMap

TAILNET = 1


class Stream:
    """A long poll's answer that keeps what it is given; ``pending`` is what its peer has not taken."""

    def __init__(self, *, zstd: bool = False) -> None:
        self.decoder = MapDecoder(compress=zstd)
        self.messages: list[dict[str, Any]] = []
        self.frames: list[bytes] = []
        self.pending = 0
        self.is_open = True
        self.callback: Callable[[], None] | None = None
        self.owed = 0
        self.answers_pings = True

    def send(self, frame: bytes) -> bool:
        self.frames.append(frame)
        self.messages += self.decoder.receive(frame)
        return self.is_open

    def close(self) -> None:
        if self.is_open:
            self.is_open = False
            if self.callback is not None:
                self.callback()

    def on_closed(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def ping(self) -> int:
        self.owed = 0 if self.answers_pings else self.owed + 1
        return self.owed

    def abort(self) -> None:
        self.close()

    @property
    def netmap(self) -> NetMap:
        result: NetMap | None = None
        for message in self.messages:
            if "KeepAlive" not in message:
                result = apply(result, MapResponse.from_json(message))
        assert result is not None
        return result


@pytest.fixture
async def hub(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Hub]:
    """A hub whose database and channel layer are plain memory."""
    made = Hub()
    sent: list[tuple[str, dict[str, Any]]] = []
    epochs = {"last": 0}

    def in_thread(function: Any) -> Any:
        async def call(*args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(0)
            if function is hub_module.claim_presences:
                epochs["last"] += 1
                claim = Claim(epochs["last"], datetime.now(UTC))
                return dict.fromkeys(kwargs["node_ids"], claim)
            return True

        return call

    monkeypatch.setattr(hub_module, "in_thread", in_thread)
    monkeypatch.setattr(hub_module, "publish", lambda group, message: sent.append((group, message)))
    made.sent = sent  # type: ignore[attr-defined]
    yield made
    for task in list(made._tasks):
        task.cancel()
    await asyncio.gather(*made._tasks, return_exceptions=True)
    made._pool.shutdown()


def open_room(hub: Hub, *nodes: NodeSnapshot) -> Room:
    snapshot = tailnet(*nodes)
    room = Room(Engine(snapshot), snapshot.version)
    hub.rooms[TAILNET] = room
    hub._index(snapshot.nodes.values(), TAILNET)
    return room


async def settle(hub: Hub, room: Room) -> None:
    """Wait until every push is out."""
    quiet = 0
    for _ in range(1000):
        await asyncio.sleep(hub_module.COALESCE_SECONDS)
        claimed = room.claiming is not None and room.claiming.done()
        at_rest = claimed and room.flush_handle is None and not room.pushing.locked()
        quiet = quiet + 1 if at_rest else 0
        if quiet == 3:
            return
    raise AssertionError("the hub never came to rest")


async def subscribe(hub: Hub, node_id: int, **options: Any) -> Stream:
    stream = Stream(zstd=options.get("zstd", False))
    assert await hub.subscribe(TAILNET, node_id, stream, zstd=options.get("zstd", False))
    return stream


# --- pushing ---------------------------------------------------------------------------------------------


async def test_a_burst_of_reports_is_one_push(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2), node(3))
    watch = await subscribe(hub, 1)
    await settle(hub, room)
    told = len(watch.messages)
    for number in range(50):
        hub.report(TAILNET, 2 + number % 2, endpoints=(f"192.0.2.1:{number}",))
    await settle(hub, room)
    (message,) = watch.messages[told:]
    assert {patch["NodeID"]: patch["Endpoints"] for patch in message["PeersChangedPatch"]} == {
        2: ["192.0.2.1:48"],
        3: ["192.0.2.1:49"],
    }


async def test_a_report_that_is_no_news_is_not_pushed_written_or_told(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2, home_derp=900))
    watch = await subscribe(hub, 1)
    await settle(hub, room)
    told = len(watch.messages)
    assert hub.report(TAILNET, 2, home_derp=900, endpoints=()) == {}
    assert hub.report(TAILNET, 99, home_derp=900) == {}
    assert hub.report(77, 2, home_derp=900) == {}
    await asyncio.sleep(0.02)
    assert watch.messages[told:] == []
    assert room.unwritten == {}


async def test_equal_deltas_are_compressed_once(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(hub, *(node(node_id) for node_id in range(1, 30)))
    streams = [await subscribe(hub, node_id, zstd=True) for node_id in range(1, 20)]
    await settle(hub, room)
    count = [0]
    compress = hub_module.compress

    def counting(message: bytes) -> bytes:
        count[0] += 1
        return compress(message)

    monkeypatch.setattr(hub_module, "compress", counting)
    hub.report(TAILNET, 25, home_derp=901)
    await settle(hub, room)
    assert count[0] == 1
    assert len({id(stream.frames[-1]) for stream in streams}) == 1


async def test_nothing_comes_before_the_first_whole_map(hub: Hub) -> None:
    """Changes while a map is being made reach the stream after it, and are not lost."""
    room = open_room(hub, node(1), node(2))
    for _ in range(hub_module.MAX_FULL_MAPS_AT_ONCE):
        await hub._full_maps.acquire()
    stream = Stream()
    joining = asyncio.create_task(hub.subscribe(TAILNET, 1, stream, zstd=False))
    await asyncio.sleep(0)
    hub.report(TAILNET, 2, home_derp=901)
    await asyncio.sleep(0.03)
    assert stream.messages == []
    for _ in range(hub_module.MAX_FULL_MAPS_AT_ONCE):
        hub._full_maps.release()
    assert await joining
    await settle(hub, room)
    assert "Node" in stream.messages[0]
    assert stream.netmap.peers[2].home_derp == 901


async def test_changes_while_a_big_map_is_made_follow_it(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(hub, node(1), node(2), node(3))
    gate = asyncio.Event()

    async def slowly(message: bytes) -> bytes:
        await gate.wait()
        return hub_module.compress(message)

    monkeypatch.setattr(hub, "_compress", slowly)
    stream = Stream(zstd=True)
    joining = asyncio.create_task(hub.subscribe(TAILNET, 1, stream, zstd=True))
    await asyncio.sleep(0)
    hub.report(TAILNET, 2, home_derp=901)
    await asyncio.sleep(0.02)
    hub.report(TAILNET, 3, endpoints=("192.0.2.3:3",))
    await asyncio.sleep(0.02)
    assert stream.messages == []
    gate.set()
    assert await joining
    await settle(hub, room)
    peers = stream.netmap.peers
    assert (peers[2].home_derp, peers[3].endpoints) == (901, ("192.0.2.3:3",))


async def test_a_slow_stream_gets_one_whole_map_later(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "RESUME_SECONDS", 0.01)
    room = open_room(hub, node(1), node(2))
    slow = await subscribe(hub, 1)
    await settle(hub, room)
    slow.pending, told = MAX_PENDING_BYTES + 1, len(slow.messages)
    for number in range(20):
        hub.report(TAILNET, 2, endpoints=(f"192.0.2.1:{number}",))
        await asyncio.sleep(0.01)
    await settle(hub, room)
    assert slow.messages[told:] == []
    slow.pending = 0
    await asyncio.sleep(0.05)
    (whole,) = slow.messages[told:]
    assert "Node" in whole
    assert slow.netmap.peers[2].endpoints == ("192.0.2.1:19",)
    hub.report(TAILNET, 2, home_derp=901)
    await settle(hub, room)
    assert slow.netmap.peers[2].home_derp == 901


async def test_pushes_stay_in_order_as_streams_come_and_go(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "FAN_OUT_BATCH", 2)
    room = open_room(hub, *(node(node_id) for node_id in range(1, 12)))
    streams = {node_id: await subscribe(hub, node_id) for node_id in range(1, 11)}
    await settle(hub, room)
    for number in range(1, 40):
        update = room.engine.with_nodes({11: node(11, home_derp=number)})
        hub.spawn(hub._fan_out(room, update))
        if number % 7 == 0:
            streams.pop(number // 7).close()
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    for stream in streams.values():
        patches = [patch for message in stream.messages for patch in message.get("PeersChangedPatch", [])]
        homes = [patch["DERPRegion"] for patch in patches if "DERPRegion" in patch]
        assert homes == list(range(1, 40))


async def test_a_deleted_node_hears_it_and_its_stream_ends(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    stream = await subscribe(hub, 2)
    await settle(hub, room)
    await hub._swap(room, replace(room.snapshot, nodes={1: room.snapshot.nodes[1]}, version=2), {2})
    assert stream.messages[-1]["PacketFilters"] == {"base": []}
    assert not stream.is_open
    assert hub.find_by_key(node(2).node_key) is None


# --- streams ---------------------------------------------------------------------------------------------


async def test_a_newer_stream_replaces_the_older_and_its_end_means_nothing(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    first = await subscribe(hub, 1)
    second = await subscribe(hub, 1)
    assert not first.is_open
    assert second.is_open
    await settle(hub, room)
    assert room.subscribers[1].stream is second
    assert room.snapshot.nodes[1].online


async def test_a_newer_stream_in_another_worker_ends_this_one(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    stream = await subscribe(hub, 1)
    await settle(hub, room)
    epoch = room.subscribers[1].epoch
    assert epoch > 0
    message = {"node": 1, "worker": "other", "facts": {"online": True}}
    hub._on_volatile(room, message | {"epoch": epoch - 1})
    assert stream.is_open, "an older one is no reason"
    hub._on_volatile(room, message | {"epoch": epoch + 1})
    assert not stream.is_open


async def test_another_workers_report_of_a_node_that_is_being_read_is_kept(hub: Hub) -> None:
    room = open_room(hub, node(1))
    watch = await subscribe(hub, 1)
    await settle(hub, room)
    facts = {"disco_key": node(2).disco_key, "endpoints": ["192.0.2.2:2"]}
    hub._on_volatile(room, {"node": 2, "worker": "other", "epoch": 0, "facts": facts})
    row = node(2, disco_key="")  # as it was read before the report was written
    nodes = dict(room.snapshot.nodes) | {2: row}
    await hub._swap(room, replace(room.snapshot, nodes=nodes, version=2), {2})
    assert watch.netmap.peers[2].endpoints == ("192.0.2.2:2",)


async def test_another_workers_offline_does_not_touch_a_node_that_is_here(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    await subscribe(hub, 1)
    await settle(hub, room)
    facts = {"online": False, "last_seen": "2030-01-01T00:00:00+00:00"}
    hub._on_volatile(room, {"node": 1, "worker": "other", "epoch": 0, "facts": facts})
    await settle(hub, room)
    assert room.snapshot.nodes[1].online


async def test_a_node_goes_offline_only_after_the_wait(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "OFFLINE_SECONDS", 0.05)
    room = open_room(hub, node(1), node(2))
    watch, gone = await subscribe(hub, 1), await subscribe(hub, 2)
    await settle(hub, room)
    gone.close()
    await asyncio.sleep(0.02)
    assert watch.netmap.peers[2].online
    back = await subscribe(hub, 2)
    await asyncio.sleep(0.1)
    assert watch.netmap.peers[2].online, "it was back in time"
    back.close()
    await asyncio.sleep(0.1)
    await settle(hub, room)
    assert watch.netmap.peers[2].online is False
    assert watch.netmap.peers[2].last_seen is not None


async def test_pages_hear_of_a_stream_after_the_database_does(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    await subscribe(hub, 1)
    assert hub.sent == []  # type: ignore[attr-defined]
    await settle(hub, room)
    ((group, message),) = hub.sent  # type: ignore[attr-defined]
    assert group == f"panel.{TAILNET}"
    assert [change["id"] for change in message["changes"]] == [1]


async def test_a_keepalive_is_exact_and_in_time(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(hub, node(1), node(2))
    plain, packed = await subscribe(hub, 1), await subscribe(hub, 2, zstd=True)
    await settle(hub, room)

    async def at_once(_: float) -> None: ...

    told = len(plain.frames), len(packed.frames)
    with monkeypatch.context() as patched:
        patched.setattr(hub_module.asyncio, "sleep", at_once)
        for _ in range(49):
            await hub._tick()
        assert (len(plain.frames), len(packed.frames)) == told
        for _ in range(11):
            await hub._tick()
    assert plain.frames[told[0] :] == [struct.pack("<I", 18) + b'{"KeepAlive":true}']
    (frame,) = packed.frames[told[1] :]
    assert zstandard.ZstdDecompressor().decompress(frame[4:]) == b'{"KeepAlive":true}'


# --- reloads ---------------------------------------------------------------------------------------------


async def test_a_reload_keeps_what_is_not_written_yet(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    watch = await subscribe(hub, 1)
    await settle(hub, room)
    hub.report(TAILNET, 2, endpoints=("192.0.2.2:2",))
    await settle(hub, room)
    rows = {node_id: node(node_id, home_derp=5) for node_id in (1, 2)}  # as the database still has them
    await hub._swap(room, replace(room.snapshot, nodes=rows, version=2), None)
    assert watch.netmap.peers[2].endpoints == ("192.0.2.2:2",)
    assert watch.netmap.peers[2].home_derp == 5
    assert room.snapshot.nodes[1].online, "its stream is here, whatever the row says"


async def test_an_unchanged_row_stays_the_same_object(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    before = room.snapshot.nodes[2]
    await hub._swap(room, replace(room.snapshot, nodes={1: node(1), 2: node(2)}, version=2), None)
    assert room.snapshot.nodes[2] is before


async def test_a_key_that_ends_is_told_at_once(hub: Hub) -> None:
    """No row changes here and nothing is read: the sweep comes later."""
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    room = open_room(hub, node(1), node(2, key_expiry=soon), node(3, key_expiry=soon + timedelta(days=1)))
    one, two = await subscribe(hub, 1), await subscribe(hub, 2)
    await settle(hub, room)
    assert not one.netmap.peers[2].expired
    assert room.next_expiry == soon
    while not one.netmap.peers[2].expired:
        await hub._tick()
        await settle(hub, room)
    assert two.netmap.peers == {}
    assert not one.netmap.peers[3].expired
    assert room.next_expiry == soon + timedelta(days=1)


async def test_written_reports_are_forgotten(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(hub, node(1), node(2))
    hub.report(TAILNET, 2, home_derp=901)
    await asyncio.sleep(0.02)
    monkeypatch.setattr(hub_module, "VOLATILE_SECONDS", -1.0)
    hub._forget_old_reports(room)
    assert 2 in room.volatile, "it is not written yet"
    await hub._write_room(room)
    hub._forget_old_reports(room)
    assert room.volatile == {}
    assert room.snapshot.nodes[2].home_derp == 901


async def test_a_change_that_no_netmap_shows_reloads_nothing(hub: Hub) -> None:
    room = open_room(hub, node(1))
    hub._on_change(room, {"version": 2, "rows": [{"model": "preauthkey", "id": 9, "op": "upsert"}]})
    assert room.snapshot.version == 2
    assert room.refreshing is None


async def test_a_hole_in_the_versions_reloads_the_tailnet(hub: Hub) -> None:
    room = open_room(hub, node(1))
    hub._on_change(room, {"version": 3, "rows": [{"model": "node", "id": 1, "op": "upsert"}]})
    assert room.reload_whole
    assert room.refreshing is not None


# --- asking a client -------------------------------------------------------------------------------------


class Answer:
    """What a client's POST gets."""

    def __init__(self) -> None:
        self.status = 0

    def finish(self, body: bytes = b"", status: int = 200, headers: Any = None) -> None:
        self.status = status


async def test_a_client_is_asked_on_its_stream(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    room = open_room(hub, node(1), node(2))
    stream = await subscribe(hub, 1)
    await settle(hub, room)
    monkeypatch.setattr(c2n, "get_hub", lambda: hub)
    machine, stranger = node(1).machine_key, MachinePublic(bytes(32))
    asking = asyncio.create_task(
        c2n.ask(tailnet_id=TAILNET, node_id=1, machine_key=machine, request=b"GET /echo HTTP/1.1\r\n\r\n")
    )
    await asyncio.sleep(0.01)
    ping = stream.messages[-1]
    assert ping["KeepAlive"] is True
    message = MapResponse.from_json(ping).ping_request
    assert message is not None
    assert message.payload == b"GET /echo HTTP/1.1\r\n\r\n"
    token = message.url.rpartition("/")[2]
    request: Any = type("Request", (), {"body": b"HTTP/1.1 200 OK\r\n\r\n"})
    c2n._take_answer(token, request, stranger, answer := Answer())  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    assert not asking.done(), "only the machine that was asked may answer"
    c2n._take_answer(token, request, MachinePublic.parse(machine), answer)  # type: ignore[arg-type]
    assert (await asking, answer.status) == (b"HTTP/1.1 200 OK\r\n\r\n", 204)


async def test_a_client_without_a_stream_is_silent(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    open_room(hub, node(1))
    monkeypatch.setattr(c2n, "get_hub", lambda: hub)
    with pytest.raises(c2n.ClientSilent):
        await c2n.ask(tailnet_id=TAILNET, node_id=1, machine_key="mkey:", request=b"")
    assert c2n._waiting == {}


def test_a_subscriber_starts_behind() -> None:
    assert Subscriber(1, Stream(), zstd=False).behind


def test_the_keepalive_is_json() -> None:
    assert decode_object(hub_module.KEEPALIVE_PLAIN[4:]) == json.loads('{"KeepAlive": true}')


async def test_pushes_leave_in_the_order_in_which_the_engine_moved(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    stream = await subscribe(hub, 1)
    await settle(hub, room)
    room.volatile[2] = (0.0, {"hostinfo": {"OS": "plan9"}})
    room.waiting.add(2)
    hub._flush(room)  # "node 2 has changed", sent by a task that has not started yet
    await hub._swap(room, replace(room.snapshot, nodes={1: room.snapshot.nodes[1]}, version=2), None)
    await settle(hub, room)
    assert stream.netmap.peers == {}


# --- two machines with the same keys ---------------------------------------------------------------------


async def subscribe_as(hub: Hub, node_id: int, disco: str, address: str = "") -> Stream:
    stream = Stream()
    assert await hub.subscribe(TAILNET, node_id, stream, zstd=False, disco_key=disco, address=address)
    return stream


def news_of(stream: Stream, node_id: int) -> int:
    """How many messages told this viewer something of a peer."""

    def tells(message: dict[str, Any]) -> bool:
        changed = [peer["ID"] for peer in message.get("PeersChanged", ())]
        return node_id in changed + [patch["NodeID"] for patch in message.get("PeersChangedPatch", ())]

    return sum(map(tells, stream.messages))


async def test_a_restarted_client_takes_its_place_at_once(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    first = await subscribe_as(hub, 1, "discokey:a")
    second = await subscribe_as(hub, 1, "discokey:b")
    assert (first.is_open, second.is_open) == (False, True)
    assert room.subscribers[1].stream is second
    assert not room.shadows
    again = await subscribe_as(hub, 1, "discokey:b")
    assert (second.is_open, again.is_open) == (False, True)
    assert hub.admits(TAILNET, 1, "discokey:b")


async def test_two_machines_with_the_same_keys_do_not_fight(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    watch = await subscribe(hub, 2)
    await subscribe_as(hub, 1, "discokey:a")
    holder = await subscribe_as(hub, 1, "discokey:b")
    for turn in range(20):  # the one that was thrown out comes back, and reports, again and again
        shadow = await subscribe_as(hub, 1, "discokey:a")
        assert not hub.admits(TAILNET, 1, "discokey:a")
        hub.report(TAILNET, 2, endpoints=(f"192.0.2.1:{turn}",))
        await settle(hub, room)
        assert (holder.is_open, shadow.is_open) == (True, True)
    assert len(room.shadows) == 1
    assert shadow.netmap.peers[2].endpoints == ("192.0.2.1:19",)  # its filters and peers stay right
    assert news_of(watch, 1) <= 1
    assert room.subscribers[1].stream is holder


async def test_a_shadow_takes_the_place_of_a_holder_that_goes(hub: Hub) -> None:
    room = open_room(hub, node(1), node(2))
    await subscribe_as(hub, 1, "discokey:a")
    holder = await subscribe_as(hub, 1, "discokey:b")
    shadow = await subscribe_as(hub, 1, "discokey:a")
    holder.close()
    assert not shadow.is_open
    assert not room.shadows
    back = await subscribe_as(hub, 1, "discokey:a")
    assert room.subscribers[1].stream is back
    assert hub.admits(TAILNET, 1, "discokey:a")


async def test_only_so_many_shadows_are_kept(hub: Hub) -> None:
    room = open_room(hub, node(1))
    names = [f"discokey:{number}" for number in range(MAX_SHADOWS + 1)]
    for name in names:
        await subscribe_as(hub, 1, name)
    for name in names[:-1]:
        await subscribe_as(hub, 1, name)
    assert len(room.shadows) <= MAX_SHADOWS


async def test_a_shadow_that_stays_is_told_to_the_database(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[dict[int, str]] = []

    def in_thread(function: Any) -> Any:
        async def call(**kwargs: Any) -> dict[int, Any]:
            if function is hub_module.saw_clones:
                seen.append(kwargs["seen"])
            return {}

        return call

    open_room(hub, node(1))
    await subscribe_as(hub, 1, "discokey:a", "192.0.2.1")
    await subscribe_as(hub, 1, "discokey:b", "192.0.2.2")
    await subscribe_as(hub, 1, "discokey:a", "192.0.2.1")
    monkeypatch.setattr(hub_module, "in_thread", in_thread)
    monkeypatch.setattr(hub_module, "CLONES_SECONDS", 0.0)
    await hub._watch_clones()
    assert not seen  # it may be the last word of a client that was restarted
    monkeypatch.setattr(hub_module, "SURE_SECONDS", 0.0)
    await hub._watch_clones()
    assert seen == [{1: "192.0.2.2, 192.0.2.1"}]


# --- routers that share a subnet -------------------------------------------------------------------------

LAN = "10.9.0.0/16"


def carrier(watch: Stream) -> list[int]:
    return [peer.id for peer in watch.netmap.peers.values() if LAN in peer.allowed_ips]


async def until_carried_by(watch: Stream, node_id: int) -> None:
    for _ in range(1000):
        if carrier(watch) == [node_id]:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"node {node_id} never took over")


async def two_routers(hub: Hub) -> tuple[Room, Stream, dict[int, Stream]]:
    """A viewer, node 1, and the routers 2 and 3 of one subnet, connected in this order."""
    values = {"routes": (LAN,), "approved": {LAN: datetime(2020, 1, 1, tzinfo=UTC)}}
    room = open_room(hub, node(1), node(2, **values), node(3, **values))
    watch = await subscribe(hub, 1)
    routers = {}
    for number in (2, 3):
        routers[number] = await subscribe(hub, number)
        await settle(hub, room)
    assert carrier(watch) == [2]
    return room, watch, routers


async def test_a_router_that_hung_up_is_replaced_and_waits_its_turn_when_it_returns(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "OFFLINE_SECONDS", 0.01)
    room, watch, routers = await two_routers(hub)
    routers[2].close()
    await until_carried_by(watch, 3)
    assert room.snapshot.nodes[2].online_since is None
    routers[2] = await subscribe(hub, 2)
    await settle(hub, room)
    assert room.snapshot.nodes[2].online_since is not None
    assert carrier(watch) == [3]
    routers[3].close()
    await until_carried_by(watch, 2)


async def test_a_router_that_goes_silent_is_given_up_and_replaced(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PROBE_SECONDS", 0.0)
    _room, watch, routers = await two_routers(hub)
    both = list(routers.values())
    for _ in range(2 * SILENT_PROBES):
        await hub._probe()
    assert all(one.is_open for one in both), "they answer"
    watch.answers_pings = both[0].answers_pings = both[1].answers_pings = False
    for _ in range(2 * SILENT_PROBES):
        await hub._probe()
    assert all(one.is_open for one in both), "nobody could take over: it may be our own network that is away"
    both[1].answers_pings = True
    await hub._probe()
    assert not both[0].is_open
    await until_carried_by(watch, 3)
    both[1].answers_pings = False
    for _ in range(2 * SILENT_PROBES):
        await hub._probe()
    assert both[1].is_open, "it is the last one"
    assert watch.is_open, "who carries nothing is not asked"


async def test_a_silent_router_has_as_long_as_it_takes_to_owe_five_answers(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "PROBE_SECONDS", 0.0)
    _room, watch, routers = await two_routers(hub)
    routers[2].answers_pings = False
    for _ in range(SILENT_PROBES + 1):
        assert routers[2].is_open
        await hub._probe()
    assert not routers[2].is_open
    await until_carried_by(watch, 3)
