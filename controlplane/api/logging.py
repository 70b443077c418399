"""The log of what was changed in the tailnet."""

from __future__ import annotations

from typing import Any

from django.db.models import Q, QuerySet
from rest_framework import serializers

from accounts.api.fields import Moment
from accounts.api.values import Closed, Text, Texts
from accounts.api.views import ApiView, operation
from accounts.describe import describe_audit_event
from accounts.models import AuditEvent
from accounts.selectors import audit_events

VERSION = "1.1"  # of the format
MAX_ENTRIES = 10_000  # of one answer
MAX_FILTERS = 20
MAX_FILTER = 200  # characters
PART = "~"  # begins a part of an actor's name


class Filters(Texts):
    """Any of these."""

    def __init__(self, **options: Any) -> None:
        child = Text(max_length=MAX_FILTER, allow_blank=False)
        own = {"child": child, "required": False, "allow_null": False, "max_length": MAX_FILTERS}
        super().__init__(**(own | options))


class AuditQuery(Closed):
    """Which entries."""

    start = Moment(help_text="The moment from which on, RFC 3339.")
    end = Moment(help_text="The moment up to which, RFC 3339.")
    actor = Filters(help_text="By whom: an id, or a part of a login name after ~.")
    target = Filters(help_text="Of what: an id, or a part of its name.")
    event = Filters(help_text="What happened, such as NODE, NODE.CREATE or TAILNET.UPDATE.DNS_NAMESERVERS.")


class AuditActor(Closed):
    """Who did it."""

    id = Text()
    type = Text(help_text="USER, NODE, API_TOKEN, or AUTOMATED_WORKER for commands and the server itself.")
    displayName = Text()
    loginName = Text(required=False, help_text="Of a person, and of the person whose token it was.")


class AuditTarget(Closed):
    """What it was done to."""

    id = Text()
    name = Text()
    type = Text()
    property = Text(required=False, help_text="What of it.")


class AuditEntry(Closed):
    """One change."""

    eventTime = serializers.DateTimeField()
    type = Text(help_text="CONFIG")
    eventGroupID = Text(help_text="The entry's own: the digest by which the log is chained.")
    origin = Text(help_text="By which way: ADMIN_CONSOLE, API, CLI, NODE or CONTROL.")
    actor = AuditActor()
    target = AuditTarget()
    action = Text()
    old = serializers.JSONField(required=False, help_text="What it was.")
    new = serializers.JSONField(required=False, help_text="What it is now.")
    actionDetails = Text(required=False)


class AuditLog(Closed):
    """Changes of a tailnet, oldest first."""

    version = Text()
    tailnet = Text()
    logs = serializers.ListField(child=AuditEntry())


def chosen(events: QuerySet[AuditEvent], query: dict[str, Any]) -> QuerySet[AuditEvent]:
    """The events that a query asks for."""
    events = events.filter(event_time__gte=query["start"], event_time__lte=query["end"])
    for name, condition in (("actor", _by), ("target", _of), ("event", _named)):
        wanted = Q()
        for text in query.get(name, ()):
            wanted |= condition(text)
        events = events.filter(wanted)
    return events


def _by(text: str) -> Q:
    return Q(actor_name__icontains=text[1:]) if text.startswith(PART) else Q(actor_id=text)


def _of(text: str) -> Q:
    return Q(target_id=text) | Q(target_name__icontains=text)


def _named(text: str) -> Q:
    names = ("target_type", "action", "target_property")
    return Q(**dict(zip(names, text.split(".", 2), strict=False)))


class ConfigurationLogView(ApiView):
    """``/tailnet/{tailnet}/logging/configuration``"""

    @operation(
        "listConfigurationAuditLogs",
        about="Get the log of changes",
        scope="logs:configuration:read",
        query=AuditQuery,
        answer=AuditLog,
    )
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """Oldest first. Of a time with more than 10,000 entries the newest of them: ask for shorter times."""
        newest = chosen(audit_events(), query)[:MAX_ENTRIES]
        entries = [describe_audit_event(event) for event in newest]
        return {"version": VERSION, "tailnet": self.caller.tailnet.name, "logs": entries[::-1]}
