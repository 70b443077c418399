"""Device postures: what is known of a device, and whether it meets what a rule asks of its sources. Pure.

Source: tailscale.com/docs/features/device-posture. An attribute that is not known meets nothing but
``NOT SET``, a negation neither. Versions are ordered as util/cmpver of the reference implementation does it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from controlplane.netmap.policy.model import Assertion, Policy

if TYPE_CHECKING:
    from controlplane.netmap.policy.world import World

VERSION_ATTRIBUTES = frozenset({"node:osVersion", "node:tsVersion"})
_RUNS = re.compile(r"(\D*)(\d*)")


def compare_versions(left: str, right: str) -> int:
    """Negative, 0 or positive as ``left`` is older than, as old as, or newer than ``right``.

    Runs of digits compare as numbers, what is between them as text, and nothing is older than something.
    """
    for one, other in zip_longest(_runs(left), _runs(right), fillvalue=("", 0, "")):
        if one != other:
            return -1 if one < other else 1
    return 0


def _runs(version: str) -> list[tuple[str, int, str]]:
    """Text and number by turns; a number as its length and digits, which order it however long it is."""
    runs = [(text, digits.lstrip("0")) for text, digits in _RUNS.findall(version) if text or digits]
    return [(text, len(digits), digits) for text, digits in runs]


_ORDERS: dict[str, Callable[[int], bool]] = {
    "==": lambda order: order == 0,
    "!=": lambda order: order != 0,
    "<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    ">": lambda order: order > 0,
    ">=": lambda order: order >= 0,
}


def holds(assertion: Assertion, attributes: Mapping[str, Any]) -> bool:
    """Whether a device with these attributes is as the assertion says."""
    known = attributes.get(assertion.attribute)
    if assertion.operator in ("IS SET", "NOT SET"):
        return (known is not None) == (assertion.operator == "IS SET")
    if known is None:
        return False
    if assertion.operator in ("IN", "NOT IN"):
        found = any(_order(assertion.attribute, known, value) == 0 for value in assertion.value)
        return found == (assertion.operator == "IN")
    order = _order(assertion.attribute, known, assertion.value)
    if order is None:
        return assertion.operator == "!="
    return _ORDERS[assertion.operator](order)


def _order(attribute: str, known: Any, value: Any) -> int | None:
    """How the two compare; ``None`` when they are of different kinds."""
    if isinstance(known, str) and isinstance(value, str):
        if attribute in VERSION_ATTRIBUTES:
            return compare_versions(known, value)
        return (known > value) - (known < value)
    if isinstance(known, bool) or isinstance(value, bool):
        return int(known) - int(value) if isinstance(known, bool) and isinstance(value, bool) else None
    if isinstance(known, int | float) and isinstance(value, int | float):
        return (known > value) - (known < value)
    return None


def meets(policy: Policy, asked: Iterable[str], attributes: Mapping[str, Any]) -> bool:
    """Whether a device meets one of the postures that a rule asks for, or of the default if it asks for none.

    Nothing asked and no default: every device does.
    """
    names = tuple(asked) or policy.default_source_posture
    if not names:
        return True
    return any(
        name in policy.postures and all(holds(assertion, attributes) for assertion in policy.postures[name])
        for name in names
    )


def asks(policy: Policy, asked: Iterable[str]) -> bool:
    """Whether :func:`meets` depends on the device at all."""
    return bool(tuple(asked) or policy.default_source_posture)


def meeting(world: World, asked: Iterable[str]) -> int:
    """The nodes that :func:`meets` lets through, as bits of ``world``."""
    if not asks(world.policy, asked := tuple(asked)):
        return world.everyone
    return sum(
        1 << world.bits[node_id]
        for node_id in world.ids(world.everyone)
        if meets(world.policy, asked, world.nodes[node_id].attributes)
    )
