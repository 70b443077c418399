"""Changes of one rule of a policy text, in place: comments and all that they do not concern stay."""

from __future__ import annotations

from typing import Any

from controlplane.netmap.policy.hujson import Array, Object, parse
from controlplane.netmap.policy.hujson_edit import append, move, remove, set_value
from controlplane.rules.listing import SECTIONS, items_of


class NoSuchRule(LookupError):
    """A rule that the text does not have (any more)."""


def parse_place(at: str) -> tuple[str, int]:
    """``acls/3`` as the section and the number of a rule there."""
    section, _slash, number = at.partition("/")
    if section not in SECTIONS or not (number.isascii() and number.isdigit() and len(number) <= 6):
        raise NoSuchRule(f"the text has no rule {at!r}")
    return section, int(number)


def add_rule(text: str, section: str, rule: dict[str, Any]) -> str:
    """The text with one more rule at the end of a section, which is made if there is none."""
    root = parse(text) if text.strip() else None
    if not isinstance(root, Object):
        return set_value("{\n}\n", [section], [rule])
    member = root.members.get(section)
    if member is None or not isinstance(member.value, Array):
        return set_value(text, [section], [rule])
    return append(text, [section], rule)


def change_rule(text: str, section: str, index: int, rule: dict[str, Any]) -> str:
    """The text with another rule in this place; members that say the same stay as they stand."""
    _check(text, section, index)
    return set_value(text, [section, index], rule)


def delete_rule(text: str, section: str, index: int) -> str:
    """The text without this rule and the comments of its own."""
    _check(text, section, index)
    return remove(text, [section, index])


def move_rule(text: str, section: str, index: int, by: int) -> str:
    """The text with this rule so many places further down (or up)."""
    _check(text, section, index)
    _check(text, section, index + by)
    return move(text, [section, index], index + by)


def _check(text: str, section: str, index: int) -> None:
    if not 0 <= index < len(items_of(parse(text), section)):
        raise NoSuchRule(f"the text has no rule {section}/{index}")
