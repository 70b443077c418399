"""Durations as Go writes them, ``1h30m``: that is how policy files have them. Pure.

Source: package time of Go, ParseDuration and Duration.String, whose words are used for what is wrong.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 30  # more than any duration has that fits Go's 64 bits of nanoseconds
_UNITS = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "µs": Fraction(1, 10**6),
    "μs": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
}
_MAX_SECONDS = Fraction(2**63 - 1, 10**9)
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")


def parse_duration(text: str) -> Fraction:
    """Seconds; ``ValueError`` in Go's words when ``text`` is no duration."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return Fraction(0)
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    seconds = Fraction(0)
    for whole, decimals, unit in _parts(rest, text):
        seconds += (int(whole or 0) + Fraction(int(decimals or 0), 10 ** len(decimals))) * _UNITS[unit]
    if seconds > _MAX_SECONDS:
        raise ValueError(f'time: invalid duration "{text}"')
    return -seconds if text.startswith("-") else seconds


def _parts(rest: str, text: str) -> list[tuple[str, str, str]]:
    parts, at = [], 0
    while at < len(rest):
        match = _PART.match(rest, at)
        whole, decimals, unit = (match[1], match[2] or "", match[3]) if match else ("", "", "")
        if match is None or not (whole or decimals) or len(whole) + len(decimals) > MAX_DIGITS:
            raise ValueError(f'time: invalid duration "{text}"')
        if not unit:
            raise ValueError(f'time: missing unit in duration "{text}"')
        if unit not in _UNITS:
            raise ValueError(f'time: unknown unit "{unit}" in duration "{text}"')
        parts.append((whole, decimals, unit))
        at = match.end()
    return parts


def duration_text(seconds: Fraction) -> str:
    """As Go prints it: ``168h0m1s``, ``1.5s``, ``250ms``."""
    sign, left = ("-", -seconds) if seconds < 0 else ("", seconds)
    if 0 < left < 1:
        unit = next(unit for unit in ("ms", "µs", "ns") if left >= _UNITS[unit] or unit == "ns")
        return f"{sign}{_decimal(left / _UNITS[unit])}{unit}"
    minutes, rest = divmod(left, 60)
    hours, minutes = divmod(minutes, 60)
    before = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{before}{_decimal(rest)}s"


def _decimal(value: Fraction) -> str:
    whole, rest = divmod(value, 1)
    decimals = f"{int(rest * 10**9):09d}".rstrip("0")
    return f"{whole}.{decimals}" if decimals else str(whole)
