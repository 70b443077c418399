"""Laws of the allocator."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address
from itertools import accumulate, islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.addresses import (
    IPV4_POOL,
    IPV6_POOL,
    MAX_PROBES,
    Addresses,
    PoolExhausted,
    allocate,
    candidates,
    ipv6_for,
    is_assignable,
)

SEEDS = st.integers(0, 2**32)
CHROMEOS_START = int(IPv4Address("100.115.91.250")) - int(IPV4_POOL.network_address)
MAGIC_DNS = int(IPv4Address("100.100.100.98")) - int(IPV4_POOL.network_address)


@given(SEEDS)
def test_candidates_are_assignable_and_in_both_pools(seed: int) -> None:
    for found in islice(candidates(seed), 20):
        assert is_assignable(found.ipv4)
        assert found.ipv6 in IPV6_POOL
        assert found.ipv6 != IPv6Address("fd7a:115c:a1e0::53")


@pytest.mark.parametrize("seed", [CHROMEOS_START, MAGIC_DNS, IPV4_POOL.num_addresses - 3])
def test_candidates_step_over_what_is_reserved(seed: int) -> None:
    found = [one.ipv4 for one in islice(candidates(seed), 2000)]
    assert len(set(found)) == len(found)
    assert not [one for one in found if one in IPv4Network("100.115.92.0/23")]
    assert IPv4Address("100.100.100.100") not in found
    assert IPv4Address("100.64.0.0") not in found
    assert IPv4Address("100.127.255.255") not in found


@given(SEEDS, st.integers(1, 60))
def test_no_address_is_given_twice(seed: int, count: int) -> None:
    taken: set[Addresses] = set()
    for _ in range(count):
        given_one = allocate(taken.__contains__, seed=seed)
        assert given_one not in taken
        taken.add(given_one)
    assert len({one.ipv4 for one in taken}) == len({one.ipv6 for one in taken}) == count


@given(SEEDS)
def test_the_same_question_has_the_same_answer(seed: int) -> None:
    assert allocate(lambda _: False, seed=seed) == allocate(lambda _: False, seed=seed)


@given(st.integers(0, IPV4_POOL.num_addresses - 1))
def test_the_ipv6_address_tells_the_ipv4_one(offset: int) -> None:
    ipv4 = IPV4_POOL[offset]
    assert int(ipv6_for(ipv4)) & 0xFFFFFFFF == int(ipv4)


def test_a_full_pool_is_said_so() -> None:
    asked = []
    with pytest.raises(PoolExhausted):
        allocate(lambda one: bool(asked.append(one)) or True, seed=7)
    assert len(asked) == MAX_PROBES


SPANS = st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=5).map(
    lambda gaps: [
        (start, start + size - 1)
        for start, size in zip(
            accumulate((gap + 10 for gap, _ in gaps), initial=int(IPv4Address("100.70.0.0"))),
            (size for _, size in gaps),
            strict=False,
        )
    ]
)


@given(SEEDS, SPANS)
def test_candidates_of_a_pool_are_each_of_its_addresses_once(seed: int, spans: list[tuple[int, int]]) -> None:
    found = [int(one.ipv4) for one in candidates(seed, spans)]
    wanted = [number for first, last in spans for number in range(first, last + 1)]
    assert sorted(found) == wanted
    start = wanted.index(found[0])
    assert found == wanted[start:] + wanted[:start]
    assert start == seed % len(wanted)


def test_pool_of_reserved_addresses_has_none() -> None:
    reserved = int(IPv4Address("100.115.92.0"))
    with pytest.raises(PoolExhausted):
        allocate(lambda _: False, seed=7, spans=[(reserved, reserved + 511)])
