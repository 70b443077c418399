"""How a list or object of HuJSON is laid out: its entries with the comments that are theirs. Pure.

A comment belongs to an entry when it stands directly above it, without an empty line between, or behind it on
its line. All other comments belong to the list and stay where they are, whatever happens to its entries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from controlplane.netmap.policy.hujson import EXTRA, Array, Object, Value

ONE_LINE = 80  # characters that a new entry may have on one line when there is no other to be like

_BLOCK = r"/\*(?s:.*?)\*/"
_PART = re.compile(rf"(?P<space>[ \t\r\n]+)|(?P<line>//[^\n]*)|{_BLOCK}")
_REST_OF_LINE = re.compile(r"((?:[ \t\r]*+(?://[^\n]*+|/\*(?:(?!\*/)[^\n])*+\*/))*+)[ \t\r]*+(?=[]}\n])")


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is written."""

    unit: str = "\t"
    newline: str = "\n"
    trailing_comma: bool = True


@dataclass(frozen=True, slots=True)
class Entry:
    """An item or member. ``gap`` comes before it and stays; ``lead`` and ``tail`` are its own comments.

    ``between`` is what stands before its comma. ``core`` is the entry itself.
    """

    gap: str
    lead: str
    core: str
    between: str = ""
    tail: str = ""


@dataclass(frozen=True, slots=True)
class Layout:
    """A list or object in pieces: ``indent`` is that of its entries, ``comma`` whether the last has one."""

    head: str
    entries: tuple[Entry, ...]
    foot: str
    comma: bool
    indent: str
    has_lines: bool  # whether entries stand on lines of their own


def style_of(text: str, root: Value) -> Style:
    """The style of a file, seen at its outermost list or object."""
    newline = "\r\n" if "\r\n" in text else "\n"
    inner = _spans(root)
    if not inner:
        return Style(newline=newline)
    _, own_line, indent = _line_before(text, inner[0][0])
    indent = indent if own_line else ""
    after = _skip(text, inner[-1][1])
    has_lines = "\n" in text[root.start : root.end]
    return Style(indent or "\t", newline, text[after] == "," if has_lines else False)


def layout_of(text: str, container: Array | Object, style: Style) -> Layout:
    """The pieces of a container: ``joined`` of them is its text again."""
    spans = _spans(container)
    at = head_end = container.start + 1 + len(_rest_of_line(text, container.start + 1))
    entries: list[Entry] = []
    comma = False
    for start, end in spans:
        lead_start = _lead_start(text, at, start)
        after = _skip(text, end)
        comma = text[after] == ","
        tail_start = after + 1 if comma else end
        tail = _rest_of_line(text, tail_start)
        between = text[end:after] if comma else ""
        entries.append(Entry(text[at:lead_start], text[lead_start:start], text[start:end], between, tail))
        at = tail_start + len(tail)
    head, foot = text[container.start : head_end], text[at : container.end]
    return Layout(head, tuple(entries), foot, comma, *_indentation(text, container, head_end, style))


def joined(layout: Layout, style: Style) -> str:
    """A container's text: commas where they have to be, and no line comment that swallows what follows."""
    parts, comment = [layout.head], layout.head[1:]
    last = len(layout.entries) - 1
    for number, entry in enumerate(layout.entries):
        swallowed = _is_open(comment) and not _begins_with_line(entry.gap)
        crowded = swallowed or ("\n" in entry.lead and "\n" not in entry.gap)
        comma = "," if number < last or layout.comma else ""
        parts.append(style.newline + layout.indent + entry.gap.lstrip() if crowded else entry.gap)
        parts += [entry.lead, entry.core, entry.between, comma, entry.tail]
        comment = entry.tail
    if _is_open(comment) and not _begins_with_line(layout.foot):
        parts.append(style.newline)
    return "".join([*parts, layout.foot])


def inserted(layout: Layout, index: int, cores: Sequence[str], style: Style) -> Layout:
    """With more entries from ``index`` on, on lines of their own where the others are."""
    if not cores:
        return layout
    before, after = list(layout.entries[:index]), list(layout.entries[index:])
    space = style.newline if layout.has_lines else " "
    lead = layout.indent if layout.has_lines else ""
    first = space if before or layout.has_lines else ""
    if after:
        first, after[0] = after[0].gap, replace(after[0], gap=space)
    new = [Entry(space if number else first, lead, core) for number, core in enumerate(cores)]
    comma = layout.comma if layout.entries else layout.has_lines and style.trailing_comma
    return replace(layout, entries=(*before, *new, *after), comma=comma)


def removed(layout: Layout, gone: Set[int], style: Style) -> Layout:
    """Without some entries and their own comments; those that are not their own stay."""
    entries: list[Entry] = []
    carried, first = "", layout.entries[0].gap if 0 in gone else None
    for number, entry in enumerate(layout.entries):
        if number in gone:
            carried += entry.gap if entry.gap.strip() else ""
            continue
        gap = entry.gap
        if carried:
            gap = carried + (gap if gap.strip() or "\n" not in carried else "")
        elif not entries and first is not None and not gap.strip():
            gap = first
        entries.append(replace(entry, gap=gap))
        carried = ""
    foot = layout.foot
    if carried:
        foot = carried.rstrip() + ("" if _begins_with_line(foot) else style.newline) + foot
    if not entries and not (layout.head[1:] + foot[:-1]).strip():
        foot = foot[-1]
    return replace(layout, entries=tuple(entries), foot=foot)


