"""The people of a tailnet, and what may be done to them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.utils import timezone
from rest_framework import serializers

from accounts.access import NOT_HERE, may_manage, member_of
from accounts.api.fields import Matching, beyond_the_schema
from accounts.api.values import Choice, Closed, Flag, Number, Text, Texts
from accounts.api.views import ApiView, operation
from accounts.errors import Forbidden, NotFound
from accounts.groups import MAX_GROUPS, MAX_NAME
from accounts.models import Membership
from accounts.roles import Role
from accounts.selectors import members
from accounts.services.groups import set_groups
from nodes.describe_people import USER_STATUSES, describe_user
from nodes.people import Facts, facts_of
from nodes.services.members import PersonAction, act_on_person

ROLES = [role.value for role in Role]
EVERY, MEMBER, SHARED = "all", "member", "shared"
MAX_DIGITS = 18  # of an id; more fit in no column
GROUP = r"^group:[!-~]([ -~]*[!-~])?$"  # in ASCII: a provider may have others


class User(Closed):
    """A person of the tailnet."""

    id = Text()
    displayName = Text()
    loginName = Text()
    profilePicUrl = Text()
    tailnetId = Text()
    created = serializers.DateTimeField(help_text="When they joined.")
    type = Choice(choices=[MEMBER, SHARED])
    role = Choice(choices=ROLES)
    status = Choice(choices=list(USER_STATUSES), help_text="idle: not seen for 28 days.")
    deviceCount = Number(min_value=0)
    lastSeen = serializers.DateTimeField(required=False, help_text="Absent when they never were.")
    currentlyConnected = Flag(help_text="Whether one of their devices is connected.")


class UserList(Closed):
    """People, by address."""

    users = User(many=True)


class UserQuery(Closed):
    """Which people."""

    type = Choice(
        choices=[MEMBER, SHARED, EVERY],
        default=MEMBER,
        help_text="Nobody is shared here: only member and all find people.",
    )
    role = Choice(choices=[*ROLES, EVERY], default=EVERY, help_text="Only people with this role.")


class NewRole(Closed):
    """What somebody shall be."""

    role = Choice(choices=ROLES, help_text="One that ranks below the caller's own.")


class Groups(Closed):
    """Which groups access rules know somebody by."""

    groups = Texts(allow_null=False, help_text="Those that were given in this tailnet.")
    providerGroups = Texts(
        allow_null=False, help_text="Those that the person's identity provider told at their last sign-in."
    )


class NewGroups(Closed):
    """In which groups somebody shall be, beside those of their identity provider."""

    groups = Texts(
        child=Matching(GROUP, "group:engineering", max_length=MAX_NAME),
        max_length=MAX_GROUPS,
        help_text="As access rules name them.",
    )


def _described(person: Membership, facts: Facts, now: datetime) -> dict[str, Any]:
    seen = facts.seen if facts.is_known else None
    return describe_user(person, devices=facts.devices, online=facts.online, seen=seen, now=now)


class UsersView(ApiView):
    """``/tailnet/{tailnet}/users``"""

    @operation("listUsers", about="List people", scope="users:read", query=UserQuery, answer=UserList)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        if query["type"] == SHARED:
            return {"users": []}
        now, found = timezone.now(), members()
        people = list(found if query["role"] == EVERY else found.filter(role=query["role"]))
        facts = facts_of(people, now)
        return {"users": [_described(one, facts[one.user_id], now) for one in people]}


class _OneUser(ApiView):
    def found(self, text: str, *, manage: bool = False) -> Membership:
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            raise NotFound(NOT_HERE)
        return member_of(membership=self.caller.membership, user_id=int(text), manage=manage)

    def act(self, user_id: str, action: PersonAction, role: str = "") -> dict[str, Any]:
        """Nobody acts on who ranks as high as they do: so neither on themselves."""
        person = self.found(user_id, manage=True)
        act_on_person(action=action, person=person, by=self.caller.actor, role=role)
        return {}


class UserView(_OneUser):
    """``/users/{user_id}``"""

    @operation("getUser", about="Get a person", scope="users:read", answer=User)
    def get(self, user_id: str) -> dict[str, Any]:
        now, person = timezone.now(), self.found(user_id)
        return _described(person, facts_of([person], now)[person.user_id], now)


class RoleView(_OneUser):
    """``/users/{user_id}/role``"""

    @operation(
        "updateUserRole",
        about="Give a person another role",
        scope="users",
        body=NewRole,
        example={"role": "network-admin"},
    )
    def post(self, user_id: str, body: dict[str, Any]) -> dict[str, Any]:
        if body["role"] != Role.OWNER and not may_manage(self.caller.membership, body["role"]):
            raise Forbidden("you may give only roles that rank below your own")
        return self.act(user_id, PersonAction.ROLE, body["role"])


class ApproveView(_OneUser):
    """``/users/{user_id}/approve``"""

    @operation("approveUser", about="Let a person in who waits for approval", scope="users")
    def post(self, user_id: str) -> dict[str, Any]:
        return self.act(user_id, PersonAction.APPROVE)


class SuspendView(_OneUser):
    """``/users/{user_id}/suspend``"""

    @operation("suspendUser", about="Cut a person and their devices off", scope="users")
    def post(self, user_id: str) -> dict[str, Any]:
        return self.act(user_id, PersonAction.SUSPEND)


class RestoreView(_OneUser):
    """``/users/{user_id}/restore``"""

    @operation("restoreUser", about="Undo a suspension", scope="users")
    def post(self, user_id: str) -> dict[str, Any]:
        return self.act(user_id, PersonAction.RESTORE)


class DeleteView(_OneUser):
    """``/users/{user_id}/delete``"""

    @operation("deleteUser", about="Remove a person, with their devices, keys and tokens", scope="users")
    def post(self, user_id: str) -> dict[str, Any]:
        return self.act(user_id, PersonAction.DELETE)


class GroupsView(_OneUser):
    """``/api/trenza/v1/users/{user_id}/groups``"""

    @operation("getUserGroups", about="Get a person's groups", scope="users:read", answer=Groups)
    def get(self, user_id: str) -> dict[str, Any]:
        return _groups(self.found(user_id))

    @operation(
        "setUserGroups",
        about="Put a person into groups",
        scope="users",
        body=NewGroups,
        answer=Groups,
        example={"groups": ["group:engineering", "group:on-call"]},
    )
    def put(self, user_id: str, body: dict[str, Any]) -> dict[str, Any]:
        """Replaces the groups that they were given in this tailnet; access rules count with it at once.
        Whoever may write the rules may do it to everybody, others to whoever ranks below them.
        """
        with beyond_the_schema():
            person = set_groups(
                membership=self.found(user_id), groups=body["groups"] or [], by=self.caller.actor
            )
        return _groups(person)


def _groups(person: Membership) -> dict[str, Any]:
    return {"groups": person.groups, "providerGroups": person.user.groups}
