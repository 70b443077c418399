"""What happens by the clock: keys end, leases are renewed, the silent and the idle are given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controlplane.hub import clockwork, presence
from controlplane.hub.expiry import Expiry
from controlplane.hub.room import Room
from controlplane.liveness import SILENT_PROBES
from controlplane.netmap.engine import Engine
from controlplane.netmap.snapshot import Standing
from tests.controlplane.hub.world import TAILNET, Stream, World
from tests.controlplane.snapshots import START, node, tailnet

WAITS = (
    "TICK_SECONDS",
    "CHECK_SECONDS",
    "WRITE_BEHIND_SECONDS",
    "CLONES_SECONDS",
    "LEASE_RENEW_SECONDS",
    "PROBE_SECONDS",
)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITS:
        monkeypatch.setattr(clockwork, name, 0.0)


# --- keys ------------------------------------------------------------------------------------------------


def test_the_next_end_counts_and_only_of_keys_that_are_good() -> None:
    first, second = START + timedelta(hours=1), START + timedelta(hours=2)
    engine = Engine(
        tailnet(
            node(1, key_expiry=second),
            node(2, key_expiry=first, standing=Standing.PENDING),
            node(3, key_expiry=START, standing=Standing.EXPIRED),
            node(4),
        )
    )
    expiry = Expiry(engine)
    assert expiry.next == first
    assert expiry.expired(first - timedelta(seconds=1)) == {}
    ended = expiry.expired(first)
    assert {i: one.standing for i, one in ended.items()} == {2: Standing.EXPIRED}
    engine.with_nodes(ended)
    expiry.plan()
    assert expiry.next == second
    engine.with_nodes(expiry.expired(second))
    expiry.plan()
    assert expiry.next is None


async def test_a_key_that_ends_is_told_at_once(world: World) -> None:
    """No row changes here and nothing is read: the sweep comes later."""
    soon = datetime.now(UTC) + timedelta(seconds=0.2)
    room = world.open_room(node(1), node(2, key_expiry=soon), node(3, key_expiry=soon + timedelta(days=1)))
    one, two = await world.subscribe(1), await world.subscribe(2)
    await world.settle(room)
    assert not one.netmap.peers[2].expired
    while not one.netmap.peers[2].expired:
        await world.hub.clockwork.tick()
        await world.settle(room)
    assert two.netmap.peers == {}
    assert not one.netmap.peers[3].expired
    assert world.database.reads == []


# --- the database ----------------------------------------------------------------------------------------


async def test_a_change_of_another_process_is_found(world: World) -> None:
    room = world.open_room(node(1))
    await world.hub.clockwork.check_versions()
    assert world.database.reads == []
    world.database.tailnets[TAILNET] = tailnet(node(1), node(2), version=5)
    await world.hub.clockwork.check_versions()
    await world.until(lambda: room.snapshot.version == 5)


async def test_one_tailnet_that_cannot_be_written_does_not_hold_up_the_rounds(world: World) -> None:
    world.open_room(node(1))
    world.hub.report(TAILNET, 1, home_derp=901)
    world.database.failing = True
    await world.hub.clockwork.write_behind()
    world.database.failing = False
    await world.hub.clockwork.write_behind()
    assert [report.home_derp for report in world.database.written] == [901]


async def test_machines_that_share_their_keys_are_told_to_the_database(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open_room(node(1))
    for disco_key, address in (("a", "192.0.2.1"), ("b", "192.0.2.2"), ("a", "192.0.2.1")):
        await world.subscribe(1, f"discokey:{disco_key}", address=address)
    await world.hub.clockwork.watch_clones()
    assert not world.database.clones
    monkeypatch.setattr("controlplane.hub.audience.SURE_SECONDS", 0.0)
    await world.hub.clockwork.watch_clones()
    assert world.database.clones == [{1: "192.0.2.2, 192.0.2.1"}]


# --- leases ----------------------------------------------------------------------------------------------


async def test_leases_are_renewed_and_a_dead_workers_are_found(world: World) -> None:
    room = world.open_room(node(1), node(2, online=True), node(3, online=True))
    watch = await world.subscribe(1)
    await world.settle(room)
    world.database.ended = [1, 3]
    await world.hub.clockwork.renew()
    await world.settle(room)
    assert world.database.renewed == [1]
    assert world.layer.memberships == ["join"]
    assert [watch.netmap.peers[node_id].online for node_id in (2, 3)] == [True, False]


async def test_a_tailnet_without_streams_is_closed_once_it_is_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.open_room(node(1))
    world.hub.report(TAILNET, 1, home_derp=901)
    await world.hub.clockwork.renew()
    monkeypatch.setattr(clockwork, "ROOM_IDLE_SECONDS", -1.0)
    await world.hub.clockwork.renew()
    assert world.hub.rooms.get(TAILNET) is not None
    await world.hub.write_now(TAILNET)
    await world.hub.clockwork.renew()
    assert world.hub.rooms.get(TAILNET) is None
    assert world.layer.memberships == ["join", "join", "leave"]


# --- routers that share a subnet -------------------------------------------------------------------------

LAN = "10.9.0.0/16"


def carrier(watch: Stream) -> list[int]:
    return [peer.id for peer in watch.netmap.peers.values() if LAN in peer.allowed_ips]


async def two_routers(world: World) -> tuple[Room, Stream, dict[int, Stream]]:
    """A viewer, node 1, and the routers 2 and 3 of one subnet, connected in this order."""
    values = {"routes": (LAN,), "approved": {LAN: datetime(2020, 1, 1, tzinfo=UTC)}}
    room = world.open_room(node(1), node(2, **values), node(3, **values))
    watch = await world.subscribe(1)
    routers = {}
    for number in (2, 3):
        routers[number] = await world.subscribe(number)
        await world.settle(room)
    assert carrier(watch) == [2]
    return room, watch, routers


async def test_a_router_that_hung_up_is_replaced_and_waits_its_turn_when_it_returns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "OFFLINE_SECONDS", 0.01)
    room, watch, routers = await two_routers(world)
    routers[2].close()
    await world.until(lambda: carrier(watch) == [3])
    assert room.snapshot.nodes[2].online_since is None
    routers[2] = await world.subscribe(2)
    await world.settle(room)
    assert room.snapshot.nodes[2].online_since is not None
    assert carrier(watch) == [3]
    routers[3].close()
    await world.until(lambda: carrier(watch) == [2])


async def test_a_router_that_goes_silent_is_given_up_and_replaced(world: World) -> None:
    _room, watch, routers = await two_routers(world)
    both, probe = list(routers.values()), world.hub.clockwork.probe
    for _ in range(2 * SILENT_PROBES):
        await probe()
    assert all(one.is_open for one in both), "they answer"
    watch.answers_pings = both[0].answers_pings = both[1].answers_pings = False
    for _ in range(2 * SILENT_PROBES):
        await probe()
    assert all(one.is_open for one in both), "nobody could take over: it may be our own network that is away"
    both[1].answers_pings = True
    await probe()
    assert not both[0].is_open
    await world.until(lambda: carrier(watch) == [3])
    both[1].answers_pings = False
    for _ in range(2 * SILENT_PROBES):
        await probe()
    assert both[1].is_open, "it is the last one"
    assert watch.is_open, "who carries nothing is not asked"


async def test_a_silent_router_has_as_long_as_it_takes_to_owe_five_answers(world: World) -> None:
    _room, watch, routers = await two_routers(world)
    routers[2].answers_pings = False
    for _ in range(SILENT_PROBES + 1):
        assert routers[2].is_open
        await world.hub.clockwork.probe()
    assert not routers[2].is_open
    await world.until(lambda: carrier(watch) == [3])
