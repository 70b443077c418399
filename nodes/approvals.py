"""What waits for somebody's decision: devices, people, routes and exit nodes, in one queue."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from django.db.models import Case, CharField, Count, F, Min, OuterRef, QuerySet, Subquery, Value, When

from accounts.models import Membership
from accounts.roles import Capability, can, outranks
from nodes.access import NodeAction, may, seen_by, visible_nodes
from nodes.addresses import is_nodes_own
from nodes.hostinfo import EXIT_ROUTES
from nodes.models import Node, Route
from nodes.offers import Offers, offers_of
from nodes.rows import os_of
from nodes.selectors import part_of_exit_node, waiting_routes
from nodes.state import NodeState

MAX_PICKED = 500  # how many one decision is about, at most


class Kind(StrEnum):
    """What is to be decided about; the values stand in URLs and forms."""

    DEVICE = "device"
    PERSON = "person"
    ROUTE = "route"
    EXIT_NODE = "exit-node"


NEEDS: dict[Kind, Capability] = {
    Kind.DEVICE: Capability.MANAGE_DEVICES,
    Kind.PERSON: Capability.MANAGE_USERS,
    Kind.ROUTE: Capability.MANAGE_NETWORK,
    Kind.EXIT_NODE: Capability.MANAGE_NETWORK,
}
Subject = Node | Membership | Route
KINDS: dict[str, Kind] = {kind.value: kind for kind in Kind}
MAX_DIGITS = 18  # of a row's id: a longer one fits no database


@dataclass(frozen=True, slots=True)
class Ref:
    """Names one entry in pages and forms: ``route-7``. The id is the device's, membership's or route's."""

    kind: Kind
    id: int

    def __str__(self) -> str:
        return f"{self.kind.value}-{self.id}"

    @classmethod
    def parse(cls, text: str) -> Ref | None:
        """``None`` for anything else than ``str(ref)``."""
        name, _, number = text.rpartition("-")
        kind = KINDS.get(name)
        is_number = number.isascii() and number.isdigit() and len(number) <= MAX_DIGITS
        return cls(kind, int(number)) if kind is not None and is_number else None


def parse_refs(texts: Iterable[str]) -> list[Ref]:
    """Those that name something, each once, in order, at most :data:`MAX_PICKED`."""
    found = (Ref.parse(text) for text in texts)
    return list(dict.fromkeys(ref for ref in found if ref is not None))[:MAX_PICKED]


# --- reading the queue -----------------------------------------------------------------------------------


def waiting(kind: Kind, membership: Membership) -> QuerySet[Any]:
    """What of this kind waits, as far as this person sees it: all, or what concerns their own devices."""
    if kind is Kind.PERSON:
        people = Membership.objects.select_related("user").filter(status=Membership.Status.NEEDS_APPROVAL)
        return people if can(membership, Capability.SEE_ALL) else people.none()
    if kind is Kind.DEVICE:
        return visible_nodes(membership).filter(state=NodeState.PENDING.value)
    if kind is Kind.EXIT_NODE:
        parts = waiting_routes().filter(part_of_exit_node()).values("node")
        return visible_nodes(membership).filter(state=NodeState.ACTIVE.value, pk__in=parts)
    return _waiting_offers(membership).exclude(part_of_exit_node())


def _waiting_offers(membership: Membership) -> QuerySet[Route]:
    """The prefixes that wait, those of exit nodes too."""
    return waiting_routes().filter(seen_by(membership, "node__"), node__state=NodeState.ACTIVE.value)


def _asked(kind: Kind) -> Any:
    """Since when something of this kind waits, as a column."""
    if kind is Kind.DEVICE:
        return F("last_login")
    if kind is Kind.EXIT_NODE:
        offered = waiting_routes().filter(prefix__in=EXIT_ROUTES, node=OuterRef("pk")).order_by()
        return Subquery(offered.values("node").annotate(first=Min("created")).values("first"))
    return F("created")


def entries(membership: Membership, kinds: Sequence[Kind]) -> QuerySet[Any]:
    """``(kind, id, since)`` of what waits, the oldest first, in one query."""
    parts = [
        waiting(kind, membership)
        .select_related(None)
        .prefetch_related(None)
        .order_by()
        .annotate(kind=Value(kind.value, output_field=CharField()), item=F("pk"), asked=_asked(kind))
        .values_list("kind", "item", "asked")
        for kind in kinds
    ]
    whole: QuerySet[Any] = parts[0].union(*parts[1:], all=True) if len(parts) > 1 else parts[0]
    return whole.order_by("asked", "kind", "item")


