"""Reading JSON objects as Go does: names without regard to case, null is absent, wrong types refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wire.errors import MessageError

Fields = dict[str, Any]
MAX_DIGITS = 19  # of a 64-bit number


def lower_names(content: Any) -> Fields:
    """A JSON object's members by lower-case name; raises :class:`MessageError` for a non-object."""
    if not isinstance(content, Mapping):
        raise MessageError("a JSON object is expected")
    return {name.lower(): value for name, value in content.items() if value is not None}


def string(fields: Fields, name: str, default: str = "", max_length: int = 64 * 1024) -> str:
    value = fields.get(name, default)
    if not isinstance(value, str) or len(value) > max_length:
        raise MessageError(f"{name} must be a text of at most {max_length} characters")
    return value


def integer(fields: Fields, name: str, default: int = 0) -> int:
    value = fields.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise MessageError(f"{name} must be a whole number")
    return value


def number(fields: Fields, name: str, default: float = 0.0) -> float:
    value = fields.get(name, default)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise MessageError(f"{name} must be a number")
    return float(value)


def boolean(fields: Fields, name: str) -> bool:
    """Also reads Go's ``opt.Bool``, whose JSON may be the text "true"."""
    value = fields.get(name, False)
    if isinstance(value, str) and value in ("true", "false", ""):
        return value == "true"
    if not isinstance(value, bool):
        raise MessageError(f"{name} must be true or false")
    return value


def strings(fields: Fields, name: str, max_items: int) -> tuple[str, ...]:
    value = fields.get(name) or []
    if (
        not isinstance(value, list)
        or len(value) > max_items
        or not all(isinstance(item, str) for item in value)
    ):
        raise MessageError(f"{name} must be a list of at most {max_items} texts")
    return tuple(value)


def objects(fields: Fields, name: str, max_items: int) -> list[dict[str, Any]]:
    return as_objects(fields.get(name) or [], name, max_items)


def as_objects(value: Any, name: str, max_items: int) -> list[dict[str, Any]]:
    """``value`` if it is a list of JSON objects."""
    if (
        not isinstance(value, list)
        or len(value) > max_items
        or not all(isinstance(item, dict) for item in value)
    ):
        raise MessageError(f"{name} must be a list of at most {max_items} objects")
    return value


def mapping(fields: Fields, name: str) -> dict[str, Any]:
    value = fields.get(name) or {}
    if not isinstance(value, dict):
        raise MessageError(f"{name} must be an object")
    return value


def decimal(text: str, name: str) -> int:
    """A whole number that JSON carries as text, as Go does for the keys of a map."""
    if not (text.isascii() and text.isdigit()) or len(text) > MAX_DIGITS:
        raise MessageError(f"{name} must be a whole number")
    return int(text)
