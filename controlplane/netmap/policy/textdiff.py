"""What is other in one policy text than in another: a unified diff, in bounded time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher

MAX_COMPARED = 4000  # lines of both texts between what they begin and end with alike
MAX_SHOWN = 5000  # lines of a diff
CONTEXT = 3
TOO_MANY = "@@ too many lines differ to show which @@"
ONLY_ENDS = "@@ only the ends of lines differ @@"


def diff(old: str, new: str) -> list[str]:
    """The lines of a unified diff, each with its first character (``@``, space, ``-`` or ``+``), no ends.

    None where the texts are equal. Of texts that differ in more than :data:`MAX_COMPARED` lines it says only
    how many lines each has: to compare lines costs as much as the product of their numbers.
    """
    before, after = old.splitlines(), new.splitlines()
    if before == after:
        return [] if old == new else [ONLY_ENDS]
    start = _alike(before, after)
    end = _alike(before[start:][::-1], after[start:][::-1])
    if len(before) + len(after) - 2 * (start + end) > MAX_COMPARED:
        return [TOO_MANY, f"-{len(before)} lines", f"+{len(after)} lines"]
    lines: list[str] = []
    first, last = max(0, start - CONTEXT), max(0, end - CONTEXT)
    for line in _hunks(before[first : len(before) - last], after[first : len(after) - last], first):
        if len(lines) == MAX_SHOWN:
            return [*lines, TOO_MANY]
        lines.append(line)
    return lines


def _alike(some: Sequence[str], others: Sequence[str]) -> int:
    """How many lines both begin with."""
    for number, (one, other) in enumerate(zip(some, others, strict=False)):
        if one != other:
            return number
    return min(len(some), len(others))


def _hunks(before: Sequence[str], after: Sequence[str], first: int) -> Iterator[str]:
    """Hunks as patch(1) takes them; ``first`` lines of both were left out in front."""
    for group in SequenceMatcher(None, before, after).get_grouped_opcodes(CONTEXT):
        (_, from_old, _, from_new, _), (_, _, to_old, _, to_new) = group[0], group[-1]
        yield f"@@ -{_span(from_old, to_old, first)} +{_span(from_new, to_new, first)} @@"
        for kind, old_start, old_end, new_start, new_end in group:
            if kind == "equal":
                yield from (f" {line}" for line in before[old_start:old_end])
                continue
            yield from (f"-{line}" for line in before[old_start:old_end])
            yield from (f"+{line}" for line in after[new_start:new_end])


def _span(start: int, end: int, first: int) -> str:
    """A range of lines as diff(1) writes it: an empty one is named by the line before it."""
    length = end - start
    begin = first + start + (1 if length else 0)
    return str(begin) if length == 1 else f"{begin},{length}"