def moved(layout: Layout, index: int, to: int) -> Layout:
    """With an entry, and its own comments, at another place; gaps stay as they are."""
    gaps = [entry.gap for entry in layout.entries]
    entries = list(layout.entries)
    entries.insert(to, entries.pop(index))
    together = tuple(replace(entry, gap=gap) for entry, gap in zip(entries, gaps, strict=True))
    return replace(layout, entries=together)


def expanded(layout: Layout, style: Style, outer: str) -> Layout:
    """An empty container, opened so that its entries get lines of their own."""
    foot = layout.foot if "\n" in layout.foot else style.newline + outer + layout.foot
    return replace(layout, foot=foot, has_lines=True)


def written(value: Any, style: Style, indent: str, *, one_line: bool) -> str:
    """A value as new text, its further lines indented by ``indent``; plain lists stay on one line."""
    if one_line or not _is_nested(value):
        return _on_one_line(value)
    inner = indent + style.unit
    if isinstance(value, dict):
        pieces = [
            f"{quoted(name)}: {written(item, style, inner, one_line=False)}" for name, item in value.items()
        ]
        opening, closing = "{", "}"
    elif any(_is_nested(item) for item in value):
        pieces = [written(item, style, inner, one_line=False) for item in value]
        opening, closing = "[", "]"
    else:
        return _on_one_line(value)
    lines = ("," + style.newline).join(inner + piece for piece in pieces)
    comma = "," if style.trailing_comma else ""
    return f"{opening}{style.newline}{lines}{comma}{style.newline}{indent}{closing}"


def quoted(text: str) -> str:
    """A string with its quotes."""
    return json.dumps(text, ensure_ascii=False)


def indent_at(text: str, offset: int) -> str:
    """The whitespace that begins the line of an offset."""
    start = text.rfind("\n", 0, offset) + 1
    end = start
    while end < offset and text[end] in " \t":
        end += 1
    return text[start:end]


def prefers_one_line(cores: Sequence[str], one_line: str) -> bool:
    """Whether a new entry goes on one line: where most others are, else when it is short."""
    nested = [core for core in cores if core.endswith(("}", "]"))]
    if nested:
        return 2 * sum("\n" in core for core in nested) < len(nested)
    return len(one_line) <= ONE_LINE


def _on_one_line(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _is_nested(value: Any) -> bool:
    return bool(value) and isinstance(value, dict | list)


def _spans(container: Value) -> list[tuple[int, int]]:
    """Where the entries of a container stand, without what surrounds them."""
    if isinstance(container, Array):
        return [(item.start, item.end) for item in container.items]
    if isinstance(container, Object):
        return [(member.start, member.value.end) for member in container.members.values()]
    return []


def _skip(text: str, at: int) -> int:
    match = EXTRA.match(text, at)
    return match.end() if match else at


def _rest_of_line(text: str, at: int) -> str:
    """The comments that follow on a line, when nothing else does."""
    match = _REST_OF_LINE.match(text, at)
    return match[1] if match else ""


def _lead_start(text: str, at: int, start: int) -> int:
    """Where the comments begin that stand directly above an entry, with their indentation."""
    parts = list(_PART.finditer(text, at, start))
    begin = start
    for part in reversed(parts):
        if part.lastgroup == "space":
            if part[0].count("\n") > 1:
                break
        else:
            begin = part.start()
    line = text.rfind("\n", at, begin) + 1
    return line if line > at and not text[line:begin].strip(" \t") else begin


def _line_before(text: str, start: int) -> tuple[int, bool, str]:
    """The start of the line of an offset, whether only whitespace precedes it there, and that whitespace."""
    line = text.rfind("\n", 0, start) + 1
    before = text[line:start]
    return line, line > 0 and not before.strip(" \t"), before


def _indentation(text: str, container: Array | Object, head_end: int, style: Style) -> tuple[str, bool]:
    """The indentation of entries, and whether they stand on lines of their own."""
    for start, _ in _spans(container):
        if "\n" in text[head_end:start]:
            _, own_line, indent = _line_before(text, start)
            if own_line:
                return indent, True
    outer = indent_at(text, container.start)
    has_lines = not _spans(container) and _skip(text, container.start + 1) > container.start + 1
    return outer + style.unit, has_lines and "\n" in text[container.start : container.end]


def _is_open(comments: str) -> bool:
    """Whether these comments end in one that goes on to the end of the line."""
    last = None
    for part in _PART.finditer(comments):
        last = part.lastgroup
    return last == "line"


def _begins_with_line(piece: str) -> bool:
    return piece.lstrip(" \t\r").startswith("\n")
