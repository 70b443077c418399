"""Durable changes: what is read after which message, and what becomes of volatile facts then."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from controlplane.hub.refresh import Reading, Unread
from controlplane.netmap.policy.parse import parse_policy
from tests.controlplane.hub.world import TAILNET, World
from tests.controlplane.snapshots import node, node_key, tailnet


def change(version: int, *rows: tuple[str, int]) -> dict[str, Any]:
    return {
        "version": version,
        "rows": [{"model": model, "id": row_id, "op": "upsert"} for model, row_id in rows],
    }


# --- what is unread --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("messages", "in_order", "reading"),
    [
        ([change(2, ("node", 1))], [True], Reading({1}, 2)),
        ([change(2, ("node", 1)), change(3, ("node", 2))], [True, True], Reading({1, 2}, 3)),
        ([change(2, ("preauthkey", 9)), change(3, ("node", 2))], [True, True], Reading({2}, 3)),
        ([change(2, ("dnssettings", 1))], [True], Reading(None, 2)),
        ([change(3, ("node", 1))], [False], Reading(None, 3)),
        ([change(3, ("preauthkey", 9))], [False], Reading(None, 3)),
        ([change(3, ("node", 1)), change(2, ("node", 2))], [False, False], Reading(None, 3)),
    ],
)
def test_what_is_unread_after_some_messages(
    messages: list[dict[str, Any]], in_order: list[bool], reading: Reading
) -> None:
    unread = Unread(1)
    assert [unread.hear(one["version"], one["rows"]) for one in messages] == in_order
    assert unread
    assert unread.take() == reading
    assert not unread


def test_what_netmaps_do_not_show_is_not_read() -> None:
    unread = Unread(1)
    assert unread.hear(2, change(2, ("preauthkey", 9), ("invite", 3))["rows"])
    assert not unread
    assert unread.version == 2


# --- reading ---------------------------------------------------------------------------------------------


async def test_a_change_that_no_netmap_shows_reads_nothing(world: World) -> None:
    room = world.open_room(node(1))
    room.refresher.hear(change(2, ("preauthkey", 9)))
    assert room.snapshot.version == 2
    assert not room.refresher.is_reading


async def test_changed_nodes_are_read_alone_and_pushed(world: World) -> None:
    room = world.open_room(node(1), node(2))
    watch = await world.subscribe(1)
    await world.settle(room)
    world.database.tailnets[TAILNET] = tailnet(node(1), node(2, home_derp=7), version=2)
    room.refresher.hear(change(2, ("node", 2)))
    await world.until(lambda: watch.netmap.peers[2].home_derp == 7)
    assert world.database.reads == [{2}]
    room.refresher.hear(change(2, ("node", 2)))
    assert not room.refresher.is_reading, "it is old"


async def test_a_hole_in_the_versions_reads_the_tailnet(world: World) -> None:
    room = world.open_room(node(1))
    world.database.tailnets[TAILNET] = tailnet(node(1), node(2), version=3)
    room.refresher.hear(change(3, ("node", 1)))
    await world.until(lambda: room.snapshot.version == 3)
    assert world.database.reads == ["tailnet"]
    assert world.hub.find_by_key(node_key(2)) is room.snapshot.nodes[2]


async def test_a_lost_message_is_made_good_by_comparing(world: World) -> None:
    room = world.open_room(node(1))
    room.refresher.compare(1)
    assert not room.refresher.is_reading
    world.database.tailnets[TAILNET] = tailnet(node(1), node(2), version=4)
    room.refresher.compare(4)
    await world.until(lambda: 2 in room.snapshot.nodes)
    assert room.snapshot.version == 4


async def test_a_reading_that_failed_is_done_again(world: World) -> None:
    room = world.open_room(node(1))
    world.database.tailnets[TAILNET] = tailnet(node(1), node(2), version=2)
    world.database.failing = True
    with pytest.raises(OSError, match="away"):
        await room.refresher.learn(2)
    assert room.refresher.unread.whole
    world.database.failing = False
    room.refresher.compare(room.snapshot.version)
    await world.until(lambda: 2 in room.snapshot.nodes)


async def test_a_node_that_has_just_joined_is_learnt(world: World) -> None:
    world.open_room(node(1))
    world.database.tailnets[TAILNET] = tailnet(node(1), node(2), version=2)
    assert await world.hub.learn(TAILNET, 2, node_key(2))
    assert await world.hub.learn(TAILNET, 2, node_key(2))
    assert world.database.reads == [{2}]
    assert not await world.hub.learn(TAILNET, 3, node_key(3))


async def test_a_new_key_takes_the_place_of_the_old(world: World) -> None:
    room = world.open_room(node(1), node(2))
    await room.swap(tailnet(node(1), node(2, node_key=node_key(9)), version=2), {2})
    assert world.hub.find_by_key(node_key(2)) is None
    assert world.hub.tailnet_of_key(node_key(9)) == TAILNET


# --- volatile facts over what is read --------------------------------------------------------------------


async def test_a_reload_keeps_what_is_not_written_yet(world: World) -> None:
    room = world.open_room(node(1), node(2))
    watch = await world.subscribe(1)
    await world.settle(room)
    world.hub.report(TAILNET, 2, endpoints=("192.0.2.2:2",))
    await world.settle(room)
    rows = {node_id: node(node_id, home_derp=5) for node_id in (1, 2)}  # as the database still has them
    await room.swap(replace(room.snapshot, nodes=rows, version=2), None)
    assert watch.netmap.peers[2].endpoints == ("192.0.2.2:2",)
    assert watch.netmap.peers[2].home_derp == 5
    assert room.snapshot.nodes[1].online, "its stream is here, whatever the row says"


async def test_an_unchanged_row_stays_the_same_object(world: World) -> None:
    room = world.open_room(node(1), node(2))
    before = room.snapshot.nodes[2]
    await room.swap(replace(room.snapshot, nodes={1: node(1), 2: node(2)}, version=2), None)
    assert room.snapshot.nodes[2] is before


async def test_a_report_that_came_while_rows_were_read_stays(world: World) -> None:
    room = world.open_room(node(1), node(2))
    read = tailnet(node(1, home_derp=5), node(2), version=2)
    world.hub.report(TAILNET, 2, home_derp=901)
    await world.settle(room)
    await room.swap(read, {1})
    assert [room.snapshot.nodes[node_id].home_derp for node_id in (1, 2)] == [5, 901]


async def test_another_workers_report_of_a_node_that_is_being_read_is_kept(world: World) -> None:
    room = world.open_room(node(1))
    watch = await world.subscribe(1)
    await world.settle(room)
    facts = {"disco_key": node(2).disco_key, "endpoints": ["192.0.2.2:2"]}
    room.facts.hear({"node": 2, "worker": "other", "epoch": 0, "facts": facts})
    row = node(2, disco_key="")  # as it was read before the report was written
    nodes = dict(room.snapshot.nodes) | {2: row}
    await room.swap(replace(room.snapshot, nodes=nodes, version=2), {2})
    assert watch.netmap.peers[2].endpoints == ("192.0.2.2:2",)


# --- rooms -----------------------------------------------------------------------------------------------


async def test_all_who_ask_at_once_wait_for_one_loading(world: World) -> None:
    world.database.tailnets[TAILNET] = tailnet(node(1))
    rooms = await asyncio.gather(*(world.hub.room(TAILNET) for _ in range(5)))
    assert len({id(room) for room in rooms}) == 1
    assert (world.database.reads, world.layer.memberships) == (["tailnet"], ["join"])
    assert world.hub.find_by_key(node_key(1)) is not None
    assert await world.hub.room(77) is None


async def test_a_deleted_tailnets_streams_end(world: World) -> None:
    room = world.open_room(node(1), node(2))
    stream = await world.subscribe(1)
    await world.settle(room)
    del world.database.tailnets[TAILNET]
    room.refresher.hear(change(3, ("tailnet", TAILNET)))
    await world.until(lambda: not stream.is_open)
    await world.until(lambda: world.layer.memberships == ["leave"])
    assert world.hub.rooms.get(TAILNET) is None
    assert world.hub.find_by_key(node_key(2)) is None


async def test_a_policy_is_compiled_while_news_go_on(world: World) -> None:
    """Compiling has its thread; what is reported meanwhile is neither lost nor undone by it."""
    room = world.open_room(node(1), node(2), node(3))
    watch = await world.subscribe(1)
    await world.settle(room)
    alone = parse_policy('{"grants": [{"src": ["100.64.0.1"], "dst": ["100.64.0.2"], "ip": ["22"]}]}')
    written = replace(tailnet(node(1), node(2), node(3), version=2), policy=alone)
    world.database.tailnets[TAILNET] = written
    room.refresher.hear(change(2, ("policyversion", 1)))
    room.facts.report(2, {"endpoints": ("192.0.2.9:9",)})
    await world.until(lambda: room.snapshot.version == 2)
    await world.until(lambda: set(watch.netmap.peers) == {2})
    await world.until(lambda: watch.netmap.peers[2].endpoints == ("192.0.2.9:9",))
    assert room.engine.state.evaluation.policy is alone
