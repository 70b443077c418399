"""The queue of what waits for somebody's decision, and deciding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.validators import RegexValidator

from accounts.api.callers import Caller
from accounts.api.values import Choice, Closed, Flag, Number, Text, Texts
from accounts.api.views import ApiView, operation
from accounts.describe import timestamp
from accounts.errors import Forbidden
from accounts.models import Tailnet
from accounts.scopes import READ
from controlplane.api.briefly import DeviceBrief, PersonBrief, describe_briefly, describe_person
from nodes.approvals import (
    KINDS,
    MAX_PICKED,
    Entry,
    Kind,
    count_waiting,
    entries,
    find_all,
    load,
    may_decide,
    parse_refs,
)
from nodes.services.approvals import decide

ITEM = r"\A(device|person|route|exit-node)-[0-9]{1,18}\Z"
# What deciding about each kind needs; to see it, the same to read.
SCOPES: Mapping[Kind, str] = {
    Kind.DEVICE: "devices:core",
    Kind.PERSON: "users",
    Kind.ROUTE: "devices:routes",
    Kind.EXIT_NODE: "devices:routes",
}
WRITES = tuple(dict.fromkeys(SCOPES.values()))
READS = tuple(scope + READ for scope in WRITES)


class QueueQuery(Closed):
    """What of the queue is asked for."""

    kind = Choice(choices=[kind.value for kind in Kind], required=False, help_text="Of this kind alone.")


class Waiting(Closed):
    """Something that waits. What it is about is in the member of that name."""

    item = Text(help_text="Names it where one decides.")
    kind = Choice(choices=[kind.value for kind in Kind])
    since = Text(help_text="Since when it waits.")
    mayDecide = Flag(help_text="Whether this token's person or client may decide about it.")
    device = DeviceBrief(required=False, help_text="The device, or the one that offers the route.")
    user = PersonBrief(required=False, help_text="Who asks to join.")
    route = Text(required=False, help_text="The prefix that is offered.")


class Queue(Closed):
    """What waits, the oldest first, and how much there is in all."""

    total = Number(help_text="How much waits, as far as this token sees it.")
    items = Waiting(many=True, help_text=f"The oldest {MAX_PICKED}.")


class Decision(Closed):
    """What is decided about."""

    items = Texts(
        child=Text(
            allow_blank=False, max_length=40, validators=[RegexValidator(ITEM, "is no item of the queue")]
        ),
        min_length=1,
        max_length=MAX_PICKED,
        allow_null=False,
        help_text="As the queue names them.",
    )


class Decided(Closed):
    """What came of it."""

    done = Texts(allow_null=False, help_text="What was decided about.")
    left = Texts(allow_null=False, help_text="What does not wait, or could not be changed.")


def describe_waiting(entry: Entry, tailnet: Tailnet) -> dict[str, Any]:
    """A Waiting."""
    waiting: dict[str, Any] = {
        "item": str(entry.ref),
        "kind": entry.kind,
        "since": timestamp(entry.since),
        "mayDecide": entry.may,
    }
    if entry.node is not None:
        waiting["device"] = describe_briefly(entry.node, tailnet)
    if entry.person is not None:
        waiting["user"] = describe_person(entry.person.user)
    if entry.prefix:
        waiting["route"] = entry.prefix
    return waiting


class QueueView(ApiView):
    """``/tailnet/{tailnet}/approvals``"""

    @operation("listApprovals", about="List what waits", any_of=READS, query=QueueQuery, answer=Queue)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """Devices, people, routes and exit nodes that wait, as far as the token may see them."""
        caller, wanted = self.caller, KINDS.get(query.get("kind", ""))
        if wanted is not None:
            caller.need(SCOPES[wanted] + READ)
        kinds = [wanted] if wanted else [kind for kind in Kind if caller.has(SCOPES[kind] + READ)]
        rows = load(list(entries(caller.membership, kinds)[:MAX_PICKED]), caller.membership)
        return {
            "total": sum(count_waiting(caller.membership, kinds).values()),
            "items": [describe_waiting(row, caller.tailnet) for row in rows],
        }


class ApproveView(ApiView):
    """``/tailnet/{tailnet}/approvals/approve``"""

    @operation(
        "approveItems",
        about="Approve what waits",
        any_of=WRITES,
        body=Decision,
        answer=Decided,
        example={"items": ["device-12", "route-7"]},
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Lets devices and people in, and has devices carry what they offer."""
        return _decide(self.caller, body["items"], approved=True)


class DeclineView(ApiView):
    """``/tailnet/{tailnet}/approvals/decline``"""

    @operation(
        "declineItems",
        about="Decline what waits",
        any_of=WRITES,
        body=Decision,
        answer=Decided,
        example={"items": ["person-3"]},
    )
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Removes devices and people that wait; an offer that was declined may be approved later."""
        return _decide(self.caller, body["items"], approved=False)


def _decide(caller: Caller, items: list[str], *, approved: bool) -> dict[str, Any]:
    refs = parse_refs(items)
    for kind in {ref.kind for ref in refs}:
        caller.need(SCOPES[kind])
    found = find_all(refs, caller.membership)
    for ref, subject in found.items():
        if not may_decide(subject, caller.membership):
            raise Forbidden(f"this token's role does not include deciding about {ref}")
    done = decide(tailnet=caller.tailnet, subjects=list(found.values()), approved=approved, by=caller.actor)
    named = {str(ref) for ref, was_done in zip(found, done, strict=True) if was_done}
    return {
        "done": [str(ref) for ref in refs if str(ref) in named],
        "left": [str(ref) for ref in refs if str(ref) not in named],
    }
