"""Streams of nodes: the newest counts, wherever it is, and the end of one is no end of the node."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.hub import presence
from tests.controlplane.hub.world import TAILNET, Stream, World
from tests.controlplane.snapshots import node


async def test_a_newer_stream_replaces_the_older_and_its_end_means_nothing(world: World) -> None:
    room = world.open_room(node(1), node(2))
    first = await world.subscribe(1)
    second = await world.subscribe(1)
    assert not first.is_open
    assert second.is_open
    await world.settle(room)
    assert room.audience.subscribers[1].stream is second
    assert room.snapshot.nodes[1].online


async def test_a_newer_stream_in_another_worker_ends_this_one(world: World) -> None:
    room = world.open_room(node(1), node(2))
    stream = await world.subscribe(1)
    await world.settle(room)
    epoch = room.audience.subscribers[1].epoch
    assert epoch > 0
    message = {"node": 1, "worker": "other", "facts": {"online": True}}
    room.facts.hear(message | {"epoch": epoch - 1})
    assert stream.is_open, "an older one is no reason"
    room.facts.hear(message | {"epoch": epoch + 1})
    assert not stream.is_open


async def test_nobody_can_subscribe_as_a_node_that_is_gone(world: World) -> None:
    world.open_room(node(1))
    assert not await world.hub.subscribe(TAILNET, 2, Stream(), zstd=False)
    assert not await world.hub.subscribe(77, 1, Stream(), zstd=False)


# --- two machines with the same keys ---------------------------------------------------------------------


def news_of(stream: Stream, node_id: int) -> int:
    """How many messages told this viewer something of a peer."""

    def tells(message: dict[str, Any]) -> bool:
        changed = [peer["ID"] for peer in message.get("PeersChanged", ())]
        return node_id in changed + [patch["NodeID"] for patch in message.get("PeersChangedPatch", ())]

    return sum(map(tells, stream.messages))


async def test_a_restarted_client_takes_its_place_at_once(world: World) -> None:
    room = world.open_room(node(1), node(2))
    first = await world.subscribe(1, "discokey:a")
    second = await world.subscribe(1, "discokey:b")
    assert (first.is_open, second.is_open) == (False, True)
    assert room.audience.subscribers[1].stream is second
    assert not room.audience.shadows
    again = await world.subscribe(1, "discokey:b")
    assert (second.is_open, again.is_open) == (False, True)
    assert world.hub.admits(TAILNET, 1, "discokey:b")


async def test_two_machines_with_the_same_keys_do_not_fight(world: World) -> None:
    room = world.open_room(node(1), node(2))
    watch = await world.subscribe(2)
    await world.subscribe(1, "discokey:a")
    holder = await world.subscribe(1, "discokey:b")
    for turn in range(20):  # the one that was thrown out comes back, and reports, again and again
        shadow = await world.subscribe(1, "discokey:a")
        assert not world.hub.admits(TAILNET, 1, "discokey:a")
        world.hub.report(TAILNET, 2, endpoints=(f"192.0.2.1:{turn}",))
        await world.settle(room)
        assert (holder.is_open, shadow.is_open) == (True, True)
    assert len(room.audience.shadows) == 1
    assert shadow.netmap.peers[2].endpoints == ("192.0.2.1:19",)  # its filters and peers stay right
    assert news_of(watch, 1) <= 1
    assert room.audience.subscribers[1].stream is holder


async def test_a_shadow_takes_the_place_of_a_holder_that_goes(world: World) -> None:
    room = world.open_room(node(1), node(2))
    await world.subscribe(1, "discokey:a")
    holder = await world.subscribe(1, "discokey:b")
    shadow = await world.subscribe(1, "discokey:a")
    holder.close()
    assert not shadow.is_open
    assert not room.audience.shadows
    back = await world.subscribe(1, "discokey:a")
    assert room.audience.subscribers[1].stream is back
    assert world.hub.admits(TAILNET, 1, "discokey:a")


async def test_shadows_are_freed_when_their_holder_left_another_worker(world: World) -> None:
    room = world.open_room(node(1, disco_key="discokey:b", online=True))
    message = {"node": 1, "worker": "other", "epoch": 0}
    for disco_key in ("discokey:a", "discokey:c"):
        room.facts.hear(message | {"facts": {"disco_key": disco_key}})
    shadow = await world.subscribe(1, "discokey:a")
    assert room.audience.shadows
    room.facts.hear(message | {"facts": {"online": False}})
    assert not shadow.is_open
    assert room.audience.admits(room.snapshot.nodes[1], "discokey:a")


# --- going offline ---------------------------------------------------------------------------------------


async def test_a_node_goes_offline_only_after_the_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presence, "OFFLINE_SECONDS", 0.05)
    room = world.open_room(node(1), node(2))
    watch, gone = await world.subscribe(1), await world.subscribe(2)
    await world.settle(room)
    gone.close()
    back = await world.subscribe(2)
    await asyncio.sleep(3 * presence.OFFLINE_SECONDS)
    await world.settle(room)
    assert watch.netmap.peers[2].online, "it was back in time"
    back.close()
    await world.until(lambda: watch.netmap.peers[2].online is False)
    assert watch.netmap.peers[2].last_seen is not None


async def test_pages_hear_of_a_stream_after_the_database_does(world: World) -> None:
    room = world.open_room(node(1), node(2))
    await world.subscribe(1)
    assert world.layer.sent == []
    await world.settle(room)
    ((group, message),) = world.layer.sent
    assert group == f"panel.{TAILNET}"
    assert [change["id"] for change in message["changes"]] == [1]
