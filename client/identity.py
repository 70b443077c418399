"""Who this node is: its keys, and the server that they are for, as the state folder keeps them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from wire.keys import MachinePrivate, MachinePublic, NodePrivate

FORMAT = 1
CHECK_DIGITS = 16
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who this node is. ``pending`` is a node key that the server may have taken before we heard its answer.

    ``rotating``: ``pending`` replaces ``node`` silently. ``listen_port`` 0 = none chosen yet.
    ``control_key`` is the Noise key of the server at ``control_url``, once it is known.
    """

    machine: MachinePrivate
    node: NodePrivate | None = None
    pending: NodePrivate | None = None
    rotating: bool = False
    listen_port: int = 0
    control_url: str = ""
    control_key: MachinePublic | None = None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Raises ``ValueError`` (a ``KeyFormatError`` too is one line) for anything unexpected."""
        if content.get("format") != FORMAT:
            raise ValueError(f"its format is {content.get('format')!r}, this version reads {FORMAT}")
        if content.get("check") != _check(content):
            raise ValueError("its check sum does not fit")
        port, url = content["listen_port"], content["control_url"]
        if not isinstance(port, int) or not 0 <= port <= 65535 or not isinstance(url, str):
            raise ValueError("a member has a wrong value")
        return cls(
            machine=MachinePrivate.parse(content["machine"]),
            node=_optional(NodePrivate.parse, content["node"]),
            pending=_optional(NodePrivate.parse, content["pending"]),
            rotating=content["rotating"] is True,
            listen_port=port,
            control_url=url,
            control_key=_optional(MachinePublic.parse, content["control_key"]),
        )

    def to_json(self) -> dict[str, Any]:
        content: dict[str, Any] = {
            "format": FORMAT,
            "machine": self.machine.text(),
            "node": self.node.text() if self.node else "",
            "pending": self.pending.text() if self.pending else "",
            "rotating": self.rotating,
            "listen_port": self.listen_port,
            "control_url": self.control_url,
            "control_key": str(self.control_key) if self.control_key else "",
        }
        return content | {"check": _check(content)}


def _check(content: Mapping[str, Any]) -> str:
    """One flipped digit of a key would make another identity: the file proves that it is whole."""
    members = {name: value for name, value in content.items() if name != "check"}
    return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()[:CHECK_DIGITS]


def _optional(parse: Callable[[str], T], text: Any) -> T | None:
    return parse(text) if text else None
