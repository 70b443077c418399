"""Names of the groups that an identity provider or a program puts people into. Pure.

Access rules know them as ``group:NAME``. Names are taken as they are told: a name that was adapted could meet
another one, and give its rights away.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

PREFIX = "group:"
MAX_GROUPS = 500  # of one person, by one source
MAX_NAME = 200  # characters, with the prefix


def is_group(name: Any) -> bool:
    """Whether this can name a group: ``group:`` and something printable without outer blanks."""
    if not isinstance(name, str) or not name.startswith(PREFIX) or len(name) > MAX_NAME:
        return False
    bare = name.removeprefix(PREFIX)
    return bare != "" and bare == bare.strip() and bare.isprintable()


def groups_in(claim: Any) -> tuple[str, ...]:
    """The groups of a token's claim: a list of names, or one; what cannot name a group is left out.

    A path as Keycloak writes it loses its first slash. More than :data:`MAX_GROUPS` are cut off, by name.
    """
    names: Iterable[Any] = claim if isinstance(claim, list) else [claim]
    told = {_named(name) for name in names if isinstance(name, str)}
    return tuple(sorted(name for name in told if is_group(name))[:MAX_GROUPS])


def _named(name: str) -> str:
    return PREFIX + name.removeprefix(PREFIX).removeprefix("/")
