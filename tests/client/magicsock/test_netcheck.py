"""From answers to a report, and from reports to a home relay that does not wander."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.magicsock.netcheck import (
    MAX_NODES_A_REGION,
    QUICK_REGIONS,
    REMEMBERED,
    Homes,
    Measurement,
    Report,
    nodes_to_measure,
    remembering,
    same_network,
    second_port,
    sole_home,
)
from wire.derpmap import DERPMap, DERPNode, DERPRegion

SERVER_1, SERVER_2, SERVER_6 = ("198.51.100.1", 3478), ("198.51.100.2", 3478), ("2001:db8::1", 3478)
ME, ME_TOO, ME_6 = ("203.0.113.5", 4000), ("203.0.113.5", 4001), ("2001:db8:5::5", 4000)


def region(number: int, nodes: int = 1, *, no_home: bool = False) -> DERPRegion:
    return DERPRegion(
        region_id=number,
        region_code=f"r{number}",
        region_name=f"R{number}",
        no_measure_no_home=no_home,
        nodes=tuple(
            DERPNode(name=f"{number}{letter}", region_id=number, host_name=f"{letter}{number}.example")
            for letter in "abcdef"[:nodes]
        ),
    )


def map_of(*regions: DERPRegion, scores: dict[int, float] | None = None) -> DERPMap:
    return DERPMap(regions={item.region_id: item for item in regions}, region_scores=scores or {})


TWO = map_of(region(1), region(2))


def measurement(*answers: tuple[tuple[str, int], tuple[str, int], float]) -> Measurement:
    """``answers``: server, how it saw us, seconds."""
    made = Measurement(os_has_ipv6=True)
    for number, (server, seen, latency) in enumerate(answers, 1):
        txid = number.to_bytes(12)
        made.sent(txid, number, server, 10.0)
        assert made.answered(txid, seen, 10.0 + latency)
    return made


# --- reports ---------------------------------------------------------------------------------------------


def test_nothing_answered() -> None:
    made = Measurement(os_has_ipv6=False)
    made.sent(b"1" * 12, 1, SERVER_1, 0.0)
    assert not made.complete
    report = made.report()
    assert report == Report()
    assert report.net_info().working_udp is False
    assert report.net_info().mapping_varies_by_dest_ip is None


def test_one_server_cannot_tell_whether_the_mapping_varies() -> None:
    report = measurement((SERVER_1, ME, 0.02)).report()
    assert report.udp
    assert report.ipv4
    assert not report.ipv6
    assert report.mapping_varies_by_dest_ip is None
    assert report.global_v4 == (ME,)


@pytest.mark.parametrize(("second", "varies"), [(ME, False), (ME_TOO, True)])
def test_two_servers_tell_whether_the_mapping_varies(second: tuple[str, int], varies: bool) -> None:
    report = measurement((SERVER_1, ME, 0.02), (SERVER_2, second, 0.03)).report()
    assert report.mapping_varies_by_dest_ip is varies
    assert report.global_v4 == (ME,)  # an address that one server alone saw is a hard NAT's


@pytest.mark.parametrize(("second", "varies"), [(ME, False), (ME_TOO, True)])
def test_a_second_port_of_one_server_tells_it_too(second: tuple[str, int], varies: bool) -> None:
    made = measurement((SERVER_1, ME, 0.02))
    made.sent(b"second port.", 1, (SERVER_1[0], 443), 10.0, may_be_silent=True)
    assert made.complete
    assert made.answered(b"second port.", second, 10.02)
    report = made.report()
    assert report.mapping_varies_by_dest_ip is varies
    assert report.global_v4 == (ME,)  # it is for comparison only


def test_what_is_known_of_a_nat_stays_known_behind_the_same_address() -> None:
    known = Report(udp=True, global_v4=(ME,), mapping_varies_by_dest_ip=True)
    unsure = Report(udp=True, global_v4=(ME_TOO,))
    assert remembering(unsure, known).mapping_varies_by_dest_ip is True
    assert remembering(unsure, None) == unsure
    assert (
        remembering(replace(unsure, global_v4=(("198.51.100.9", 1),)), known).mapping_varies_by_dest_ip
        is None
    )
    assert remembering(Report(), known) == Report()
    easy = replace(unsure, mapping_varies_by_dest_ip=False)
    assert remembering(easy, known) == easy


@pytest.mark.parametrize(
    ("node", "port"),
    [({}, 443), ({"derp_port": 8443}, 8443), ({"derp_port": 3478}, None), ({"stun_port": -1}, None)],
)
def test_the_second_port_is_derps_number(node: dict[str, int], port: int | None) -> None:
    made = DERPNode(name="1a", region_id=1, host_name="a.example", **node)  # type: ignore[arg-type]
    assert second_port(made) == port


def test_a_forwarded_port_makes_a_hard_nat_passable() -> None:
    hard = Report(udp=True, mapping_varies_by_dest_ip=True)
    assert hard.is_hard
    assert not replace(hard, mapped=ME).is_hard
    assert replace(hard, mapped=ME, pcp=True).net_info().have_port_map


def test_both_families() -> None:
    report = measurement((SERVER_1, ME, 0.02), (SERVER_6, ME_6, 0.03)).report()
    assert report.ipv6
    assert report.global_v6 == (ME_6,)
    assert report.mapping_varies_by_dest_ip is None
    assert report.net_info().derp_latency == pytest.approx({"1-v4": 0.02, "2-v6": 0.03})


def test_the_least_latency_counts_and_each_answer_once() -> None:
    made = Measurement(os_has_ipv6=True)
    made.sent(b"a" * 12, 1, SERVER_1, 0.0)
    made.sent(b"b" * 12, 1, SERVER_1, 0.2)
    assert made.answered(b"b" * 12, ME, 0.25)
    assert made.answered(b"a" * 12, ME, 0.26)
    assert not made.answered(b"a" * 12, ME, 0.27)
    assert not made.answered(b"x" * 12, ME, 0.27)
    assert made.complete
    assert made.report().region_latency == pytest.approx({1: 0.05})


def test_latencies_over_tls_are_reported_when_udp_is_blocked() -> None:
    made = Measurement(os_has_ipv6=False)
    made.measured(1, 0.08)
    assert made.report().region_latency == {1: 0.08}
    assert not made.report().udp
    assert made.report().net_info().derp_latency == {"1-v4": 0.08}


def test_latencies_alone_are_no_news() -> None:
    one, other = measurement((SERVER_1, ME, 0.02)), measurement((SERVER_1, ME, 0.09))
    assert same_network(one.report().net_info(), other.report().net_info())
    assert not same_network(one.report().net_info(), Report().net_info())


# --- what is measured ------------------------------------------------------------------------------------


def test_a_first_netcheck_asks_everyone_within_bounds() -> None:
    nodes = nodes_to_measure(
        map_of(region(1, 5), region(2), region(3, no_home=True)), None, home=0, full=True
    )
    assert [node.region_id for node in nodes] == [1] * MAX_NODES_A_REGION + [2]


def test_a_quick_netcheck_asks_the_home_and_the_nearest() -> None:
    many = map_of(*(region(number) for number in range(1, 10)))
    last = Report(region_latency={number: number / 100 for number in range(1, 10)})
    nodes = nodes_to_measure(many, last, home=9, full=False)
    assert [node.region_id for node in nodes] == [9, 1, 2][:QUICK_REGIONS]


# --- the home --------------------------------------------------------------------------------------------


def choose(homes: Homes, latency: dict[int, float], now: float, **options: object) -> int:
    defaults: dict[str, object] = {"current": 0, "alive": True, "stay": False}
    derp_map = options.pop("derp_map", TWO)
    report = Report(region_latency=latency)
    return homes.choose(report, derp_map, now, **(defaults | options)).preferred_derp  # type: ignore[arg-type]


def test_the_nearest_region_is_the_first_home() -> None:
    assert choose(Homes(), {1: 0.05, 2: 0.02}, 0.0) == 2


@pytest.mark.parametrize(
    ("old", "new", "moves"),
    [(0.050, 0.045, False), (0.100, 0.080, False), (0.012, 0.004, False), (0.100, 0.030, True)],
)
def test_the_home_moves_only_for_a_real_gain(old: float, new: float, moves: bool) -> None:
    assert choose(Homes(), {1: old, 2: new}, 0.0, current=1) == (2 if moves else 1)


def test_one_slow_answer_does_not_move_the_home() -> None:
    homes = Homes()
    choose(homes, {1: 0.02, 2: 0.03}, 0.0, current=1)
    assert choose(homes, {1: 0.5, 2: 0.03}, 20.0, current=1) == 1
    assert choose(homes, {1: 0.5, 2: 0.03}, 20.0 + REMEMBERED, current=1) == 2


def test_a_home_that_is_silent_but_connected_stays_and_a_dead_one_does_not() -> None:
    assert choose(Homes(), {2: 0.03}, 0.0, current=1, alive=True) == 1
    assert choose(Homes(), {2: 0.03}, 0.0, current=1, alive=False) == 2


def test_no_move_while_the_server_cannot_pass_it_on() -> None:
    assert choose(Homes(), {1: 0.9, 2: 0.01}, 0.0, current=1, stay=True) == 1


def test_a_home_that_left_the_map_is_replaced_even_then() -> None:
    assert choose(Homes(), {1: 0.9}, 0.0, current=7, stay=True) == 1


def test_scores_weigh_latencies() -> None:
    scored = map_of(region(1), region(2), scores={2: 10.0})
    assert choose(Homes(), {1: 0.05, 2: 0.02}, 0.0, derp_map=scored) == 1


def test_a_sole_region_needs_no_measuring() -> None:
    assert sole_home(map_of(region(7), region(8, no_home=True))) == 7
    assert sole_home(TWO) == sole_home(map_of()) == 0


def test_without_any_measure_some_region_is_the_home() -> None:
    assert choose(Homes(), {}, 0.0) == 1
    assert choose(Homes(), {}, 0.0, current=2, alive=False) == 2
    assert choose(Homes(), {}, 0.0, derp_map=map_of()) == 0


@given(
    rounds=st.lists(
        st.dictionaries(st.sampled_from([1, 2, 3]), st.floats(0.001, 1.0), max_size=3),
        min_size=1,
        max_size=12,
    ),
    alive=st.booleans(),
)
def test_the_home_is_always_a_region_of_the_map(rounds: list[dict[int, float]], alive: bool) -> None:
    homes, home = Homes(), 0
    three = map_of(region(1), region(2), region(3))
    for number, latency in enumerate(rounds):
        report = Report(region_latency=latency)
        home = homes.choose(
            report, three, number * 20.0, current=home, alive=alive, stay=False
        ).preferred_derp
        assert home in three.regions
        assert homes.last is not None
        assert homes.last.preferred_derp == home


@given(latency=st.dictionaries(st.sampled_from([1, 2]), st.floats(0.001, 1.0), min_size=2))
def test_the_same_report_again_never_moves_the_home(latency: dict[int, float]) -> None:
    homes = Homes()
    first = choose(homes, latency, 0.0)
    assert choose(homes, latency, 1.0, current=first) == first


def test_a_home_that_has_not_answered_for_long_is_left_though_its_stun_does() -> None:
    homes = Homes()
    here = Report(udp=True, region_latency={1: 0.01, 2: 0.05})
    assert homes.choose(here, TWO, 0.0, current=1, alive=False, stay=False).preferred_derp == 1
    assert homes.choose(here, TWO, 1.0, current=1, alive=False, stay=False, dead=True).preferred_derp == 2
    only = map_of(region(1))
    alone = Report(udp=True, region_latency={1: 0.01})
    assert homes.choose(alone, only, 2.0, current=1, alive=False, stay=False, dead=True).preferred_derp == 1
