"""The list of devices: what a URL asks for, as a value, and the query that it means."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Value, When
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from nodes.models import Node
from nodes.selectors import is_exit_node, offers_wait
from nodes.state import NodeState

PAGE_SIZE = 50
MAX_SEARCH = 100
TAGGED = "tagged"
STATES: dict[str, str | Promise] = {
    "": _("All"),
    "online": _("Online"),
    "offline": _("Offline"),
    "pending": _("Needs approval"),
    "expired": _("Key expired"),
    "logged-out": _("Signed out"),
    "routes-waiting": _("Routes waiting"),
    "exit-nodes": _("Exit nodes"),
}
SYSTEMS = {
    "linux": "Linux",
    "windows": "Windows",
    "macOS": "macOS",
    "iOS": "iOS",
    "android": "Android",
}
SORTS: dict[str, tuple[str, ...]] = {
    "name": ("name",),
    "-name": ("-name",),
    "seen": ("is_offline", "-last_seen", "name"),
    "-seen": ("-is_offline", "last_seen", "name"),
    "created": ("-created", "-pk"),
    "-created": ("created", "pk"),
    "owner": ("user__email", "name"),
    "-owner": ("-user__email", "name"),
}

# What a phone offers, where there are no column heads to click.
ORDERS: dict[str, str | Promise] = {
    "": _("Waiting first, then by name"),
    "name": _("By name"),
    "owner": _("By owner"),
    "seen": _("Last seen first"),
    "created": _("Newest first"),
}


def online_at(now: datetime) -> Q:
    return Q(presence__expires__gt=now)


def _good(now: datetime) -> Q:
    """Active, with a key that has not ended."""
    lasting = Q(user__isnull=True) | Q(key_expiry_disabled=True) | Q(key_expiry__isnull=True)
    return Q(state=NodeState.ACTIVE.value) & (lasting | Q(key_expiry__gt=now))


def state_filter(state: str, now: datetime) -> Q:
    """The devices that a page calls by this state word."""
    active = Q(state=NodeState.ACTIVE.value)
    if state == "routes-waiting":
        return offers_wait()
    if state == "exit-nodes":
        return active & is_exit_node()
    if state == "online":
        return _good(now) & online_at(now)
    if state == "offline":
        return _good(now) & (
            Q(presence__isnull=True) | Q(presence__expires__isnull=True) | Q(presence__expires__lte=now)
        )
    if state == "expired":
        ended = Q(user__isnull=False, key_expiry_disabled=False, key_expiry__lte=now)
        return Q(state=NodeState.EXPIRED.value) | (active & ended)
    return Q(state=state)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceQuery:
    """Filters and order, as the URL has them; whatever it has wrongly is left out."""

    search: str = ""
    state: str = ""
    owner: str = ""
    system: str = ""
    sort: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> DeviceQuery:
        state, sort = str(values.get("state", "")), str(values.get("sort", ""))
        owner, system = str(values.get("owner", "")), str(values.get("os", ""))
        return cls(
            search=str(values.get("q", "")).strip()[:MAX_SEARCH],
            state=state if state in STATES else "",
            owner=owner if owner == TAGGED or (owner.isascii() and owner.isdigit()) else "",
            system=system if system in SYSTEMS else "",
            sort=sort if sort in SORTS else "",
        )

    @property
    def narrows(self) -> bool:
        """Whether it asks for fewer than all devices."""
        return bool(self.search or self.state or self.owner or self.system)

    def select(self, devices: QuerySet[Node], now: datetime) -> QuerySet[Node]:
        """The devices asked for, in order; without an order those that wait come first."""
        if self.search:
            devices = devices.filter(_matches(self.search))
        if self.state:
            devices = devices.filter(state_filter(self.state, now))
        if self.owner == TAGGED:
            devices = devices.filter(user__isnull=True)
        elif self.owner:
            devices = devices.filter(user_id=int(self.owner))
        if self.system:
            devices = devices.filter(hostinfo__OS=self.system)
        return self._ordered(devices, now)

    def _ordered(self, devices: QuerySet[Node], now: datetime) -> QuerySet[Node]:
        if self.sort in ("seen", "-seen"):
            devices = devices.annotate(is_offline=_flag(~online_at(now) | Q(presence__expires__isnull=True)))
        if self.sort:
            return devices.order_by(*SORTS[self.sort], "pk")
        return devices.annotate(settled=_flag(~Q(state=NodeState.PENDING.value))).order_by(
            "settled", "name", "pk"
        )


def _flag(condition: Q) -> Case:
    return Case(When(condition, then=Value(1)), default=Value(0), output_field=IntegerField())


def _matches(search: str) -> Q:
    wanted = (
        Q(name__icontains=search)
        | Q(hostname__icontains=search)
        | Q(user__email__icontains=search)
        | Q(ipv4__startswith=search)
        | Q(ipv6__startswith=search.lower())
        | Q(stable_id=search)
    )
    return wanted | Q(tags__icontains=search) if search.startswith("tag:") else wanted


def count_states(devices: QuerySet[Node], now: datetime) -> dict[str, int]:
    """How many devices each state word stands for, in one query; "" is all of them."""
    wanted = {
        f"n_{index}": Count("pk", filter=state_filter(state, now))
        for index, state in enumerate(STATES)
        if state
    }
    found = (
        devices.prefetch_related(None).select_related(None).order_by().aggregate(n_0=Count("pk"), **wanted)
    )
    return {state: found[f"n_{index}"] for index, state in enumerate(STATES)}
