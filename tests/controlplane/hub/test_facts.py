"""Volatile facts: pushed together, told, written behind, and forgotten once they are written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from controlplane.hub import layer
from controlplane.hub.facts import gone
from controlplane.hub.layer import facts_in, plain
from controlplane.hub.reports import VOLATILE_SECONDS, Recent, Unwritten
from controlplane.netmap.policy.parse import parse_policy
from tests.controlplane.hub.world import TAILNET, Memory, World
from tests.controlplane.snapshots import node


async def test_a_burst_of_reports_is_one_push(world: World) -> None:
    room = world.open_room(node(1), node(2), node(3))
    watch = await world.subscribe(1)
    await world.settle(room)
    told = len(watch.messages)
    for number in range(50):
        world.hub.report(TAILNET, 2 + number % 2, endpoints=(f"192.0.2.1:{number}",))
    await world.settle(room)
    (message,) = watch.messages[told:]
    assert {patch["NodeID"]: patch["Endpoints"] for patch in message["PeersChangedPatch"]} == {
        2: ["192.0.2.1:48"],
        3: ["192.0.2.1:49"],
    }


async def test_a_report_that_is_no_news_is_not_pushed_written_or_told(world: World) -> None:
    room = world.open_room(node(1), node(2, home_derp=900))
    watch = await world.subscribe(1)
    await world.settle(room)
    told = len(watch.messages)
    assert world.hub.report(TAILNET, 2, home_derp=900, endpoints=()) == {}
    assert world.hub.report(TAILNET, 99, home_derp=900) == {}
    assert world.hub.report(77, 2, home_derp=900) == {}
    await world.settle(room)
    assert watch.messages[told:] == []
    assert not room.unwritten.node_ids


async def test_a_hostinfo_says_the_home_relay_and_an_absent_netinfo_keeps_it(world: World) -> None:
    room = world.open_room(node(1))
    world.hub.take_hostinfo(TAILNET, 1, {"OS": "linux", "NetInfo": {"PreferredDERP": 901}})
    await world.settle(room)
    world.hub.take_hostinfo(TAILNET, 1, {"OS": "plan9"})
    world.hub.take_hostinfo(TAILNET, 99, {"OS": "plan9"})
    await world.settle(room)
    assert room.snapshot.nodes[1].home_derp == 901
    assert world.hub.hostinfo_of(TAILNET, 1) == {"OS": "plan9", "NetInfo": {"PreferredDERP": 901}}
    assert world.hub.hostinfo_of(TAILNET, 99) == {}


# --- other workers ---------------------------------------------------------------------------------------


async def test_another_workers_offline_does_not_touch_a_node_that_is_here(world: World) -> None:
    room = world.open_room(node(1), node(2))
    await world.subscribe(1)
    await world.settle(room)
    facts = {"online": False, "last_seen": "2030-01-01T00:00:00+00:00"}
    room.facts.hear({"node": 1, "worker": "other", "epoch": 0, "facts": facts})
    await world.settle(room)
    assert room.snapshot.nodes[1].online


async def test_a_report_reaches_another_worker_as_it_was(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layer, "environment", lambda: type("Scaled", (), {"scaled": True}))
    room = world.open_room(node(1), node(2))
    facts = {"endpoints": ("192.0.2.2:2",), "home_derp": 901, **gone()}
    world.hub.report(TAILNET, 2, **facts)
    ((group, message),) = world.layer.sent
    assert (group, message["worker"], message["epoch"]) == (f"tailnet.{TAILNET}", world.layer.worker, 0)
    here = World()
    there = here.open_room(node(1), node(2))
    there.facts.hear(message)
    await world.settle(room)
    await here.settle(there)
    assert there.snapshot.nodes == room.snapshot.nodes
    await here.stop()


def test_facts_survive_a_message() -> None:
    facts = {
        "endpoints": ("192.0.2.2:2",),
        "online": True,
        "online_since": datetime.now(UTC),
        "last_seen": None,
    }
    assert facts_in({"facts": plain(facts)}) == facts


# --- kept and written ------------------------------------------------------------------------------------


def test_recent_facts_are_kept_for_a_while_and_longer_where_they_are_needed() -> None:
    recent = Recent()
    recent.add(1, {"home_derp": 1, "disco_key": "a"}, 0.0)
    recent.add(1, {"home_derp": 2}, 5.0)
    recent.add(2, {"home_derp": 3}, 0.0)
    assert recent.of(1) == {"home_derp": 2, "disco_key": "a"}
    assert recent.of(3) == {}
    recent.forget_old(VOLATILE_SECONDS + 1, keep={2})
    assert (recent.of(1), recent.of(2)) == ({"home_derp": 2, "disco_key": "a"}, {"home_derp": 3})
    recent.forget_old(VOLATILE_SECONDS + 6, keep={2})
    assert (recent.of(1), recent.of(2)) == ({}, {"home_derp": 3})
    recent.forget(2)
    assert recent.of(2) == {}


async def test_what_could_not_be_written_is_kept_and_gives_way_to_what_is_newer() -> None:
    database = Memory()
    unwritten = Unwritten(TAILNET, database)
    unwritten.add(1, {"home_derp": 1, "disco_key": "a", "online": True})
    database.failing = True
    writing = asyncio.create_task(unwritten.write())
    await asyncio.sleep(0)
    unwritten.add(1, {"home_derp": 2})
    with pytest.raises(OSError, match="away"):
        await writing
    database.failing = False
    await unwritten.write()
    (report,) = database.written
    assert (report.home_derp, report.disco_key) == (2, "a")
    assert not unwritten.node_ids


async def test_those_who_wait_for_a_write_share_it() -> None:
    database = Memory()
    unwritten = Unwritten(TAILNET, database)
    unwritten.add(1, {"home_derp": 1})
    first = asyncio.create_task(unwritten.write())
    await asyncio.sleep(0)
    for node_id in (2, 3):
        unwritten.add(node_id, {"home_derp": 1})
    await asyncio.gather(first, unwritten.write(), unwritten.write())
    assert [report.node_id for report in database.written] == [1, 2, 3]


async def test_written_reports_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    room = world.open_room(node(1), node(2))
    world.hub.report(TAILNET, 2, home_derp=901)
    await world.settle(room)
    row: Any = node(2, home_derp=5)
    monkeypatch.setattr("controlplane.hub.reports.VOLATILE_SECONDS", -1.0)
    room.facts.forget_written()
    assert room.facts.overlay(row).home_derp == 901, "it is not written yet"
    await world.hub.write_now(TAILNET)
    room.facts.forget_written()
    assert room.facts.overlay(row) is row
    assert room.snapshot.nodes[2].home_derp == 901


async def test_what_a_device_tells_of_itself_is_judged_at_once(world: World) -> None:
    """A posture is met, and no longer met, with the Hostinfo that says so; others' attributes stay."""
    text = (
        '{"postures": {"posture:linux": ["node:os == \'linux\'", "custom:tier == \'gold\'"]},'
        ' "grants": [{"src": ["*"], "dst": ["100.64.0.2"], "ip": ["*"], "srcPosture": ["posture:linux"]}]}'
    )
    gold = {"custom:tier": "gold", "node:os": "windows"}
    room = world.open_room(node(1, attributes=gold), node(2), policy=parse_policy(text))
    watch = await world.subscribe(2)
    assert watch.netmap.peers == {}
    world.hub.take_hostinfo(TAILNET, 1, {"OS": "linux"})
    await world.until(lambda: set(watch.netmap.peers) == {1})
    assert room.snapshot.nodes[1].attributes["custom:tier"] == "gold"
    world.hub.take_hostinfo(TAILNET, 1, {"OS": "plan9"})
    await world.until(lambda: not watch.netmap.peers)
