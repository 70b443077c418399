"""The list of devices: what a URL asks for, as a value, and the query that it means."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from django.db.models import Case, Count, IntegerField, Q, QuerySet, Value, When
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from nodes.models import Node
from nodes.selectors import is_exit_node, offers_wait, unseen_since
from nodes.state import NodeState
from nodes.tags import TAG
from nodes.versions import only_old

PAGE_SIZE = 50
MAX_SEARCH = 100
TAGGED = "tagged"
PEOPLE = "people"
OLD = "old"
USES_EXIT = "uses"
MAX_UNSEEN_DAYS = 3650
MAX_DIGITS = 18
MAX_TAG_SETS = 1000
MAX_KNOWN_TAGS = 200
# The filters' names in URLs.
URL_NAMES = ("q", "state", "owner", "os", "tag", "version", "exit", "seen", "sort")
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

UNSEEN_DAYS = (1, 7, 30, 90, 180, 365)

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
    tag: str = ""
    version: str = ""
    exit: str = ""
    unseen: int = 0  # days
    sort: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> DeviceQuery:
        given = {name: str(values.get(name, "")) for name in URL_NAMES}
        owner, days = given["owner"], given["seen"]
        return cls(
            search=given["q"].replace("\x00", "").strip()[:MAX_SEARCH],
            state=_one_of(given["state"], STATES),
            owner=owner if owner in (TAGGED, PEOPLE) or _is_number(owner) else "",
            system=_one_of(given["os"], SYSTEMS),
            tag=given["tag"] if TAG.fullmatch(given["tag"]) else "",
            version=_one_of(given["version"], (OLD,)),
            exit=_one_of(given["exit"], (USES_EXIT,)),
            unseen=min(int(days), MAX_UNSEEN_DAYS) if _is_number(days) else 0,
            sort=_one_of(given["sort"], SORTS),
        )

    @property
    def narrows(self) -> bool:
        """Whether it asks for fewer than all devices."""
        return bool(self.search or self.state or self.owner or self.system or self.more)

    @property
    def url(self) -> str:
        """The same as a query string, without what it leaves open."""
        values = {
            "q": self.search,
            "state": self.state,
            "owner": self.owner,
            "os": self.system,
            "tag": self.tag,
            "version": self.version,
            "exit": self.exit,
            "seen": str(self.unseen or ""),
            "sort": self.sort,
        }
        return urlencode({name: value for name, value in values.items() if value})

    @property
    def more(self) -> int:
        """How many of the rarer filters it has."""
        return sum(map(bool, (self.tag, self.version, self.exit, self.unseen)))

    def select(self, devices: QuerySet[Node], now: datetime) -> QuerySet[Node]:
        """The devices asked for, in order; without an order those that wait come first."""
        if self.search:
            devices = devices.filter(_matches(self.search))
        if self.state:
            devices = devices.filter(state_filter(self.state, now))
        if self.owner == TAGGED:
            devices = devices.filter(user__isnull=True)
        elif self.owner == PEOPLE:
            devices = devices.filter(user__isnull=False)
        elif self.owner:
            devices = devices.filter(user_id=int(self.owner))
        if self.system:
            devices = devices.filter(reported_os=self.system)
        return self.ordered(self._rarely(devices, now), now)

    def _rarely(self, devices: QuerySet[Node], now: datetime) -> QuerySet[Node]:
        if self.tag:
            devices = devices.filter(tags__icontains=f'"{self.tag}"')
        if self.version == OLD:
            devices = only_old(devices)
        if self.exit == USES_EXIT:
            devices = devices.filter(reported_exit_node__gt="")
        if self.unseen:
            devices = devices.filter(unseen_since(now - timedelta(days=self.unseen), now))
        return devices

    def ordered(self, devices: QuerySet[Node], now: datetime) -> QuerySet[Node]:
        """The same devices in the order asked for."""
        if self.sort in ("seen", "-seen"):
            devices = devices.annotate(is_offline=_flag(~online_at(now) | Q(presence__expires__isnull=True)))
        if self.sort:
            return devices.order_by(*SORTS[self.sort], "pk")
        return devices.annotate(settled=_flag(~Q(state=NodeState.PENDING.value))).order_by(
            "settled", "name", "pk"
        )


def _one_of(given: str, known: Container[str]) -> str:
    return given if given in known else ""


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


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


def known_tags(devices: QuerySet[Node]) -> list[str]:
    """The tags that these devices have, by name; no more than a menu holds."""
    rows = devices.filter(user__isnull=True).order_by().prefetch_related(None).select_related(None)
    found: set[str] = set()
    for tags in rows.values_list("tags", flat=True).distinct()[:MAX_TAG_SETS]:
        found.update(tags)
    return sorted(found)[:MAX_KNOWN_TAGS]


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
