"""Objects as a person may reach them: missing, of another tailnet, and not for them look alike.

Where rights are proved, here and in the modules above: an object that somebody acts on (a device, a key, a
member) comes from an ``access`` module, asked for that act, and is its own proof to a service. A service that
changes what the whole tailnet has (settings, DNS, relays, webhooks) gets no such object: it calls
:func:`require_right` under its lock, so that neither pages nor the API can forget it.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from accounts.actors import Actor
from accounts.errors import Forbidden, NotFound
from accounts.models import ApiToken, Invite, Membership, OAuthClient, User
from accounts.roles import Capability, can, outranks
from accounts.selectors import api_tokens, oauth_clients, open_invites
from accounts.tenancy import memberships_of

NOT_HERE = "there is no such thing, or it is not for you"


def membership_in(*, user: User, tailnet_id: int) -> Membership:
    """A person's usable place in a tailnet (for sockets, forms that bear its id, and the confirm page)."""
    for membership in memberships_of(user.pk):
        if membership.tailnet_id == tailnet_id and membership.is_active:
            return membership
    raise NotFound(NOT_HERE)


def active_memberships(*, user: User) -> list[Membership]:
    """The tailnets that a person may let a device into."""
    return [membership for membership in memberships_of(user.pk) if membership.is_active]


def require(membership: Membership | None, capability: Capability) -> Membership:
    """The membership, if it includes the capability; raises :class:`Forbidden`."""
    if membership is None or not can(membership, capability):
        raise Forbidden("your role does not include this")
    return membership


def require_right(by: Actor, capability: Capability) -> None:
    """Refuse a person whose place in the open scope's tailnet does not include this; commands may all."""
    if by.user is not None:
        require(Membership.objects.filter(user=by.user).first(), capability)


def member_of(*, membership: Membership | None, user_id: Any, manage: bool = False) -> Membership:
    """Another member as this person may see them: everybody with SEE_ALL, else only oneself.

    With ``manage`` they must also be allowed to act on them: :class:`Forbidden` when they only see them.
    """
    # By the person's own column: the foreign key's lookup fails on a number that no column holds.
    found = Membership.objects.select_related("user", "tailnet").filter(user__pk=user_id).first()
    if found is None or membership is None:
        raise NotFound(NOT_HERE)
    if not can(membership, Capability.SEE_ALL) and found.user_id != membership.user_id:
        raise NotFound(NOT_HERE)
    if manage and not may_manage(membership, found.role):
        raise Forbidden("you may act only on people whose role ranks below your own")
    return found


def may_manage(membership: Membership, role: str) -> bool:
    """Whether a person may act on people who have this role, and give it."""
    return can(membership, Capability.MANAGE_USERS) and outranks(membership, role)


def invite_for(*, membership: Membership | None, invite_id: int, manage: bool = True) -> Invite:
    """An open invitation; with ``manage`` one that this person may send again or withdraw."""
    found = open_invites().filter(pk=invite_id).first()
    if found is None or membership is None or not can(membership, Capability.SEE_ALL):
        raise NotFound(NOT_HERE)
    if manage and not may_manage(membership, found.role):
        raise Forbidden("you may act only on invitations to roles below your own")
    return found


def place_of(*, user: User, tailnet_id: int) -> Membership:
    """A person's own place in a tailnet, usable or not."""
    for membership in memberships_of(user.pk):
        if membership.tailnet_id == tailnet_id:
            return membership
    raise NotFound(NOT_HERE)


def visible_tokens(membership: Membership | None) -> QuerySet[ApiToken]:
    """The API tokens that a person sees: all, or those that act as them."""
    if can(membership, Capability.SEE_ALL):
        return api_tokens()
    if membership is not None and membership.is_active:  # also one from before a change of role: to revoke it
        return api_tokens().filter(user_id=membership.user_id)
    return api_tokens().none()


def token_for(*, membership: Membership | None, public_id: str) -> ApiToken:
    """An API token to revoke: one's own, or, with MANAGE_SETTINGS, anybody's."""
    found = visible_tokens(membership).filter(public_id=public_id).first()
    if found is None or membership is None:
        raise NotFound(NOT_HERE)
    if found.user_id != membership.user_id and not can(membership, Capability.MANAGE_SETTINGS):
        raise Forbidden("your role does not include this")
    return found


def visible_clients(membership: Membership | None) -> QuerySet[OAuthClient]:
    """The OAuth clients that a person sees: all or none."""
    return oauth_clients() if can(membership, Capability.SEE_ALL) else oauth_clients().none()


def client_for(*, membership: Membership | None, public_id: str) -> OAuthClient:
    """An OAuth client to revoke."""
    found = visible_clients(membership).filter(public_id=public_id).first()
    if found is None:
        raise NotFound(NOT_HERE)
    require(membership, Capability.MANAGE_SETTINGS)
    return found
