"""What is sent to whom, in which order, and how often."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from controlplane.hub import pushing
from controlplane.hub.audience import Subscriber
from controlplane.hub.pushing import MAX_FULL_MAPS_AT_ONCE, MAX_PENDING_BYTES
from tests.controlplane.hub.world import TAILNET, Stream, World
from tests.controlplane.snapshots import node


async def test_equal_deltas_are_compressed_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    room = world.open_room(*(node(node_id) for node_id in range(1, 30)))
    streams = [await world.subscribe(node_id, zstd=True) for node_id in range(1, 20)]
    await world.settle(room)
    count = [0]
    compress = pushing.compress

    def counting(message: bytes) -> bytes:
        count[0] += 1
        return compress(message)

    monkeypatch.setattr(pushing, "compress", counting)
    world.hub.report(TAILNET, 25, home_derp=901)
    await world.settle(room)
    assert count[0] == 1
    assert len({id(stream.frames[-1]) for stream in streams}) == 1


async def test_nothing_comes_before_the_first_whole_map(world: World) -> None:
    """Changes while a map is being made reach the stream after it, and are not lost."""
    room = world.open_room(node(1), node(2))
    places = world.hub.workshop.places
    for _ in range(MAX_FULL_MAPS_AT_ONCE):
        await places.acquire()
    stream = Stream()
    joining = asyncio.create_task(world.hub.subscribe(TAILNET, 1, stream, zstd=False))
    await asyncio.sleep(0)
    world.hub.report(TAILNET, 2, home_derp=901)
    await world.settle(room)
    assert stream.messages == []
    for _ in range(MAX_FULL_MAPS_AT_ONCE):
        places.release()
    assert await joining
    await world.settle(room)
    assert "Node" in stream.messages[0]
    assert stream.netmap.peers[2].home_derp == 901


async def test_changes_while_a_big_map_is_made_follow_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    room = world.open_room(node(1), node(2), node(3))
    gate = asyncio.Event()

    async def slowly(message: bytes) -> bytes:
        await gate.wait()
        return pushing.compress(message)

    monkeypatch.setattr(world.hub.workshop, "compress", slowly)
    stream = Stream(zstd=True)
    joining = asyncio.create_task(world.hub.subscribe(TAILNET, 1, stream, zstd=True))
    await asyncio.sleep(0)
    world.hub.report(TAILNET, 2, home_derp=901)
    await world.settle(room)
    world.hub.report(TAILNET, 3, endpoints=("192.0.2.3:3",))
    await world.settle(room)
    assert stream.messages == []
    gate.set()
    assert await joining
    await world.settle(room)
    peers = stream.netmap.peers
    assert (peers[2].home_derp, peers[3].endpoints) == (901, ("192.0.2.3:3",))


async def test_a_slow_stream_gets_one_whole_map_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pushing, "RESUME_SECONDS", 0.01)
    room = world.open_room(node(1), node(2))
    slow = await world.subscribe(1)
    await world.settle(room)
    slow.pending, told = MAX_PENDING_BYTES + 1, len(slow.messages)
    for number in range(20):
        world.hub.report(TAILNET, 2, endpoints=(f"192.0.2.1:{number}",))
        await asyncio.sleep(0.01)
    await world.settle(room)
    assert slow.messages[told:] == []
    slow.pending = 0
    await world.until(lambda: len(slow.messages) > told)
    (whole,) = slow.messages[told:]
    assert "Node" in whole
    assert slow.netmap.peers[2].endpoints == ("192.0.2.1:19",)
    world.hub.report(TAILNET, 2, home_derp=901)
    await world.settle(room)
    assert slow.netmap.peers[2].home_derp == 901


async def test_pushes_stay_in_order_as_streams_come_and_go(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pushing, "FAN_OUT_BATCH", 2)
    room = world.open_room(*(node(node_id) for node_id in range(1, 12)))
    streams = {node_id: await world.subscribe(node_id) for node_id in range(1, 11)}
    await world.settle(room)
    for number in range(1, 40):
        room.pushes.push_soon(room.engine.with_nodes({11: node(11, home_derp=number)}))
        if number % 7 == 0:
            streams.pop(number // 7).close()
        await asyncio.sleep(0)
    await world.settle(room)
    for stream in streams.values():
        patches = [patch for message in stream.messages for patch in message.get("PeersChangedPatch", [])]
        homes = [patch["DERPRegion"] for patch in patches if "DERPRegion" in patch]
        assert homes == list(range(1, 40))


async def test_pushes_leave_in_the_order_in_which_the_engine_moved(world: World) -> None:
    room = world.open_room(node(1), node(2))
    stream = await world.subscribe(1)
    await world.settle(room)
    # "Node 2 has changed" is sent by a task that has not started yet when node 2 goes.
    room.pushes.push_soon(room.engine.with_nodes({2: node(2, hostinfo={"OS": "plan9"})}))
    await room.swap(replace(room.snapshot, nodes={1: room.snapshot.nodes[1]}, version=2), None)
    await world.settle(room)
    assert stream.netmap.peers == {}


async def test_a_deleted_node_hears_it_and_its_stream_ends(world: World) -> None:
    room = world.open_room(node(1), node(2))
    stream = await world.subscribe(2)
    await world.settle(room)
    await room.swap(replace(room.snapshot, nodes={1: room.snapshot.nodes[1]}, version=2), {2})
    assert stream.messages[-1]["PacketFilters"] == {"base": []}
    assert not stream.is_open
    assert world.hub.find_by_key(node(2).node_key) is None


def test_a_subscriber_starts_behind() -> None:
    assert Subscriber(1, Stream(), zstd=False).behind
