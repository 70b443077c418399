"""The sections ``postures`` and ``defaultSrcPosture``, and the names of postures in rules. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from controlplane.netmap.policy.errors import PolicyError
from controlplane.netmap.policy.hujson import Value
from controlplane.netmap.policy.model import Assertion
from controlplane.netmap.policy.postures import VERSION_ATTRIBUTES
from controlplane.netmap.policy.reading import named, texts

MAX_ASSERTIONS = 100  # in one posture
POSTURE = re.compile(r"posture:[A-Za-z0-9][A-Za-z0-9_.-]*")
_ATTRIBUTE = r"(?P<attribute>[A-Za-z][A-Za-z0-9_-]*:[A-Za-z0-9][A-Za-z0-9_.-]*)"
_CONDITION = re.compile(
    _ATTRIBUTE + r"(?:\s*(?P<operator>==|!=|<=|>=|<|>)\s*(?P<value>\S.*)"
    r"|\s+(?P<among>IN|NOT\s+IN)\s*\[(?P<values>.*)\]"
    r"|\s+(?P<presence>IS\s+SET|NOT\s+SET))?"
)
_SCALAR = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"|(true|false)|(-?\d+(?:\.\d+)?)")
_EXAMPLE = "write it like node:os == 'linux', node:os IN ['linux', 'macos'] or custom:tier IS SET"


def parse_postures(section: Value | None) -> Mapping[str, tuple[Assertion, ...]]:
    """Each posture's assertions, which a device has to meet all."""
    postures = {}
    for name, (value, offset) in named(section, "postures").items():
        if not POSTURE.fullmatch(name):
            raise PolicyError(f'postures["{name}"]: posture names must start with "posture:"', offset)
        conditions = texts(value, f'postures["{name}"]')
        if not conditions:
            raise PolicyError(f'postures["{name}"]: at least one condition must be specified', value.start)
        if len(conditions) > MAX_ASSERTIONS:
            raise PolicyError(f'postures["{name}"]: more than {MAX_ASSERTIONS} conditions', value.start)
        postures[name] = tuple(
            _at_place(condition, place, f'postures["{name}"]') for condition, place in conditions
        )
    return postures


def parse_posture_names(value: Value | None, known: Collection[str], where: str) -> tuple[str, ...]:
    """The postures that ``srcPosture`` of a rule (or ``defaultSrcPosture``) names."""
    names = texts(value, where)
    for name, offset in names:
        if name not in known:
            raise PolicyError(f'{where}=posture not found: "{name}"', offset)
    return tuple(name for name, _ in names)


def _at_place(condition: str, offset: int, where: str) -> Assertion:
    try:
        return parse_assertion(condition)
    except ValueError as error:
        raise PolicyError(f'{where}: "{condition}": {error}', offset) from None


def parse_assertion(condition: str) -> Assertion:
    """``node:tsVersion >= '1.40'``; an attribute alone means that it is true. Else ``ValueError``."""
    match = _CONDITION.fullmatch(condition.strip())
    if match is None:
        raise ValueError(f"not a posture condition: {_EXAMPLE}")
    attribute = match["attribute"]
    if match["presence"]:
        return Assertion(attribute, " ".join(match["presence"].split()))
    if match["among"]:
        return Assertion(attribute, " ".join(match["among"].split()), _scalars(match["values"]))
    if not match["operator"]:
        return Assertion(attribute, "==", True)
    value = _scalar(match["value"])
    _check_order(attribute, match["operator"], value)
    return Assertion(attribute, match["operator"], value)


def _check_order(attribute: str, operator: str, value: Any) -> None:
    if operator in ("==", "!="):
        return
    if isinstance(value, bool) or (isinstance(value, str) and attribute not in VERSION_ATTRIBUTES):
        raise ValueError(f"{operator} compares numbers, node:osVersion and node:tsVersion only")


def _scalar(text: str) -> Any:
    match = _SCALAR.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a value: {text.strip()}; strings are written in quotes")
    return _value_of(match)


def _scalars(text: str) -> tuple[Any, ...]:
    """What is between the brackets of ``IN [...]``."""
    values, at = [], 0
    text = text.strip()
    while at < len(text):
        match = _SCALAR.match(text, at)
        if match is None:
            raise ValueError(f"not a list of values: [{text}]")
        values.append(_value_of(match))
        rest = text[match.end() :].lstrip()
        if rest and not rest.startswith(","):
            raise ValueError(f"not a list of values: [{text}]")
        at = len(text) - len(rest[1:].lstrip())
    if not values:
        raise ValueError("the list is empty")
    return tuple(values)


def _value_of(match: re.Match[str]) -> Any:
    single, double, boolean, number = match.groups()
    if boolean:
        return boolean == "true"
    if number:
        return float(number) if "." in number else int(number)
    return re.sub(r"\\(.)", r"\1", single if single is not None else double)
