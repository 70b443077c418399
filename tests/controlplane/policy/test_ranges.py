"""Sets of addresses: the laws of sets, and the wire's words for them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy.parse_selectors import parse_addresses
from controlplane.netmap.policy.ranges import EVERYTHING, LAST_V4, V6, IPSet, ip_set, parse_prefix

SMALL = 40  # addresses of each family that the laws are tried with
ends = st.tuples(st.integers(0, SMALL - 1), st.integers(0, SMALL - 1)).map(lambda pair: tuple(sorted(pair)))
families = st.sampled_from((LAST_V4 - SMALL + 1, V6))  # the end of one, the start of the other
spans = st.tuples(families, ends).map(lambda drawn: (drawn[0] + drawn[1][0], drawn[0] + drawn[1][1]))
sets = st.lists(spans, max_size=6).map(IPSet.of)


def members(addresses: IPSet) -> set[int]:
    return {number for first, last in addresses.spans for number in range(first, last + 1)}


@given(sets, sets)
def test_sets_are_sets(one: IPSet, other: IPSet) -> None:
    assert members(one | other) == members(one) | members(other)
    assert members(one - other) == members(one) - members(other)
    assert one.meets(other) == bool(members(one) & members(other))
    assert (one == other) == (members(one) == members(other))
    assert one != other or hash(one) == hash(other)


@given(sets, spans)
def test_ranges_are_found(addresses: IPSet, span: tuple[int, int]) -> None:
    wanted = set(range(span[0], span[1] + 1))
    assert addresses.contains(*span) == (wanted <= members(addresses))
    assert addresses.overlaps(*span) == bool(wanted & members(addresses))


@given(sets)
def test_words_mean_the_set(addresses: IPSet) -> None:
    read = IPSet()
    for text in addresses.texts():
        read |= parse_addresses(text)
    assert read == addresses


@pytest.mark.parametrize(
    ("prefixes", "texts"),
    [
        (("10.0.0.0/8",), ["10.0.0.0/8"]),
        (("10.0.0.1", "10.0.0.2"), ["10.0.0.1-10.0.0.2"]),
        (("10.0.0.0/25", "10.0.0.128/25"), ["10.0.0.0/24"]),
        (("fd00::1", "10.0.0.1/32"), ["10.0.0.1", "fd00::1"]),
        (("255.255.255.255", "::"), ["255.255.255.255", "::"]),  # the families never touch
        (("0.0.0.0/0", "::/0"), ["*"]),
        (("0.0.0.0/0",), ["0.0.0.0/0"]),
    ],
)
def test_texts_of_the_wire(prefixes: tuple[str, ...], texts: list[str]) -> None:
    assert ip_set(*prefixes).texts() == texts


def test_prefixes_show_their_length() -> None:
    assert [str(parse_prefix(text)) for text in ("10.1.2.3/8", "10.0.0.1", "::1")] == [
        "10.0.0.0/8",
        "10.0.0.1/32",
        "::1/128",
    ]
    assert EVERYTHING.contains(V6)


@pytest.mark.parametrize("text", ["", "10.0.0.0/33", "10.0.0.9-10.0.0.1", "10.0.0.1-fd00::1", "1.2.3", "a"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        parse_addresses(text)
