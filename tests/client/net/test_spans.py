"""Ranges of addresses, compared with the sets of numbers that they are."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from client.net.spans import Span, holds, intersect, merge, subtract

spans = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair))))


def numbers(some: Iterable[Span]) -> set[int]:
    return {number for first, last in some for number in range(first, last + 1)}


@given(spans, spans)
def test_what_is_subtracted_is_gone_and_nothing_else(whole: list[Span], holes: list[Span]) -> None:
    assert numbers(subtract(whole, holes)) == numbers(whole) - numbers(holes)


@given(spans, spans)
def test_what_is_in_both_is_kept(one: list[Span], others: list[Span]) -> None:
    for span in one:
        assert numbers(intersect(span, others)) == numbers([span]) & numbers(others)


@given(spans, st.integers(-1, 61))
def test_merged_spans_hold_their_numbers_alone(some: list[Span], number: int) -> None:
    assert holds(merge(some), number) == (number in numbers(some))
