"""What the search field finds: devices, people, pages and actions, each only as far as the person may see it.

Bounded by kind, so an answer costs the same in a tailnet of any size: two queries over indexed rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.db.models import Case, IntegerField, Q, Value, When
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import Membership
from accounts.roles import Capability, can
from controlplane.navigation import sections_for
from nodes.access import visible_nodes
from nodes.rows import os_of, shown_state
from nodes.selectors import is_online

MAX_QUERY = 100
MAX_DEVICES = 8
MAX_PEOPLE = 5
Word = str | Promise


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One line. ``sheet``: its address opens as a dialog."""

    icon: str
    word: Word
    path: str
    more: Word = ""
    sheet: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """Hits of one kind."""

    name: str
    word: Word
    hits: Sequence[Hit]


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do, from anywhere; ``needs`` = any of these capabilities."""

    icon: str
    word: Word
    path: str
    needs: frozenset[Capability]
    sheet: bool = True


ACTIONS: tuple[Action, ...] = (
    Action("plus", _("Add device"), "/devices/add", frozenset({Capability.SEE_OWN_DEVICES})),
    Action("key", _("Create auth key"), "/keys/new", frozenset({Capability.CREATE_OWN_KEYS})),
    Action("trash", _("Clean up old devices"), "/devices/clean-up", frozenset({Capability.MANAGE_DEVICES})),
    Action(
        "download",
        _("Download the list of devices (CSV)"),
        "/devices/export.csv",
        frozenset({Capability.SEE_OWN_DEVICES, Capability.SEE_ALL}),
        sheet=False,
    ),
    Action("keyboard", _("Keyboard shortcuts"), "/shortcuts", frozenset(Capability)),
)


def search(text: str, membership: Membership) -> list[Group]:
    """What fits, the best first; nothing typed yet = pages and actions."""
    text = text.replace("\x00", "").strip()[:MAX_QUERY]
    groups = [
        Group("devices", _("Devices"), _devices(text, membership) if text else []),
        Group("people", _("People"), _people(text, membership) if text else []),
        Group("pages", _("Pages"), _pages(text, membership)),
        Group("actions", _("Actions"), _actions(text, membership)),
    ]
    return [group for group in groups if group.hits]


def _fits(text: str, word: Word) -> bool:
    return text.casefold() in str(word).casefold()


def _devices(text: str, membership: Membership) -> list[Hit]:
    wanted = (
        Q(name__icontains=text)
        | Q(hostname__icontains=text)
        | Q(ipv4__startswith=text)
        | Q(ipv6__startswith=text.lower())
        | Q(stable_id=text)
    )
    if text.startswith("tag:"):
        wanted |= Q(tags__icontains=text)
    seen = visible_nodes(membership).prefetch_related(None).filter(wanted)
    begins = When(name__istartswith=text, then=Value(0))  # the others have it further on
    ranked = seen.annotate(place=Case(begins, default=Value(1), output_field=IntegerField()))
    now = timezone.now()
    return [
        Hit(
            icon=os_of(node)[1],
            word=node.name,
            path=f"/devices/{node.stable_id}",
            more=shown_state(node, online=is_online(node, now), now=now).word,
        )
        for node in ranked.order_by("place", "name")[:MAX_DEVICES]
    ]


def _people(text: str, membership: Membership) -> list[Hit]:
    if not can(membership, Capability.SEE_ALL):
        return []
    wanted = Q(user__email__icontains=text) | Q(user__display_name__icontains=text)
    found = Membership.objects.select_related("user").filter(wanted).order_by("user__email", "pk")
    return [
        Hit(
            icon="user",
            word=one.user.name,
            path=f"/devices?owner={one.user_id}",
            more=one.user.email,
        )
        for one in found[:MAX_PEOPLE]
    ]


def _pages(text: str, membership: Membership) -> list[Hit]:
    return [
        Hit(icon=one.icon, word=one.word, path=one.path)
        for one in sections_for(membership)
        if _fits(text, one.word)
    ]


def _actions(text: str, membership: Membership) -> list[Hit]:
    return [
        Hit(icon=one.icon, word=one.word, path=one.path, sheet=one.sheet)
        for one in ACTIONS
        if _fits(text, one.word) and any(can(membership, need) for need in one.needs)
    ]
