"""Addresses inside the namespace that stand for hosts outside and for relays."""

from __future__ import annotations

from client.rootless.lanes import MAX_IDLE, Lanes
from tests.client.fakes import key

ADA, BEN = key(1).public(), key(2).public()


def host(number: int) -> tuple[str, int]:
    return f"198.51.{number // 256}.{number % 256}", 41641


def test_everyone_has_one_lane_and_all_differ() -> None:
    lanes = Lanes()
    made = [lanes.of_peer(ADA), lanes.of_peer(BEN), lanes.of_host(host(1)), lanes.of_host(host(2))]
    assert made == [lanes.of_peer(ADA), lanes.of_peer(BEN), lanes.of_host(host(1)), lanes.of_host(host(2))]
    assert len({lane.host for lane in made}) == 4
    assert all(lane.host.startswith("127.") for lane in made)
    assert all(lanes.at(lane.host) is lane for lane in made)
    assert lanes.at("127.0.0.1") is None
    assert lanes.at("fe80::1") is None


def test_a_lane_stays_with_a_peer_that_changes_its_key() -> None:
    lanes = Lanes()
    before = lanes.of_peer(ADA)
    lanes.rekey(ADA, BEN)
    assert lanes.of_peer(BEN) is before
    assert before.peer == BEN
    assert ADA not in lanes.by_peer


def test_strangers_make_room_for_strangers_and_never_for_nothing() -> None:
    lanes = Lanes()
    relay, direct = lanes.of_peer(ADA), lanes.of_host(host(0))
    lanes.use([direct])
    for number in range(1, MAX_IDLE + 10):
        lanes.of_host(host(number))
    assert len(lanes.by_outside) == MAX_IDLE + 1
    assert lanes.by_outside[host(0)] is direct
    assert lanes.at(relay.host) is relay
    assert host(1) not in lanes.by_outside
    lanes.use([])
    for number in range(2000, 2000 + MAX_IDLE):
        lanes.of_host(host(number))
    assert host(0) not in lanes.by_outside
    assert lanes.at(direct.host) is None
    assert len(lanes.by_inside) == MAX_IDLE + 1


def test_whoever_sends_again_is_no_stranger_to_go() -> None:
    lanes = Lanes()
    first = lanes.of_host(host(0))
    for number in range(1, MAX_IDLE):
        lanes.of_host(host(number))
    assert lanes.of_host(host(0)) is first
    lanes.of_host(host(MAX_IDLE))
    assert host(0) in lanes.by_outside
    assert host(1) not in lanes.by_outside


def test_removed_twice_is_fine() -> None:
    lanes = Lanes()
    lane = lanes.of_peer(ADA)
    assert lanes.remove(ADA) is lane
    assert lanes.remove(ADA) is None
    assert lanes.at(lane.host) is None
