"""Two nodes in every kind of network: who becomes direct, how soon, and what is lost on the way."""

from __future__ import annotations

import pytest

from client.magicsock.states import State
from tests.natlab.node import SimNode, introduce, states
from tests.natlab.world import Site, World
from wire.paths import Reason

DIRECT = (State.DIRECT, State.DIRECT)


def pair(world: World, one: Site, other: Site, *, v6: bool = False) -> tuple[SimNode, SimNode]:
    a = SimNode(world, one, 1, ("192.168.1.10", "2001:db8:a::10") if v6 else ("192.168.1.10",))
    b = SimNode(world, other, 2, ("192.168.2.20", "2001:db8:b::20") if v6 else ("192.168.2.20",))
    introduce(a, b)
    return a, b


def easy_pair(seed: int = 0) -> tuple[World, SimNode, SimNode]:
    world = World(seed)
    a, b = pair(world, Site(world, "203.0.113.1"), Site(world, "203.0.113.2"))
    return world, a, b


def talk(a: SimNode, b: SimNode, seconds: float, gap: float = 0.1) -> tuple[list[int], list[int]]:
    """Both send, all the time; nothing runs yet."""
    count = int(seconds / gap)
    return a.send(b, count, gap), b.send(a, count, gap)


def lost(a: SimNode, b: SimNode, numbers: tuple[list[int], list[int]]) -> int:
    return len(b.missing(a, numbers[0])) + len(a.missing(b, numbers[1]))


def direct_pair(seed: int = 0) -> tuple[World, SimNode, SimNode]:
    world, a, b = easy_pair(seed)
    talk(a, b, 5)
    world.run(5)
    assert states(a, b) == DIRECT
    return world, a, b


# --- becoming direct -------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_two_easy_nats_become_direct_and_lose_nothing(seed: int) -> None:
    world, a, b = easy_pair(seed)
    numbers = talk(a, b, 20)
    world.run(1)
    assert states(a, b) == DIRECT
    world.run(20)
    assert states(a, b) == DIRECT
    assert lost(a, b, numbers) == 0


def test_the_first_packet_of_one_side_is_enough() -> None:
    world, a, b = easy_pair()
    numbers = a.send(b)
    world.run(1.5)
    assert b.missing(a, numbers) == []
    assert a.path_to(b).state is State.DIRECT


@pytest.mark.parametrize("seed", range(5))
def test_an_easy_and_a_hard_nat_stay_on_the_relay(seed: int) -> None:
    world = World(seed)
    a, b = pair(world, Site(world, "203.0.113.1"), Site(world, "203.0.113.2", hard=True))
    numbers = talk(a, b, 120)
    world.run(125)
    assert states(a, b) == (State.PROBING, State.PROBING)
    assert lost(a, b, numbers) == 0
    assert a.path_to(b).reason(world.now) is Reason.SILENT


def test_a_hard_nat_reaches_an_open_host() -> None:
    world = World()
    a, b = pair(world, Site(world, "203.0.113.1", hard=True), Site(world, "192.168.2.20", open=True))
    numbers = talk(a, b, 10)
    world.run(11)
    assert states(a, b) == DIRECT
    assert lost(a, b, numbers) == 0


def test_one_lan_is_direct_by_local_addresses() -> None:
    world = World()
    site = Site(world, "203.0.113.1", hard=True)
    a, b = SimNode(world, site, 1, ("192.168.1.10",)), SimNode(world, site, 2, ("192.168.1.20",))
    introduce(a, b)
    numbers = talk(a, b, 3)
    world.run(4)
    assert a.path_to(b).endpoint == ("192.168.1.20", 41641)
    assert b.path_to(a).endpoint == ("192.168.1.10", 41641)
    assert lost(a, b, numbers) == 0


def test_ipv6_is_direct_where_ipv4_cannot_be() -> None:
    world = World()
    a, b = pair(world, Site(world, "203.0.113.1", hard=True), Site(world, "203.0.113.2", hard=True), v6=True)
    numbers = talk(a, b, 10)
    world.run(11)
    assert a.path_to(b).endpoint == ("2001:db8:b::20", 41641)
    assert b.path_to(a).endpoint == ("2001:db8:a::10", 41641)
    assert lost(a, b, numbers) == 0


