"""The people of a tailnet as pages show them: what a URL asks for, the query it means, and each row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from django.core.paginator import Page, Paginator
from django.db.models import Case, CharField, Count, IntegerField, Max, Q, QuerySet, Value, When
from django.db.models.functions import Coalesce, Lower, NullIf
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from accounts.models import LOCAL_ISSUER, Membership, User
from accounts.roles import Capability, Role, can
from accounts.selectors import members
from accounts.words import ROLES
from nodes.models import Node, Presence
from nodes.rows import Shown
from nodes.services.members import PersonAction, may_act

PAGE_SIZE = 50
MAX_SEARCH = 100
GOOGLE = "accounts.google.com"
NEVER = datetime(1970, 1, 1, tzinfo=UTC)
Status = Membership.Status

TABS: dict[str, str | Promise] = {
    "": _("All"),
    Status.ACTIVE.value: _("Active"),
    Status.NEEDS_APPROVAL.value: _("Needs approval"),
    Status.SUSPENDED.value: _("Suspended"),
}
SHOWN = {
    Status.ACTIVE.value: Shown("active", "circle-check-filled", _("Active")),
    Status.NEEDS_APPROVAL.value: Shown("pending", "hourglass", _("Needs approval")),
    Status.SUSPENDED.value: Shown("expired", "ban", _("Suspended")),
}
SWITCHED_OFF = Shown("expired", "ban", _("Deactivated"))
PLACES = {role.value: place for place, role in enumerate(Role)}
ORDERS: dict[str, str | Promise] = {
    "": _("Waiting first, then by name"),
    "name": _("By name"),
    "role": _("By role"),
    "devices": _("Most devices first"),
    "seen": _("Last seen first"),
    "joined": _("Newest first"),
}
# Orders that the database makes; those by devices and by when somebody was seen are made of facts.
SORTS: dict[str, tuple[str, ...]] = {
    "": ("settled", "shown_name", "pk"),
    "name": ("shown_name", "pk"),
    "role": ("role_place", "shown_name", "pk"),
    "joined": ("-created", "-pk"),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a person by their devices (and open pages)."""

    devices: int = 0
    online: bool = False
    seen: datetime = NEVER

    @property
    def is_known(self) -> bool:
        """Whether they were ever seen."""
        return self.seen > NEVER


