"""Invitations of people. Of a link only the digest is kept: it is shown when it is made, and never again."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from accounts.access import invite_for, may_manage
from accounts.api.fields import Email
from accounts.api.values import Choice, Closed, Number, Text
from accounts.api.views import ApiView, operation
from accounts.describe import describe_invite
from accounts.errors import Conflict, Forbidden, NotFound
from accounts.models import Invite
from accounts.roles import Role
from accounts.selectors import open_invites
from accounts.services import invites
from accounts.services.invites import NewInvite, when_mailed

MAX_AT_ONCE = 100
MAX_DIGITS = 18  # of an id; more fit in no column
GIVEN = [role.value for role in Role if role is not Role.OWNER]  # ownership is transferred, not given


class UserInvite(Closed):
    """An invitation that nobody has accepted yet."""

    id = Text()
    role = Choice(choices=GIVEN)
    tailnetId = Number()
    email = Text(required=False, help_text="Whom it is for, though whoever opens the link joins.")
    inviterId = Number(required=False, help_text="Who invites; absent when no person does.")
    lastEmailSentAt = serializers.DateTimeField(required=False, help_text="When its mail went out.")
    inviteUrl = Text(required=False, help_text="The link: only when it was made just now.")


class NewUserInvite(Closed):
    """Whom to invite, as what."""

    email = Email(
        required=False,
        help_text="Where the mail with the link goes; without it the link is yours to pass on.",
    )
    role = Choice(choices=GIVEN, default=Role.MEMBER.value)


class NewUserInvites(serializers.ListSerializer[Any]):
    """Some people to invite."""

    child = NewUserInvite()

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, list) and len(data) > MAX_AT_ONCE:
            raise Conflict(f"at most {MAX_AT_ONCE} people are invited at once")
        return super().to_internal_value(data)


def _made(made: NewInvite) -> dict[str, Any]:
    return describe_invite(made.invite, link=made.link)


class InvitesView(ApiView):
    """``/tailnet/{tailnet}/user-invites``"""

    @operation(
        "listUserInvites",
        about="List open invitations",
        scope="users:read",
        answer=UserInvite(many=True),
    )
    def get(self) -> list[dict[str, Any]]:
        mailed = when_mailed()
        return [describe_invite(one, mailed_at=mailed.get(one.pk)) for one in open_invites()]

    @operation(
        "createUserInvites",
        about="Invite people",
        scope="users",
        body=NewUserInvites,
        answer=UserInvite(many=True),
        example=[{"email": "ana@example.com", "role": "member"}],
    )
    def post(self, body: list[dict[str, str]]) -> list[dict[str, Any]]:
        for wanted in body:
            if not may_manage(self.caller.membership, wanted["role"]):
                raise Forbidden("you may invite only to roles that rank below your own")
        made = invites.create_invites(
            tailnet=self.caller.tailnet,
            wanted=[(wanted.get("email", ""), wanted["role"]) for wanted in body],
            by=self.caller.actor,
        )
        return [_made(one) for one in made]


class _OneInvite(ApiView):
    def found(self, text: str, *, manage: bool = True) -> Invite:
        if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
            raise NotFound("there is no such invitation, or it is not for you")
        return invite_for(membership=self.caller.membership, invite_id=int(text), manage=manage)


class InviteView(_OneInvite):
    """``/user-invites/{invite_id}``"""

    @operation("getUserInvite", about="Get an invitation", scope="users:read", answer=UserInvite)
    def get(self, invite_id: str) -> dict[str, Any]:
        found = self.found(invite_id, manage=False)
        return describe_invite(found, mailed_at=when_mailed().get(found.pk))

    @operation("deleteUserInvite", about="Withdraw an invitation", scope="users")
    def delete(self, invite_id: str) -> dict[str, Any]:
        invites.revoke_invite(invite=self.found(invite_id), by=self.caller.actor)
        return {}


class ResendView(_OneInvite):
    """``/user-invites/{invite_id}/resend``"""

    @operation(
        "resendUserInvite",
        about="Send an invitation again, with a new link",
        scope="users",
        answer=UserInvite,
    )
    def post(self, invite_id: str) -> dict[str, Any]:
        return _made(invites.renew_invite(invite=self.found(invite_id), by=self.caller.actor))