def test_blocked_udp_stays_on_the_relay() -> None:
    world = World()
    a, b = pair(world, Site(world, "203.0.113.1"), Site(world, "203.0.113.2", udp=False))
    numbers = talk(a, b, 60)
    world.run(61)
    assert states(a, b) == (State.PROBING, State.PROBING)
    assert lost(a, b, numbers) == 0


def test_unblocked_udp_becomes_direct() -> None:
    world = World()
    site = Site(world, "203.0.113.2", udp=False)
    a, b = pair(world, Site(world, "203.0.113.1"), site)
    numbers = talk(a, b, 300)
    world.run(180)
    site.udp = True
    world.run(90)
    assert states(a, b) == DIRECT
    world.run(60)
    assert lost(a, b, numbers) == 0


@pytest.mark.parametrize("seed", range(10))
def test_loss_neither_prevents_a_direct_path_nor_makes_it_flap(seed: int) -> None:
    world, a, b = easy_pair(seed)
    world.loss = 0.3
    talk(a, b, 630)
    world.run(30)
    assert states(a, b) == DIRECT
    before = len(a.remotes[b.key].moves)
    world.run(600)
    assert len(a.remotes[b.key].moves) - before <= 2
    assert states(a, b) == DIRECT


@pytest.mark.parametrize("seed", range(5))
def test_one_way_traffic_over_a_lossy_path_does_not_flap(seed: int) -> None:
    world, a, b = direct_pair(seed)
    world.loss = 0.05
    a.send(b, 6000)
    before = len(a.remotes[b.key].moves)
    world.run(600)
    assert len(a.remotes[b.key].moves) - before <= 2


# --- losing it -------------------------------------------------------------------------------------------


def test_a_dead_path_gives_way_to_the_relay_and_comes_back() -> None:
    world, a, b = direct_pair()
    numbers = talk(a, b, 100)
    world.cut("203.0.113.1", "203.0.113.2")
    world.run(6)
    assert states(a, b) == (State.PROBING, State.PROBING)
    flowing = talk(a, b, 5)
    world.run(6)
    assert lost(a, b, flowing) == 0
    world.cuts.clear()
    world.run(30)
    assert states(a, b) == DIRECT
    world.run(60)
    assert lost(a, b, numbers) <= 2 * 6 / 0.1


@pytest.mark.parametrize("both", [True, False])
def test_a_path_that_is_dead_one_way_gives_way_to_the_relay(both: bool) -> None:
    world, a, b = direct_pair()
    talk(a, b, 100)
    world.cut("203.0.113.1", "203.0.113.2", both=both)
    world.run(40)
    flowing = talk(a, b, 20)
    world.run(21)
    assert lost(a, b, flowing) == 0
    assert states(a, b) == (State.PROBING, State.PROBING)


@pytest.mark.parametrize("seed", range(5))
def test_when_one_side_gives_a_path_up_the_other_follows_at_once(seed: int) -> None:
    """The router lets UDP in and no more out: what still comes in must not keep the other side there."""
    world, a, b = direct_pair(seed)
    talk(a, b, 100)
    world.cut("203.0.113.2", "203.0.113.1", both=False)
    world.run(9)
    flowing = talk(a, b, 20)
    world.run(21)
    assert lost(a, b, flowing) == 0


@pytest.mark.parametrize("seed", range(5))
def test_a_nat_that_forgets_is_repaired_within_six_seconds(seed: int) -> None:
    world, a, b = direct_pair(seed)
    talk(a, b, 60)
    world.run(1 + seed / 2)
    a.site.rebind()
    world.run(6)
    flowing = talk(a, b, 5)
    world.run(6)
    assert lost(a, b, flowing) == 0
    world.run(20)
    assert states(a, b) == DIRECT


def test_another_network_moves_the_path() -> None:
    world, a, b = direct_pair()
    talk(a, b, 60)
    world.run(1)
    a.move(Site(world, "203.0.113.77"), ("10.7.0.7",))
    world.run(4)
    flowing = talk(a, b, 30)
    world.run(31)
    assert lost(a, b, flowing) <= 2
    assert states(a, b) == DIRECT


# --- idle ------------------------------------------------------------------------------------------------


