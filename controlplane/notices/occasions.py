"""Occasions that webhooks tell of, in the public API's names, read from the audit log's events. Pure.

Every change of a tailnet is an audit event, so this one table says all there is to tell. Names and
categories: the events of the public API's webhooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from nodes.state import NodeState

TEST = "test"
KEY_ENDS_SOON = "nodeKeyExpiringInOneDay"
WAITS = "needs-approval"  # a person's status


@dataclass(frozen=True, slots=True)
class Category:
    """Subscribing to it means all of ``types``, and those that are added to it later."""

    name: str
    word: str | Promise
    types: dict[str, str | Promise]


CATEGORIES: tuple[Category, ...] = (
    Category(
        "categoryTailnetManagement",
        _("Tailnet"),
        {
            "nodeCreated": _("A device joined"),
            "nodeNeedsApproval": _("A device waits for approval"),
            "nodeApproved": _("A device was approved"),
            KEY_ENDS_SOON: _("A device's key ends within a day"),
            "nodeKeyExpired": _("A device's key has ended"),
            "nodeDeleted": _("A device was removed"),
            "userCreated": _("A person joined"),
            "userNeedsApproval": _("A person waits for approval"),
            "userApproved": _("A person was approved"),
            "userRoleUpdated": _("A person has another role"),
            "userSuspended": _("A person was suspended"),
            "userRestored": _("A person was restored"),
            "userDeleted": _("A person was removed"),
            "policyUpdate": _("The access rules changed"),
        },
    ),
    Category(
        "categoryWebhookManagement",
        _("Webhooks"),
        {
            "webhookUpdated": _("A webhook changed"),
            "webhookDeleted": _("A webhook was removed"),
        },
    ),
)
TYPES: dict[str, str | Promise] = {
    name: word for category in CATEGORIES for name, word in category.types.items()
}
SUBSCRIPTIONS = frozenset(TYPES) | {category.name for category in CATEGORIES}
# What the API's clients offer beside those, and what never happens here: taken, kept, and told of nothing.
UNHEARD = frozenset(
    {
        "categoryDeviceMisconfigurations",
        "subnetIPForwardingNotEnabled",
        "exitNodeIPForwardingNotEnabled",
    }
)


def subscription_words(subscriptions: Iterable[str]) -> list[str]:
    """What these stand for, in the reader's language and in the order of the form."""
    chosen = set(subscriptions)
    words: list[str] = []
    for category in CATEGORIES:
        if category.name in chosen:
            words.append(gettext("%(area)s: everything") % {"area": category.word})
        else:
            words += [str(word) for name, word in category.types.items() if name in chosen]
    return words


class Event(Protocol):
    """What is read of an audit event."""

    target_type: str
    target_id: str
    target_name: str
    target_property: str
    action: str
    actor_name: str
    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class Occasion:
    """One thing to tell: its type, a sentence in English, and the members of ``data`` beside the address."""

    type: str
    message: str
    data: dict[str, Any] = field(default_factory=dict)


def wants(subscriptions: list[str], kind: str) -> bool:
    """Whether somebody with these subscriptions is told of a type, by itself or by its category."""
    return kind in subscriptions or any(
        category.name in subscriptions and kind in category.types for category in CATEGORIES
    )


def occasions_of(event: Event) -> Iterator[Occasion]:
    """What an audit event gives occasion to tell; mostly nothing or one thing."""
    match event.target_type:
        case "NODE":
            yield from _of_node(event)
        case "USER":
            yield from _of_person(event)
        case "POLICY_FILE":
            yield Occasion("policyUpdate", "Policy file updated", {"actor": event.actor_name})
        case "WEBHOOK" if event.action in ("UPDATE", "DELETE"):
            kind, word = (
                ("webhookUpdated", "updated") if event.action == "UPDATE" else ("webhookDeleted", "deleted")
            )
            yield Occasion(kind, f"Webhook {event.target_id} {word}", {"actor": event.actor_name})


def _of_node(event: Event) -> Iterator[Occasion]:
    name = event.target_name
    data = {"nodeID": event.target_id, "deviceName": name, "actor": event.actor_name}
    words = {
        "CREATE": ("nodeCreated", f"Node {name} created"),
        "APPROVE": ("nodeApproved", f"Node {name} approved"),
        "EXPIRE": ("nodeKeyExpired", f"Key of node {name} expired"),
        "DELETE": ("nodeDeleted", f"Node {name} deleted"),
    }
    if event.action in words:
        yield Occasion(*words[event.action], data)
    if event.action == "CREATE" and _member(event.new, "state") == NodeState.PENDING.value:
        yield Occasion("nodeNeedsApproval", f"Node {name} needs approval", data)


def _of_person(event: Event) -> Iterator[Occasion]:
    name = event.target_name
    data = {"user": name, "actor": event.actor_name}
    words = {
        "CREATE": ("userCreated", f"User {name} created"),
        "APPROVE": ("userApproved", f"User {name} approved"),
        "SUSPEND": ("userSuspended", f"User {name} suspended"),
        "RESTORE": ("userRestored", f"User {name} restored"),
        "DELETE": ("userDeleted", f"User {name} deleted"),
    }
    if event.action in words:
        yield Occasion(*words[event.action], data)
    if event.action == "CREATE" and _member(event.new, "status") == WAITS:
        yield Occasion("userNeedsApproval", f"User {name} needs approval", data)
    if event.target_property == "ROLE":
        roles = {"oldRoles": [event.old], "newRoles": [event.new]}
        yield Occasion("userRoleUpdated", f"Role of user {name} changed", data | roles)


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None
