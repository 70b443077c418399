"""Durations as Go reads and writes them."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy.durations import duration_text, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds", "printed"),
    [
        ("168h0m1s", 604801, "168h0m1s"),
        ("-1m", -60, "-1m0s"),
        ("200h", 720000, "200h0m0s"),
        ("1h30m", 5400, "1h30m0s"),
        ("1.5h", 5400, "1h30m0s"),
        ("90m", 5400, "1h30m0s"),
        ("+30s", 30, "30s"),
        ("0", 0, "0s"),
        ("1m.5s", Fraction(121, 2), "1m0.5s"),
        ("1500ms", Fraction(3, 2), "1.5s"),
        ("250ms", Fraction(1, 4), "250ms"),
        ("3us", Fraction(3, 10**6), "3µs"),
        ("7ns", Fraction(7, 10**9), "7ns"),
    ],
)
def test_duration_is_read_and_printed(text: str, seconds: Fraction, printed: str) -> None:
    assert parse_duration(text) == seconds
    assert duration_text(Fraction(seconds)) == printed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "invalid duration"),
        ("-", "invalid duration"),
        ("soon", "invalid duration"),
        ("h", "invalid duration"),
        ("12", "missing unit in duration"),
        ("1d", 'unknown unit "d" in duration'),
        ("1h 30m", 'unknown unit "h " in duration'),
        ("9" * 5000 + "h", "invalid duration"),
        ("3000000h", "invalid duration"),
    ],
)
def test_what_is_no_duration_is_refused_in_gos_words(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_duration(text)


@given(st.integers(-(10**15), 10**15))
def test_printed_duration_reads_as_the_same(nanoseconds: int) -> None:
    seconds = Fraction(nanoseconds, 10**9)
    assert parse_duration(duration_text(seconds)) == seconds
