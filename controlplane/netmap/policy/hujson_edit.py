"""Edits of a HuJSON text in place: what an edit does not concern stays, byte for byte. Pure.

A path leads from the outermost value: names of members and numbers of items. Which comments go with an entry
that is moved or removed: see :mod:`controlplane.netmap.policy.hujson_layout`. Every function returns the new
text, and raises :class:`HuJSONError` for a text that is none, :class:`PathError` for a path to nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from controlplane.netmap.policy.hujson import Array, Literal, Object, Value, parse, plain
from controlplane.netmap.policy.hujson_layout import (
    Layout,
    Style,
    expanded,
    indent_at,
    inserted,
    joined,
    layout_of,
    moved,
    prefers_one_line,
    quoted,
    removed,
    style_of,
    written,
)

Path = Sequence[str | int]
Named = tuple[str, Any]  # a new entry; items of lists have no name


class PathError(LookupError):
    """A path that leads nowhere in this text."""


def value_at(root: Value, path: Path) -> Value:
    """The value that a path leads to."""
    for number, step in enumerate(path):
        found: Value | None = None
        if isinstance(root, Object) and isinstance(step, str):
            member = root.members.get(step)
            found = member.value if member else None
        elif isinstance(root, Array) and isinstance(step, int) and 0 <= step < len(root.items):
            found = root.items[step]
        if found is None:
            raise PathError(f"the text has no {told(path[: number + 1])}")
        root = found
    return root


def set_value(text: str, path: Path, value: Any) -> str:
    """Make the value at ``path`` say this; a member that is not there yet is added as its object's last.

    Only what differs is written anew, so comments inside of it stay where their entries do.
    """
    edit = _Edit.of(text)
    if path and isinstance(path[-1], str):
        parent = value_at(edit.root, path[:-1])
        if isinstance(parent, Object) and path[-1] not in parent.members:
            return edit.added(parent, len(parent.members), [(path[-1], value)])
    old = value_at(edit.root, path)
    return edit.spliced(old, edit.merged(old, value))


def insert(text: str, path: Path, index: int, value: Any) -> str:
    """Put an item into the list at ``path``, before the item ``index`` (or last)."""
    edit = _Edit.of(text)
    array = _array(edit.root, path)
    if not 0 <= index <= len(array.items):
        raise PathError(f"the text has no {told([*path, index])}")
    return edit.added(array, index, [("", value)])


def append(text: str, path: Path, value: Any) -> str:
    """Put an item behind the others of the list at ``path``."""
    edit = _Edit.of(text)
    array = _array(edit.root, path)
    return edit.added(array, len(array.items), [("", value)])


def remove(text: str, path: Path) -> str:
    """Take an item or member away, and the comments that are its own."""
    edit = _Edit.of(text)
    value_at(edit.root, path)
    parent = value_at(edit.root, path[:-1])
    if not path or isinstance(parent, Literal):
        raise PathError("the whole text cannot be removed")
    step = path[-1]
    index = step if isinstance(step, int) else _names(parent).index(step)
    layout = removed(layout_of(text, parent, edit.style), {index}, edit.style)
    return edit.spliced(parent, joined(layout, edit.style))


def move(text: str, path: Path, to: int) -> str:
    """Put an item at another place of its list, and the comments that are its own."""
    edit = _Edit.of(text)
    value_at(edit.root, path)
    index = path[-1] if path else None
    array = _array(edit.root, path[:-1])
    if not isinstance(index, int) or not 0 <= to < len(array.items):
        raise PathError(f"the text has no {told([*path[:-1], to])}")
    layout = moved(layout_of(text, array, edit.style), index, to)
    return edit.spliced(array, joined(layout, edit.style))


def told(path: Path) -> str:
    """A path as people read it: ``acls[2].src``."""
    parts = [f"[{step}]" if isinstance(step, int) else f".{step}" for step in path]
    return "".join(parts).lstrip(".") or "value"


@dataclass(frozen=True, slots=True)
class _Edit:
    """A text that is being edited."""

    text: str
    root: Value
    style: Style

    @classmethod
    def of(cls, text: str) -> _Edit:
        root = parse(text)
        return cls(text, root, style_of(text, root))

    def of_value(self, value: Value) -> str:
        return self.text[value.start : value.end]

    def spliced(self, old: Value, new: str) -> str:
        return self.text[: old.start] + new + self.text[old.end :]

    def added(self, container: Array | Object, index: int, new: Sequence[Named]) -> str:
        """The whole text with more entries in a container."""
        layout = layout_of(self.text, container, self.style)
        return self.spliced(container, joined(self.extended(layout, container, index, new), self.style))

    def extended(self, layout: Layout, container: Array | Object, index: int, new: Sequence[Named]) -> Layout:
        """A layout with more entries, in the manner of the others."""
        nested = any(isinstance(value, dict | list) for _, value in new)
        if not layout.entries and (layout.has_lines or nested):
            layout = expanded(layout, self.style, indent_at(self.text, container.start))
        named = isinstance(container, Object)
        cores = [(f"{quoted(name)}: " if named else "") + self.core(layout, value) for name, value in new]
        return inserted(layout, index, cores, self.style)

    def core(self, layout: Layout, value: Any) -> str:
        """A new entry's text."""
        short = written(value, self.style, "", one_line=True)
        if not layout.has_lines or prefers_one_line([entry.core for entry in layout.entries], short):
            return short
        return written(value, self.style, layout.indent, one_line=False)

    def merged(self, old: Value, value: Any) -> str:
        """The text of a value that is to say something else, with as much of the old one as there is."""
        if _canonical(plain(old)) == _canonical(value):
            return self.of_value(old)
        if isinstance(old, Object) and isinstance(value, dict):
            return self.merged_object(old, value)
        if isinstance(old, Array) and isinstance(value, list):
            return self.merged_array(old, value)
        one_line = not isinstance(old, Literal) and "\n" not in self.of_value(old)
        return written(value, self.style, indent_at(self.text, old.start), one_line=one_line)

    def merged_object(self, old: Object, value: dict[str, Any]) -> str:
        cores = [
            self.text[member.start : member.value.start] + self.merged(member.value, value[member.name])
            if member.name in value
            else ""
            for member in old.members.values()
        ]
        gone = {number for number, name in enumerate(old.members) if name not in value}
        layout = removed(_recored(layout_of(self.text, old, self.style), cores), gone, self.style)
        new = [(name, item) for name, item in value.items() if name not in old.members]
        return joined(self.extended(layout, old, len(layout.entries), new), self.style)

    def merged_array(self, old: Array, value: list[Any]) -> str:
        """Items that are the same at both ends stay, those between are changed one by one."""
        head, tail = _same_ends([plain(item) for item in old.items], value)
        changed = min(len(old.items), len(value)) - tail
        cores = [self.of_value(item) for item in old.items]
        for number in range(head, changed):
            cores[number] = self.merged(old.items[number], value[number])
        gone = set(range(changed, len(old.items) - tail))
        layout = removed(_recored(layout_of(self.text, old, self.style), cores), gone, self.style)
        new = [("", item) for item in value[changed : len(value) - tail]]
        return joined(self.extended(layout, old, changed, new), self.style)


def _same_ends(old: Sequence[Any], new: Sequence[Any]) -> tuple[int, int]:
    """How many items are the same at the beginning, and how many of the others at the end."""
    before, after = [_canonical(item) for item in old], [_canonical(item) for item in new]
    shorter = min(len(before), len(after))
    head = next((n for n in range(shorter) if before[n] != after[n]), shorter)
    rest = shorter - head
    return head, next((n for n in range(rest) if before[-1 - n] != after[-1 - n]), rest)


def _array(root: Value, path: Path) -> Array:
    found = value_at(root, path)
    if not isinstance(found, Array):
        raise PathError(f"{told(path)} is no list")
    return found


def _names(value: Value) -> list[str]:
    return list(value.members) if isinstance(value, Object) else []


def _recored(layout: Layout, cores: Sequence[str]) -> Layout:
    entries = [replace(entry, core=core) for entry, core in zip(layout.entries, cores, strict=True)]
    return replace(layout, entries=tuple(entries))


def _canonical(value: Any) -> str:
    """Equal for values that say the same; 1, 1.0 and true do not."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
