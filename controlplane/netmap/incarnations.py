"""Two machines under one identity (a copied disk, a restored backup): told apart, and kept from fighting.

A client makes a disco key anew each time it starts and never takes an earlier one again. So a disco key that
another one has replaced, and that comes back, is a second machine with the same node and machine key. The
newest stays the *holder*: its stream says that the node is online, its reports are the node's. The others are
*shadows*: they get the network map, so that their filters and peers are right, and have no say; so the two do
not throw each other out for ever, and peers are not told of every turn. When the holder goes a shadow may
take its place. Pure: what is flagged and for how long is :mod:`nodes.services.clones`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

MAX_REPLACED = 8  # disco keys remembered for each node: so many restarts later a key is new again
MAX_SHADOWS = 8  # streams of shadows of one node
SURE_SECONDS = 5.0  # a shadow that stays so long is a clone, and no late word of a client that was restarted


@dataclass(slots=True)
class _Known:
    holder: str
    replaced: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_REPLACED))


class Incarnations:
    """The disco keys that the nodes of one tailnet have shown, as far as this process has seen them."""

    def __init__(self) -> None:
        self._known: dict[int, _Known] = {}

    def admits(self, node_id: int, disco_key: str, stored: str) -> bool:
        """Whether what bears this disco key speaks for the node; ``stored`` is what was known of it before.

        An unknown key is the node's next start and becomes the holder; one that was replaced is a shadow.
        """
        if not disco_key:
            return True
        known = self._known.setdefault(node_id, _Known(stored))
        if disco_key == known.holder:
            return True
        if disco_key in known.replaced:
            return False
        if known.holder:
            known.replaced.append(known.holder)
        known.holder = disco_key
        return True

    def forget(self, node_id: int) -> None:
        """The holder is gone, or the node: whoever comes next is the holder."""
        self._known.pop(node_id, None)


@dataclass(frozen=True, slots=True)
class Seen:
    """One stream as a person is told of it."""

    address: str
    hostname: str

    def __str__(self) -> str:
        return f"{self.address} ({self.hostname})" if self.hostname else self.address


NOBODY = Seen("", "")


def describe(machines: Iterable[Seen]) -> str:
    """The machines that share a node's keys, for the audit log and the device's page."""
    return ", ".join(dict.fromkeys(str(one) for one in machines))
