"""By which kind of path devices are connected now: directly, through a relay, or idle; for lists of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Q
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from nodes.models import PathReport, ReportedPath
from wire.paths import Reason


@dataclass(frozen=True, slots=True)
class Paths:
    """How many peers a device reaches by which kind of path. ``by_peers``: only its peers tell of it."""

    direct: int
    relayed: int
    by_peers: bool

    @property
    def key(self) -> str:
        """A relayed pair is what somebody wants to see, so one of them decides."""
        return "relayed" if self.relayed else "direct" if self.direct else "idle"

    @property
    def icon(self) -> str:
        return ICONS[self.key]

    @property
    def word(self) -> str | Promise:
        return WORDS[self.key]

    @property
    def details(self) -> str:
        """The numbers in words, and who says so."""
        told = [
            ngettext("%(n)d directly", "%(n)d directly", self.direct) % {"n": self.direct},
            ngettext("%(n)d through a relay", "%(n)d through a relay", self.relayed) % {"n": self.relayed},
        ]
        source = _("by what other devices say")
        return ", ".join(told) + (f" ({source})" if self.by_peers else "")


ICONS = {"direct": "arrows-exchange", "relayed": "cloud", "idle": "clock-pause"}
WORDS: dict[str, str | Promise] = {
    "direct": gettext_lazy("Direct"),
    "relayed": gettext_lazy("Relayed"),
    "idle": gettext_lazy("Idle"),
}


def paths_of(node_ids: Iterable[int], now: datetime) -> Mapping[int, Paths]:
    """What devices say of their paths, else what their connected peers say, in two queries.

    Official clients say nothing, so theirs are known where the other end is Trenza's. Whether a device is
    connected itself is for the caller to see.
    """
    ids = list(node_ids)
    own = (
        PathReport.objects.filter(node_id__in=ids)
        .order_by()
        .values("node_id")
        .annotate(direct=Count("node__paths", filter=_direct("node__paths__")))
        .annotate(relayed=Count("node__paths", filter=_relayed("node__paths__")))
    )
    others = (
        ReportedPath.objects.filter(peer_id__in=ids, node__presence__expires__gt=now)
        .order_by()
        .values("peer_id")
        .annotate(direct=Count("pk", filter=_direct("")), relayed=Count("pk", filter=_relayed("")))
    )
    found = {row["peer_id"]: Paths(row["direct"], row["relayed"], True) for row in others}
    return found | {row["node_id"]: Paths(row["direct"], row["relayed"], False) for row in own}


def _direct(prefix: str) -> Q:
    return Q(**{f"{prefix}endpoint__gt": ""})


def _relayed(prefix: str) -> Q:
    """Idle pairs stay on the relay until there is traffic: that is no complaint."""
    return Q(**{f"{prefix}endpoint": ""}) & ~Q(**{f"{prefix}reason": Reason.IDLE.value})
