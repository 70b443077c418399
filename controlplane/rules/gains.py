"""Who gains and who loses by a text, in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from controlplane.netmap.policy.gains import Change, Comparison, Opening
from controlplane.netmap.policy.model import ALL_PORTS
from controlplane.netmap.snapshot import NodeSnapshot, TailnetSnapshot
from controlplane.rules.words import ports_in_words

MAX_ROWS = 200
MAX_NAMES = 5  # of the devices that gain the same
MAX_OPENINGS = 6
NUMBERS = {1: "ICMP", 6: "TCP", 17: "UDP", 58: "ICMPv6", 132: "SCTP", 47: "GRE", 50: "ESP", 51: "AH"}
WITH_PORTS = frozenset({6, 17})
USUAL = frozenset({1, 58}) | WITH_PORTS


@dataclass(frozen=True, slots=True)
class GainRow:
    """Some devices and one target: what opens for them, or closes."""

    source: str
    target: str
    what: str
    gains: bool


@dataclass(frozen=True, slots=True)
class Gains:
    """All rows, losses first; ``gains`` and ``losses`` count pairs of devices."""

    rows: tuple[GainRow, ...]
    gains: int
    losses: int
    left_out: int


def gains_in_words(comparison: Comparison, snapshot: TailnetSnapshot) -> Gains:
    """What a comparison found, for a page."""
    nodes = snapshot.nodes
    lost = [_row(one, one.lost, nodes, gains=False) for one in comparison.changes if one.lost]
    gained = [_row(one, one.gained, nodes, gains=True) for one in comparison.changes if one.gained]
    rows = [*lost, *gained]
    return Gains(
        rows=tuple(rows[:MAX_ROWS]),
        gains=sum(len(one.sources) for one in comparison.changes if one.gained),
        losses=sum(len(one.sources) for one in comparison.changes if one.lost),
        left_out=max(0, len(rows) - MAX_ROWS) + comparison.more,
    )


def _row(
    change: Change, openings: Iterable[Opening], nodes: Mapping[int, NodeSnapshot], *, gains: bool
) -> GainRow:
    names = [_name(nodes[one]) for one in change.sources if one in nodes]
    return GainRow(_some(names), _name(nodes[change.target]), openings_in_words(openings), gains)


def _name(node: NodeSnapshot) -> str:
    """A device's name without the tailnet's domain."""
    return node.name.partition(".")[0]


def _some(names: list[str]) -> str:
    shown, left = names[:MAX_NAMES], len(names) - MAX_NAMES
    if left <= 0:
        return ", ".join(shown)
    more = ngettext("%(names)s and %(n)d more", "%(names)s and %(n)d more", left)
    return more % {"names": ", ".join(shown), "n": left}


def openings_in_words(openings: Iterable[Opening]) -> str:
    """Ports and protocols; the usual ones together are not told one by one."""
    protocols: dict[tuple[str, int, int], set[int]] = {}
    for one in openings:
        protocols.setdefault((one.beyond, one.first, one.last), set()).add(one.protocol)
    said = [_opening(beyond, (first, last), them) for (beyond, first, last), them in protocols.items()]
    left = len(said) - MAX_OPENINGS
    more = [ngettext("%(n)d more", "%(n)d more", left) % {"n": left}] if left > 0 else []
    return "; ".join([*said[:MAX_OPENINGS], *more])


def _opening(beyond: str, ports: tuple[int, int], protocols: set[int]) -> str:
    names = [NUMBERS.get(one, _("IP protocol %(number)s") % {"number": one}) for one in sorted(protocols)]
    if ports == ALL_PORTS:
        what = _("everything") if protocols >= USUAL else ", ".join(names)
    else:
        text = str(ports[0]) if ports[0] == ports[1] else f"{ports[0]}-{ports[1]}"
        kinds = "" if protocols >= WITH_PORTS else ", ".join(names)
        what = " ".join(filter(None, (kinds, ports_in_words(text))))
    return _("%(what)s at %(network)s behind it") % {"what": what, "network": beyond} if beyond else what