def test_an_idle_pair_falls_silent_and_wakes_without_loss() -> None:
    world, a, b = direct_pair()
    world.run(90)
    assert states(a, b) == (State.RELAYED, State.RELAYED)
    quiet = dict(a.sent), dict(b.sent)
    world.run(3600)
    assert (a.sent, b.sent) == quiet
    numbers = talk(a, b, 5)
    world.run(6)
    assert lost(a, b, numbers) == 0
    assert states(a, b) == DIRECT


def test_pings_to_a_peer_that_is_away_are_few() -> None:
    world, a, b = easy_pair()
    b.online = False
    a.send(b, 18, gap=5.0)  # WireGuard tries to shake hands for 90 s
    world.run(600)
    assert a.sent["SendDirect"] <= 2 * 20
    assert a.sent["CallPeer"] <= 20
    quiet = dict(a.sent)
    world.run(600)
    assert a.sent == quiet


def test_pings_between_hard_nats_are_bounded_by_the_clock() -> None:
    world = World()
    a, b = pair(world, Site(world, "203.0.113.1", hard=True), Site(world, "203.0.113.2", hard=True))
    talk(a, b, 600, gap=1.0)
    world.run(600)
    rounds = 12 + 600 / 30
    candidates = len(a.path_to(b).candidates)
    assert a.sent["CallPeer"] <= rounds + 2
    assert a.sent["SendDirect"] <= 2 * (rounds + 2) * candidates


# --- daemons die -----------------------------------------------------------------------------------------


def test_a_dead_daemon_cuts_no_direct_tunnel() -> None:
    world, a, b = direct_pair()
    numbers = talk(a, b, 120)
    world.run(3)
    b.kill()
    world.run(130)
    assert lost(a, b, numbers) == 0
    assert a.path_to(b).endpoint is not None


def test_a_dead_daemon_cuts_no_direct_tunnel_that_was_idle() -> None:
    world, a, b = direct_pair()
    b.kill()
    world.run(100)
    numbers = talk(a, b, 30)
    world.run(40)
    assert lost(a, b, numbers) == 0


def test_a_dead_daemon_is_reached_where_it_last_was() -> None:
    """Both fell asleep on the relay; then one daemon died: its WireGuard is only where it was direct."""
    world = World()
    a, b = pair(world, Site(world, "203.0.113.1"), Site(world, "192.168.2.20", open=True))
    talk(a, b, 5)
    world.run(100)
    assert states(a, b) == (State.RELAYED, State.RELAYED)
    b.kill()
    numbers = a.send(b, 200)
    world.run(30)
    assert len(b.missing(a, numbers)) <= 60


def test_one_way_traffic_to_a_dead_daemon_stays_direct() -> None:
    world, a, b = direct_pair()
    world.run(3)
    b.kill()
    numbers = a.send(b, 1000)
    world.run(110)
    assert b.missing(a, numbers) == []


def test_a_restarted_daemon_keeps_the_tunnel_although_no_server_passes_on_its_new_key() -> None:
    world, a, b = direct_pair()
    numbers = talk(a, b, 120)
    world.run(3)
    b.kill()
    world.run(2)
    b.restart()
    world.run(60)
    assert lost(a, b, (numbers[0][:600], numbers[1][:600])) == 0
    a.learn(b)
    world.run(60)
    assert lost(a, b, numbers) == 0
    assert states(a, b) == DIRECT


def test_both_daemons_restart_at_once() -> None:
    world, a, b = direct_pair()
    numbers = talk(a, b, 120)
    world.run(3)
    a.kill()
    b.kill()
    world.run(5)
    a.restart()
    b.restart()
    a.learn(b)
    b.learn(a)
    world.run(115)
    assert lost(a, b, numbers) == 0
    assert states(a, b) == DIRECT


def test_direct_tunnels_do_not_need_the_relay() -> None:
    world, a, b = direct_pair()
    numbers = talk(a, b, 300)
    world.relay_works = False
    world.run(301)
    assert lost(a, b, numbers) == 0


# --- a person pings --------------------------------------------------------------------------------------


def test_a_ping_is_answered_by_relay_and_then_directly() -> None:
    world, a, b = easy_pair()
    for _ in range(5):
        a.ping(b)
        world.run(1)
    answers = a.remotes[b.key].answers
    assert answers[0].address is None
    assert answers[0].region == 900
    assert answers[-1].address is not None
