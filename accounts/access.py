"""Objects as a person may reach them: missing, of another tailnet, and not for them look alike."""

from __future__ import annotations

from typing import Any

from accounts.errors import Forbidden, NotFound
from accounts.models import Membership, User
from accounts.roles import Capability, can
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


def member_of(*, membership: Membership | None, user_id: Any) -> Membership:
    """Another member as this person may see them: everybody with SEE_ALL, else only oneself."""
    found = Membership.objects.select_related("user", "tailnet").filter(user_id=user_id).first()
    if found is None or membership is None:
        raise NotFound(NOT_HERE)
    if not can(membership, Capability.SEE_ALL) and found.user_id != membership.user_id:
        raise NotFound(NOT_HERE)
    return found
