"""The rules of a policy text, one by one, as the panel lists them. What it does not know it leaves out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from controlplane.netmap.policy.hujson import Array, Object, Value, parse, plain
from controlplane.rules.words import (
    Phrase,
    Target,
    acl_targets,
    conditions,
    grant_targets,
    phrase,
    ssh_targets,
    strings,
)

MAX_SHOWN = 300  # rules; the text has the others
MAX_NAMED = 8  # sources or destinations of one rule
MAX_NOTE = 200  # characters


@dataclass(frozen=True, slots=True)
class Section:
    """A member of the text that is a list of rules. ``one``: what a rule of it is called."""

    name: str
    title: str | Promise
    one: str | Promise


SECTIONS = {
    one.name: one
    for one in (
        Section("acls", _("Access rules (acls)"), _("Access rule")),
        Section("grants", _("Grants"), _("Grant")),
        Section("ssh", _("SSH rules"), _("SSH rule")),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule. ``start`` and ``end`` count UTF-16 units, as browsers do; ``note``: its comment."""

    section: str
    index: int
    sources: tuple[Phrase, ...]
    targets: tuple[Target, ...]
    more_sources: int
    more_targets: int
    conditions: tuple[str, ...]
    note: str
    line: int
    offset: int
    start: int
    end: int
    is_first: bool
    is_last: bool

    @property
    def at(self) -> str:
        """What names it in addresses and forms."""
        return f"{self.section}/{self.index}"

    @property
    def slug(self) -> str:
        """What names it in ids of the page: ``acls-1`` is the first one of its section."""
        return f"{self.section}-{self.number}"

    @property
    def number(self) -> int:
        return self.index + 1


@dataclass(frozen=True, slots=True)
class Group:
    """The rules of one section; ``left_out`` of them are not listed."""

    section: Section
    rules: tuple[Rule, ...]
    left_out: int = 0


def list_rules(text: str, among: Collection[int] | None = None) -> list[Group]:
    """The rules of each section that the text has; :class:`HuJSONError` when it cannot be read.

    ``among``: only those that begin at these characters.
    """
    root = parse(text)
    if not isinstance(root, Object):
        return []
    places = Places(text)
    groups = []
    for section in SECTIONS.values():
        items = items_of(root, section.name)
        if items:
            chosen = [pair for pair in enumerate(items) if among is None or pair[1].start in among]
            rules = tuple(_rules(text, section.name, chosen[:MAX_SHOWN], places, last=len(items) - 1))
            groups += [Group(section, rules, max(0, len(chosen) - MAX_SHOWN))] if rules else []
    return groups


def items_of(root: Value, section: str) -> tuple[Value, ...]:
    """The values in a section of the text; none when it has no such list."""
    member = root.members.get(section) if isinstance(root, Object) else None
    return member.value.items if member is not None and isinstance(member.value, Array) else ()


def rule_at(text: str, section: str, index: int) -> dict[str, Any] | None:
    """One rule as plain values; ``None`` when there is none."""
    items = items_of(parse(text), section)
    rule = plain(items[index]) if 0 <= index < len(items) else None
    return rule if isinstance(rule, dict) else None


def _rules(
    text: str, section: str, items: Sequence[tuple[int, Value]], places: Places, *, last: int
) -> Iterator[Rule]:
    for index, item in items:
        value = plain(item)
        rule = value if isinstance(value, dict) else {}
        sources = strings(rule.get("src"))
        targets = _targets(section, rule)
        yield Rule(
            section=section,
            index=index,
            sources=tuple(map(phrase, sources[:MAX_NAMED])),
            targets=tuple(targets[:MAX_NAMED]),
            more_sources=max(0, len(sources) - MAX_NAMED),
            more_targets=max(0, len(targets) - MAX_NAMED),
            conditions=tuple(conditions(section, rule)),
            note=_note(text, item.start),
            line=places.line(item.start),
            offset=item.start,
            start=places.units(item.start),
            end=places.units(item.end),
            is_first=index == 0,
            is_last=index == last,
        )


def _targets(section: str, rule: dict[str, Any]) -> list[Target]:
    read = {"acls": acl_targets, "grants": grant_targets, "ssh": ssh_targets}[section]
    return read(rule)


def _note(text: str, start: int) -> str:
    """The ``//`` comment in the lines right above a rule."""
    said: list[str] = []
    end = text.rfind("\n", 0, start)
    while end > 0 and sum(map(len, said)) < MAX_NOTE:
        begin = text.rfind("\n", 0, end) + 1
        line = text[begin:end].strip()
        if not line.startswith("//"):
            break
        said.insert(0, line.lstrip("/").strip())
        end = begin - 1
    return " ".join(said)[:MAX_NOTE]


class Places:
    """Offsets of a text (in characters) as browsers and people count them; asked for in rising order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = self._units = 0
        self._line_at, self._line = 0, 1

    def units(self, offset: int) -> int:
        """UTF-16 units before a character."""
        part = self._text[self._at : offset]
        self._units += len(part) if part.isascii() else len(part.encode("utf-16-le")) // 2
        self._at = offset
        return self._units

    def line(self, offset: int) -> int:
        """The line of a character, from 1."""
        self._line += self._text.count("\n", self._line_at, offset)
        self._line_at = offset
        return self._line
