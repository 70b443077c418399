"""HuJSON texts by the thousand: values, one of the many ways to write each, and damaged ones; by seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from random import Random
from typing import Any

from hypothesis import strategies as st

EXTRAS = (
    "", "", "", " ", "\t", "\n", "\r\n", "// comment\n", "//\n", "/**/", "/* a\n b */", " /* ] } , : \" */ ",
    "// \"{[,\n", "/***/", "\n\n\t", "/* // */", "//*\n",
)  # fmt: skip
NAMES = (
    "acls",
    "src",
    "dst",
    "action",
    "",
    "a b",
    'quo"te',
    "ñandú",
    "\\",
    "group:eng",
    "/*",
    "//",
    "😀",
    "\n",
)
BITS = (
    *'{}[]:,"\\/*-+.eE019tfn \t\n\r', "//", "/*", "*/", ",]", ",}", "\\u", "\\ud800", "null", "\x00", "é",
    "\u2028", "NaN", "\ufeff", "\x7f",
)  # fmt: skip


def values(max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """JSON values of all kinds."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(NAMES)
    scalars = (
        st.none()
        | st.booleans()
        | st.integers(-(1 << 63), (1 << 64) - 1)
        | st.floats(allow_nan=False, allow_infinity=False)
        | text
    )
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(text, inner, max_size=5),
        max_leaves=max_leaves,
    )


def a_value(random: Random, depth: int = 4) -> Any:
    """A value, without the cost of a strategy."""
    kind = random.randrange(9 if depth else 6)
    if kind < 2:
        return random.choice(NAMES)
    if kind < 6:
        return (None, random.random() < 0.5, random.randrange(-1000, 1 << 64), random.uniform(-1e9, 1e9))[
            kind - 2
        ]
    if kind == 6:
        return [a_value(random, depth - 1) for _ in range(random.randrange(4))]
    return {random.choice(NAMES): a_value(random, depth - 1) for _ in range(random.randrange(4))}


def noisy(value: Any, random: Random) -> str:
    """One way to write a value: comments, whitespace, trailing commas and escapes wherever they may be."""
    return _extra(random) + _noisy(value, random) + _extra(random)


def _extra(random: Random) -> str:
    return "".join(random.choice(EXTRAS) for _ in range(random.randrange(3)))


def _noisy(value: Any, random: Random) -> str:
    if isinstance(value, dict):
        entries = [
            f"{_string(name, random)}{_extra(random)}:{noisy(item, random)}" for name, item in value.items()
        ]
        return "{" + _entries(entries, random) + "}"
    if isinstance(value, list):
        return "[" + _entries([noisy(item, random) for item in value], random) + "]"
    return _string(value, random) if isinstance(value, str) else json.dumps(value)


def _entries(entries: list[str], random: Random) -> str:
    parts = [_extra(random) + entry + _extra(random) for entry in entries]
    comma = "," if parts and random.random() < 0.5 else ""
    return ",".join(parts) + comma + _extra(random)


def _string(text: str, random: Random) -> str:
    return json.dumps(text, ensure_ascii=random.random() < 0.5)


def damaged(text: str, random: Random) -> str:
    """A text after a few accidents: most are no HuJSON any more."""
    for _ in range(random.randrange(1, 4)):
        at, end = sorted(random.randrange(len(text) + 1) for _ in range(2))
        match random.randrange(4):
            case 0:
                text = text[:at] + random.choice(BITS) + text[at:]
            case 1:
                text = text[:at] + text[min(end, at + 3) :]
            case 2:
                text = text[:at] + random.choice(BITS) + text[at + 1 :]
            case _:
                text = text[:at] + text[at:end] * 2 + text[end:] if end - at < 200 else text[:at]
    return text


def a_text(seed: int, samples: tuple[str, ...] = ()) -> str:
    """The text of a seed: a third is whole, the others are damaged; ``samples`` are damaged, too."""
    random = Random(seed)
    sampled = samples and random.random() < 0.5
    text = random.choice(samples) if sampled else noisy(a_value(random), random)
    return text if random.random() < 0.33 else damaged(text, random)


def comments_in(text: str) -> Iterator[str]:
    """The comments of a HuJSON text, found without our parser."""
    at = 0
    while at < len(text):
        if text[at] == '"':
            at += 1
            while text[at] != '"':
                at += 2 if text[at] == "\\" else 1
        elif text.startswith(("//", "/*"), at):
            end = text.index("\n", at) if text[at + 1] == "/" else text.index("*/", at + 2) + 2
            yield text[at:end].rstrip()
            at = end - 1
        at += 1