FACT_SORTS: dict[str, Callable[[Facts], Any]] = {
    "devices": lambda facts: -facts.devices,
    "seen": lambda facts: (not facts.online, -facts.seen.timestamp()),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PeopleQuery:
    """Filters and order, as the URL has them; what it has wrongly is left out. ``-`` reverses an order."""

    search: str = ""
    status: str = ""
    role: str = ""
    sort: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> PeopleQuery:
        status, role, sort = (str(values.get(name, "")) for name in ("status", "role", "sort"))
        return cls(
            search=str(values.get("q", "")).replace("\0", "").strip()[:MAX_SEARCH],
            status=status if status in TABS else "",
            role=role if role in PLACES else "",
            sort=sort if sort.removeprefix("-") in {*SORTS, *FACT_SORTS} else "",
        )

    @property
    def narrows(self) -> bool:
        """Whether it asks for fewer than all people."""
        return bool(self.search or self.status or self.role)

    def page(self, number: Any, now: datetime) -> tuple[Page[Any], dict[Membership, Facts]]:
        """A page of the people asked for, in order, with their facts: a fixed number of queries."""
        found = self._found()
        by_fact = FACT_SORTS.get(self.sort.removeprefix("-"))
        if by_fact is None:
            page: Page[Any] = Paginator(found.order_by(*self._order()), PAGE_SIZE).get_page(number)
            people = list(page)
        else:
            page = Paginator(self._by_fact(found, by_fact, now), PAGE_SIZE).get_page(number)
            rows = members().in_bulk(list(page))
            people = [rows[pk] for pk in page if pk in rows]
        facts = facts_of(people, now)
        return page, {one: facts[one.user_id] for one in people}

    def _found(self) -> QuerySet[Any]:
        found = members()
        if self.search:
            wanted = Q(user__email__icontains=self.search) | Q(user__display_name__icontains=self.search)
            found = found.filter(wanted)
        if self.status:
            found = found.filter(status=self.status)
        if self.role:
            found = found.filter(role=self.role)
        return found.annotate(
            shown_name=Lower(
                Coalesce(NullIf("user__display_name", Value("")), "user__email", output_field=CharField())
            ),
            role_place=_cases("role", PLACES),
            settled=_cases("status", {Status.NEEDS_APPROVAL.value: 0}),
        )

    def _order(self) -> tuple[str, ...]:
        names = SORTS[self.sort.removeprefix("-")]
        if not self.sort.startswith("-"):
            return names
        return tuple(name[1:] if name.startswith("-") else f"-{name}" for name in names)

    def _by_fact(self, found: QuerySet[Any], by_fact: Callable[[Facts], Any], now: datetime) -> list[int]:
        """The primary keys of these people in an order that their facts make."""
        light = found.select_related(None).only("pk", "user_id", "last_seen")
        places = list(light.order_by("shown_name", "pk"))
        facts = facts_of(places, now)
        places.sort(key=lambda one: by_fact(facts[one.user_id]), reverse=self.sort.startswith("-"))
        return [one.pk for one in places]


def facts_of(places: Collection[Membership], now: datetime) -> dict[int, Facts]:
    """The facts of these people by their user ids, in two queries."""
    devices, held = Node.objects.filter(user__isnull=False), Presence.objects.filter(expires__gt=now)
    if len(places) <= PAGE_SIZE:  # more of them are found sooner among everybody's
        ids = {one.user_id for one in places}
        devices, held = devices.filter(user_id__in=ids), held.filter(node__user_id__in=ids)
    counted = devices.order_by().values_list("user_id").annotate(n=Count("pk"), last=Max("last_seen"))
    known = {user: (n, last) for user, n, last in counted}
    online = set(held.order_by().values_list("node__user_id", flat=True).distinct())
    facts = {}
    for one in places:
        devices, last = known.get(one.user_id, (0, None))
        seen = max(filter(None, (last, one.last_seen)), default=NEVER)
        facts[one.user_id] = Facts(devices, one.user_id in online, seen)
    return facts


def _cases(name: str, places: Mapping[str, int]) -> Case:
    whens = [When(**{name: value}, then=Value(place)) for value, place in places.items()]
    return Case(*whens, default=Value(len(PLACES)), output_field=IntegerField())


def count_statuses() -> dict[str, int]:
    """How many people are in each state, in one query; "" is all of them."""
    wanted = {
        f"n_{place}": Count("pk", filter=Q(status=status)) for place, status in enumerate(TABS) if status
    }
    found = members().order_by().aggregate(n_0=Count("pk"), **wanted)
    return {status: found[f"n_{place}"] for place, status in enumerate(TABS)}


@dataclass(frozen=True, slots=True)
class MayDo:
    """What the reader may do to a person now."""

    approve: bool
    suspend: bool
    restore: bool
    role: bool
    delete: bool
    transfer: bool

    @property
    def any(self) -> bool:
        return self.approve or self.suspend or self.restore or self.role or self.delete or self.transfer


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonRow:
    """One person, for a row and for their own page."""

    place: Membership
    user: User
    user_path: str  # the person in addresses
    dom_id: str
    state: Shown
    role: Promise
    devices: int
    online: bool
    last_seen: datetime | None
    is_me: bool
    may: MayDo

    @property
    def waits(self) -> bool:
        return self.place.status == Status.NEEDS_APPROVAL


def person_row(place: Membership, facts: Facts, *, reader: Membership) -> PersonRow:
    """What pages show of a person."""
    return PersonRow(
        place=place,
        user=place.user,
        user_path=str(place.user_id),
        dom_id=f"membership-{place.pk}",
        state=SHOWN[place.status] if place.user.is_active else SWITCHED_OFF,
        role=ROLES[Role(place.role)].word,
        devices=facts.devices,
        online=facts.online,
        last_seen=facts.seen if facts.is_known else None,
        is_me=place.pk == reader.pk,
        may=MayDo(
            **{action.value: may_act(reader, action, place) for action in PersonAction},
            transfer=can(reader, Capability.OWN_TAILNET) and place.pk != reader.pk and place.is_active,
        ),
    )


def signs_in_with(user: User) -> str:
    """Who vouches for a person: Google, another provider by its host, or this server."""
    if user.iss == LOCAL_ISSUER:
        return gettext("One-time links of this server")
    host = urlsplit(user.iss).hostname or user.iss
    return "Google" if host == GOOGLE else host
