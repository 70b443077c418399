"""This node's ways out as its backend sees them: what the tunnel is given, what is blocked, what is wrong.

Decisions are :mod:`client.routing`'s; this remembers the last one, for most netmaps change nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from client.prefs import Prefs
from client.routing import awaiting_approval, awaiting_words, exit_trouble, in_use
from wire.netmap import NetMap

BLOCKED = (
    "an exit node is wanted and the tunnel is not up: traffic to the internet is blocked "
    "(trenza set --exit-node= lets it out directly)"
)


class Reduction:
    """Reduces netmaps to what is used of them; the same object again while nothing changes."""

    def __init__(self) -> None:
        self._last: tuple[NetMap, Prefs, NetMap] | None = None

    def of(self, netmap: NetMap, prefs: Prefs) -> NetMap:
        last = self._last
        if last is None or last[0] is not netmap or last[1] != prefs:
            last = self._last = (netmap, prefs, in_use(netmap, prefs))
        return last[2]


def guarding(prefs: Prefs, *, has_key: bool) -> Prefs | None:
    """The preferences, while an exit node is wanted: without it nothing gets out (the kill switch)."""
    return prefs if prefs.uses_exit_node and prefs.want_running and has_key else None


def routing_health(netmap: NetMap, prefs: Prefs, troubles: Sequence[str]) -> list[str]:
    """What is wrong, with the tunnel up, with the exit node that is used and with what this node offers."""
    found = [exit_trouble(netmap, prefs), *troubles]
    if waiting := awaiting_approval(netmap.node, prefs):
        found.append(f"not approved yet by an administrator: {awaiting_words(waiting)}")
    return [text for text in found if text]
