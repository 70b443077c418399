"""The audit log as a page shows it: what a URL asks for, as a value, and an event's change as lines."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from django.db.models import Q, QuerySet
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.actors import Origin
from accounts.models import AuditEvent
from accounts.words import property_word

PAGE_SIZE = 50
MAX_TEXT = 100
MAX_ID_DIGITS = 18
MAX_VALUE = 2000  # characters of one side of a change on the page; an export has all
KINDS: dict[str, str | Promise] = {
    "NODE": _("Devices"),
    "USER": _("People"),
    "USER_INVITE": _("Invitations"),
    "AUTH_KEY": _("Auth keys"),
    "API_KEY": _("API tokens"),
    "OAUTH_CLIENT": _("OAuth clients"),
    "TAILNET": _("Settings"),
    "POLICY_FILE": _("Access controls"),
    "RELAY": _("Relays"),
    "WEBHOOK": _("Webhooks"),
}
ACTIONS: dict[str, str | Promise] = {
    "CREATE": _("Additions"),
    "UPDATE": _("Changes"),
    "DELETE": _("Removals"),
    "APPROVE": _("Approvals"),
    "REVOKE": _("Revocations"),
    "EXPIRE": _("Ended keys"),
    "SUSPEND": _("Suspensions"),
    "RESTORE": _("Restorations"),
    "LOGIN": _("Sign-ins"),
    "LOGOUT": _("Sign-outs"),
}
ORIGINS: dict[str, str | Promise] = {
    Origin.CONSOLE: _("Panel"),
    Origin.API: _("API"),
    Origin.COMMAND: _("Command line"),
    Origin.NODE: _("Device"),
    Origin.CONTROL: _("Server"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Filters as the URL has them; whatever it has wrongly is left out.

    ``since`` and ``until`` are days in UTC, both included. ``before`` is a page's cursor: the id above its
    first event, so that pages stay as they are while events are added.
    """

    text: str = ""
    kind: str = ""
    action: str = ""
    origin: str = ""
    since: date | None = None
    until: date | None = None
    before: int | None = None

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> AuditQuery:
        def choice(name: str, choices: Mapping[str, Any]) -> str:
            value = str(values.get(name, ""))
            return value if value in choices else ""

        return cls(
            text=str(values.get("q", "")).replace("\0", "").strip()[:MAX_TEXT],
            kind=choice("kind", KINDS),
            action=choice("action", ACTIONS),
            origin=choice("origin", ORIGINS),
            since=_day(values.get("since")),
            until=_day(values.get("until")),
            before=parse_id(values.get("before")),
        )

    @property
    def narrows(self) -> bool:
        """Whether it asks for fewer than all events."""
        return bool(self.text or self.kind or self.action or self.origin or self.since or self.until)

    def select(self, events: QuerySet[AuditEvent]) -> QuerySet[AuditEvent]:
        """The events asked for, newest first; the cursor is left to :meth:`page`."""
        chosen = {"target_type": self.kind, "action": self.action, "origin": self.origin}
        events = events.filter(**{name: value for name, value in chosen.items() if value})
        if self.since is not None:
            events = events.filter(event_time__gte=_midnight(self.since))
        if self.until is not None:
            events = events.filter(event_time__lt=_midnight(self.until) + timedelta(days=1))
        return events.filter(_has(self.text)) if self.text else events

    def page(self, events: QuerySet[AuditEvent]) -> tuple[list[AuditEvent], int | None]:
        """The events of this page, and the cursor of the next one (older events), if there are any."""
        chosen = self.select(events)
        if self.before is not None:
            chosen = chosen.filter(pk__lt=self.before)
        found = list(chosen[: PAGE_SIZE + 1])
        return found[:PAGE_SIZE], found[PAGE_SIZE - 1].pk if len(found) > PAGE_SIZE else None


def _has(text: str) -> Q:
    """Events whose actor, target or details name the text."""
    return (
        Q(actor_name__icontains=text)
        | Q(target_name__icontains=text)
        | Q(target_id=text)
        | Q(details__icontains=text)
    )


def _day(value: Any) -> date | None:
    try:
        day = date.fromisoformat(str(value or ""))
    except ValueError:
        return None
    return day if date.min < day < date.max else None


def parse_id(value: Any) -> int | None:
    """An id of events as a URL or form has it; ``None`` for anything else."""
    text = str(value or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS else None


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time.min, UTC)


@dataclass(frozen=True, slots=True)
class ChangeLine:
    """One member of what an event changed; ``None`` = it was, or is, not there."""

    name: str
    old: str | None
    new: str | None


def change_lines(event: AuditEvent) -> list[ChangeLine]:
    """What changed, member by member where both sides are objects; equal members are left out."""
    old, new = event.old, event.new
    if isinstance(old, dict) or isinstance(new, dict):
        before, after = (side if isinstance(side, dict) else {} for side in (old, new))
        names = [*before, *(name for name in after if name not in before)]
        return [
            ChangeLine(name, _shown(before, name), _shown(after, name))
            for name in names
            if before.get(name) != after.get(name)
        ]
    if old is None and new is None:
        return []
    name = property_word(event.target_property)
    return [ChangeLine(name, *(None if side is None else _text(side) for side in (old, new)))]


def _shown(side: dict[str, Any], name: str) -> str | None:
    return _text(side[name]) if name in side else None


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= MAX_VALUE else text[:MAX_VALUE] + "…"