def count_waiting(membership: Membership, kinds: Iterable[Kind] = Kind) -> dict[Kind, int]:
    """How many of each kind wait: a query for devices, one for people, one for what devices offer.

    Every page asks for it, so it is kept plain: queries within one another take longer to make than to run.
    """
    counts = dict.fromkeys(kinds, 0)
    for kind in counts.keys() & {Kind.DEVICE, Kind.PERSON}:
        counts[kind] = waiting(kind, membership).count()
    if counts.keys() & {Kind.ROUTE, Kind.EXIT_NODE}:
        counts |= {kind: n for kind, n in _count_offers(membership).items() if kind in counts}
    return counts


def _count_offers(membership: Membership) -> dict[Kind, int]:
    exit_node = Case(When(part_of_exit_node(), then=F("node_id")))
    found = (
        _waiting_offers(membership)
        .annotate(exit_node=exit_node)
        .aggregate(all=Count("pk"), parts=Count("exit_node"), exits=Count("exit_node", distinct=True))
    )
    return {Kind.ROUTE: found["all"] - found["parts"], Kind.EXIT_NODE: found["exits"]}


def deciding(membership: Membership | None) -> list[Kind]:
    """What this person may decide about at all."""
    return [kind for kind in Kind if can(membership, NEEDS[kind])]


# --- entries as pages show them --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One row of the queue. ``node`` is the device, or the one that offers; ``person`` who asks to join.

    ``refused``: a route that nobody may approve, because it lies within the tailnet's own addresses.
    """

    ref: Ref
    since: datetime
    may: bool
    name: str
    node: Node | None = None
    person: Membership | None = None
    prefix: str = ""
    offers: Offers | None = None
    os_name: str = ""
    os_icon: str = ""
    refused: bool = False

    @property
    def kind(self) -> str:
        return self.ref.kind.value

    @property
    def dom_id(self) -> str:
        return f"item-{self.ref}"


def load(keys: Sequence[tuple[str, int, datetime]], membership: Membership) -> list[Entry]:
    """The entries of a page, in its order; what has gone meanwhile is left out."""
    refs = [(Ref(Kind(kind), number), since) for kind, number, since in keys]
    found = find_all([ref for ref, _ in refs], membership)
    return [entry_of(ref, found[ref], since, membership) for ref, since in refs if ref in found]


def find_all(refs: Sequence[Ref], membership: Membership) -> dict[Ref, Subject]:
    """Those of the entries that still wait and that this person sees: a query or two for each kind."""
    found: dict[Ref, Subject] = {}
    for kind in Kind:
        wanted = [ref.id for ref in refs if ref.kind is kind]
        rows = waiting(kind, membership).filter(pk__in=wanted) if wanted else ()
        if kind is Kind.ROUTE and wanted:
            rows = waiting(kind, membership).filter(pk__in=wanted).select_related("node__user")
        found |= {Ref(kind, row.pk): row for row in rows}
    return found


def entry_of(ref: Ref, subject: Subject, since: datetime, membership: Membership) -> Entry:
    """What is shown of one entry to this person."""
    allowed = may_decide(subject, membership)
    if isinstance(subject, Membership):
        name = subject.user.name
        return Entry(ref=ref, since=since, may=allowed, name=name, person=subject)
    if isinstance(subject, Route):
        own = is_nodes_own(subject.prefix)
        return Entry(
            ref=ref,
            since=since,
            may=allowed,
            name=subject.prefix,
            node=subject.node,
            prefix=subject.prefix,
            refused=own,
        )
    os_name, os_icon = os_of(subject)
    return Entry(
        ref=ref,
        since=since,
        may=allowed,
        name=subject.name,
        node=subject,
        offers=offers_of(subject),
        os_name=os_name,
        os_icon=os_icon,
    )


def may_decide(subject: Subject, membership: Membership) -> bool:
    """Whether this person may approve or reject it."""
    if isinstance(subject, Membership):
        return can(membership, Capability.MANAGE_USERS) and outranks(membership, subject.role)
    if isinstance(subject, Route):
        return may(membership, NodeAction.APPROVE_ROUTES, subject.node)
    waits_itself = subject.life is NodeState.PENDING
    return may(membership, NodeAction.APPROVE if waits_itself else NodeAction.APPROVE_ROUTES, subject)
