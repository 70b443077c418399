"""Fields of a policy file as Python values, with a refusal at its place where something else stands. Pure.

Names of fields are taken in any case, and ``null`` is as if the field were not there: so does Tailscale.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.hujson import Array, Literal, Object, Value, plain


def members(value: Value, known: Iterable[str], where: str) -> dict[str, Value]:
    """The fields of an object by the names of ``known``; any other field is refused."""
    names = {name.lower(): name for name in known}
    found: dict[str, Value] = {}
    for member in object_of(value, where).members.values():
        name = names.get(member.name.lower())
        if name is None:
            raise PolicyError(f'unknown field "{member.name}"', member.start)
        if name in found:
            raise PolicyError(f'{where} has the field "{name}" twice', member.start)
        if not is_null(member.value):
            found[name] = member.value
    return found


def named(value: Value | None, where: str) -> dict[str, tuple[Value, int]]:
    """An object of the author's own names: each name's value and where the name stands."""
    if value is None or is_null(value):
        return {}
    return {name: (member.value, member.start) for name, member in object_of(value, where).members.items()}


def items(value: Value | None, where: str) -> tuple[Value, ...]:
    """The elements of a list; none when the field is not there."""
    if value is None or is_null(value):
        return ()
    if not isinstance(value, Array):
        raise PolicyError(f"{where} must be a list", value.start)
    return value.items


def texts(value: Value | None, where: str) -> list[tuple[str, int]]:
    """The strings of a list, without the space around them, and where they stand."""
    return [(text(item, f"{where} entry"), item.start) for item in items(value, where)]


def text(value: Value | None, where: str) -> str:
    """A string without the space around it; empty when the field is not there."""
    if value is None or is_null(value):
        return ""
    if not isinstance(value, Literal) or not isinstance(value.value, str):
        raise PolicyError(f"{where} must be a string", value.start)
    return value.value.strip()


def object_of(value: Value, where: str) -> Object:
    if not isinstance(value, Object):
        raise PolicyError(f"{where} must be an object", value.start)
    return value


def attribute_values(value: Value | None, where: str) -> dict[str, Any]:
    """An object of strings, numbers and booleans."""
    values = {}
    for name, (content, _) in named(value, where).items():
        if not isinstance(content, Literal):
            raise PolicyError(f'{where}["{name}"] must be a string, a number or a boolean', content.start)
        values[name] = plain(content)
    return values


def is_null(value: Value) -> bool:
    return isinstance(value, Literal) and value.value is None


def flag(value: Value | None, where: str) -> bool:
    """A boolean; false when the field is not there."""
    if value is None or is_null(value):
        return False
    if not isinstance(value, Literal) or not isinstance(value.value, bool):
        raise PolicyError(f"{where} must be true or false", value.start)
    return value.value
