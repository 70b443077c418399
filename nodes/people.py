"""The people of a tailnet as pages show them: what a URL asks for, the query it means, and each row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from django.db.models import (
    Case,
    CharField,
    Count,
    Exists,
    IntegerField,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Greatest, Lower, NullIf
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
SORTS: dict[str, tuple[str, ...]] = {
    "name": ("shown_name",),
    "role": ("role_place", "shown_name"),
    "devices": ("-device_count", "shown_name"),
    "seen": ("-online", "-seen", "shown_name"),
    "joined": ("-created", "-pk"),
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
            sort=sort if sort.removeprefix("-") in SORTS else "",
        )

    @property
    def narrows(self) -> bool:
        """Whether it asks for fewer than all people."""
        return bool(self.search or self.status or self.role)

    def select(self, now: datetime) -> QuerySet[Membership]:
        """The people asked for, in order; without an order those who wait come first."""
        found = with_facts(members(), now)
        if self.search:
            wanted = Q(user__email__icontains=self.search) | Q(user__display_name__icontains=self.search)
            found = found.filter(wanted)
        if self.status:
            found = found.filter(status=self.status)
        if self.role:
            found = found.filter(role=self.role)
        return found.order_by(*self._order(), "pk")

    def _order(self) -> tuple[str, ...]:
        if not self.sort:
            return ("settled", "shown_name")
        names = SORTS[self.sort.removeprefix("-")]
        if not self.sort.startswith("-"):
            return names
        return tuple(name[1:] if name.startswith("-") else f"-{name}" for name in names)


def with_facts(found: QuerySet[Membership], now: datetime) -> QuerySet[Membership]:
    """Each with ``device_count``, ``online``, ``seen`` and what lists are ordered by."""
    theirs = Node.objects.filter(user_id=OuterRef("user_id")).order_by().values("user_id")
    held = Presence.objects.filter(node__user_id=OuterRef("user_id"), expires__gt=now)
    devices_seen = Subquery(theirs.annotate(last=Max("last_seen")).values("last"))
    return found.annotate(
        device_count=Coalesce(Subquery(theirs.annotate(n=Count("pk")).values("n")), 0),
        online=Exists(held),
        seen=Greatest(Coalesce(devices_seen, Value(NEVER)), Coalesce("last_seen", Value(NEVER))),
        shown_name=Lower(
            Coalesce(NullIf("user__display_name", Value("")), "user__email", output_field=CharField())
        ),
        role_place=_cases("role", PLACES),
        settled=_cases("status", {Status.NEEDS_APPROVAL.value: 0}),
    )


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
    state: Shown
    role: Promise
    devices: int
    online: bool
    last_seen: datetime | None
    is_me: bool
    may: MayDo

    @property
    def dom_id(self) -> str:
        return f"membership-{self.place.pk}"

    @property
    def user_path(self) -> str:
        return str(self.user.pk)

    @property
    def waits(self) -> bool:
        return self.place.status == Status.NEEDS_APPROVAL


def person_row(place: Membership, *, reader: Membership) -> PersonRow:
    """What pages show of a person who was read :func:`with_facts`."""
    facts: Any = place
    return PersonRow(
        place=place,
        user=place.user,
        state=SHOWN[place.status] if place.user.is_active else SWITCHED_OFF,
        role=ROLES[Role(place.role)].word,
        devices=facts.device_count,
        online=facts.online,
        last_seen=facts.seen if facts.seen > NEVER else None,
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
