"""Diffs of policy texts: those of diff(1), as patch(1) takes them, in bounded time."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.netmap.policy.textdiff import MAX_COMPARED, ONLY_ENDS, TOO_MANY, diff

LINES = st.lists(
    st.sampled_from(["{", "}", '"src": ["*"],', '"dst": ["tag:db:5432"],', "// why", ""]), max_size=40
)


def apply(old: list[str], lines: list[str]) -> list[str]:
    """What patch(1) makes of it."""
    result, position = list[str](), 0
    for line in lines:
        if line.startswith("@@"):
            begin, _, length = line.split()[1][1:].partition(",")
            start = int(begin) - (0 if length == "0" else 1)
            result += old[position:start]
            position = start
        elif line.startswith("+"):
            result.append(line[1:])
        else:
            assert old[position] == line[1:]
            result += [line[1:]] if line.startswith(" ") else []
            position += 1
    return result + old[position:]


@given(LINES, LINES)
def test_applied_to_the_old_text_it_gives_the_new_one(old: list[str], new: list[str]) -> None:
    before, after = "".join(f"{line}\n" for line in old), "".join(f"{line}\n" for line in new)
    assert apply(old, diff(before, after)) == new


def test_it_is_what_diff_says(tmp_path: Path) -> None:
    old = "\n".join(["{", *(f"  line {number}" for number in range(60)), "}"]) + "\n"
    new = (
        old.replace("line 7\n", "line seven\n")
        .replace("  line 40\n", "")
        .replace("line 58", "line 58\n  more")
    )
    for name, text in (("old", old), ("new", new)):
        (tmp_path / name).write_text(text)
    said = subprocess.run(
        ["diff", "-U3", "old", "new"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert diff(old, new) == said.stdout.splitlines()[2:]


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ("", "", []),
        ("a\n", "a\n", []),
        ("a\n", "a\r\n", [ONLY_ENDS]),
        ("", "a", ["@@ -0,0 +1 @@", "+a"]),
        ("a\n", "", ["@@ -1 +0,0 @@", "-a"]),
    ],
)
def test_small_ones(old: str, new: str, lines: list[str]) -> None:
    assert diff(old, new) == lines


def test_of_too_many_lines_it_says_how_many() -> None:
    old, new = ("\n".join(f"{word} {n}" for n in range(MAX_COMPARED)) for word in ("a", "b"))
    assert diff(old, new) == [TOO_MANY, f"-{MAX_COMPARED} lines", f"+{MAX_COMPARED} lines"]
    long = "\n".join(f"a {n}" for n in range(MAX_COMPARED * 20))
    assert diff(long, long.replace("a 70000\n", "b\n"))[3:5] == [" a 69999", "-a 70000"]
