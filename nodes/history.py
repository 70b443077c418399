"""A device's history as its page shows it: the audit log's events about it, newest first, page by page."""

from __future__ import annotations

from dataclasses import dataclass

from accounts.models import AuditEvent, Membership
from accounts.roles import Capability, can
from accounts.selectors import audit_events
from nodes.models import Node

LENGTH = 12
ICONS = {
    "CREATE": "plus",
    "LOGIN": "login",
    "LOGOUT": "logout",
    "APPROVE": "circle-check",
    "UNAPPROVE": "clock-pause",
    "EXPIRE": "key-off",
    "ROTATE": "refresh",
    "CLONE": "alert-triangle",
    "CLONE_ENDED": "circle-check",
    "MACHINE_NAME": "edit",
    "NODE_KEY": "key",
    "KEY_EXPIRY": "clock",
    "KEY_EXPIRY_TIME": "clock",
    "ACL_TAGS": "tag",
    "ALLOWED_IPS": "route",
    "OFFERED_ROUTES": "route",
    "EXIT_NODE": "world",
    "USED_EXIT_NODE": "world",
    "NOTES": "file-text",
    "SSH_SESSION": "terminal-2",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One event and its icon."""

    event: AuditEvent
    icon: str


@dataclass(frozen=True, slots=True)
class History:
    """Some entries; ``older`` is what to ask for the next ones with, none = these are the first."""

    entries: list[Entry]
    older: int | None


def history_of(node: Node, *, membership: Membership, before: int | None = None) -> History | None:
    """``None`` for those who do not see the log."""
    if not can(membership, Capability.SEE_ALL):
        return None
    events = audit_events().filter(target_type="NODE", target_id=node.stable_id)
    if before is not None:
        events = events.filter(pk__lt=before)
    found = list(events[: LENGTH + 1])
    older = found[LENGTH - 1].pk if len(found) > LENGTH else None
    return History([Entry(event, _icon(event)) for event in found[:LENGTH]], older)


def _icon(event: AuditEvent) -> str:
    return ICONS.get(event.target_property) or ICONS.get(event.action, "history")
