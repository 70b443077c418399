"""Who calls the API: a token, the tailnet it is of, and what may be done with it there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from accounts.actors import Actor
from accounts.errors import Forbidden
from accounts.models import ApiToken, Membership, Tailnet
from accounts.roles import Role, can
from accounts.scopes import AREAS, LOGS, READ, C, includes

REFUSED = "this token does not include {scope}"


@dataclass(frozen=True, slots=True)
class Caller:
    """A valid token. ``membership`` is its person's place; an OAuth client's is nobody's (see below)."""

    token: ApiToken
    membership: Membership

    @property
    def tailnet(self) -> Tailnet:
        return self.token.tailnet

    @property
    def is_client(self) -> bool:
        """Whether an OAuth client calls, which acts for the tailnet and for no person."""
        return self.token.user_id is None

    @property
    def actor(self) -> Actor:
        """The author of what is done: the token, or its OAuth client, which lasts longer than an hour."""
        return Actor.token((self.token.oauth_client or self.token).public_id, self.token.user)

    def includes(self, scope: str) -> bool:
        """Whether the token includes a scope, whatever the person's role is."""
        return includes(self.token.scopes, scope)

    def has(self, scope: str) -> bool:
        """Whether the token includes a scope, and the person's role what it stands for."""
        return self.includes(scope) and (self.is_client or _fits(self.membership, scope))

    def need(self, scope: str) -> None:
        """Raises :class:`Forbidden` where :meth:`has` says no."""
        if not self.has(scope):
            raise Forbidden(REFUSED.format(scope=scope))

    def need_to_give(self, scopes: Iterable[str]) -> None:
        """Raises :class:`Forbidden` on scopes that the token itself lacks: it makes nothing mightier."""
        beyond = sorted(one for one in scopes if not self.includes(one))
        if beyond:
            raise Forbidden(REFUSED.format(scope=", ".join(beyond)) + ", so it cannot give it")


def place_of_client(tailnet: Tailnet) -> Membership:
    """Where an OAuth client stands: what its scopes include it may as an admin may. Never saved."""
    return Membership(tailnet=tailnet, role=Role.ADMIN, status=Membership.Status.ACTIVE)


def _fits(membership: Membership, scope: str) -> bool:
    if scope in LOGS:
        return can(membership, C.SEE_ALL)
    area = AREAS[scope.removesuffix(READ)]
    needs = (area.read, area.own_read) if scope.endswith(READ) else (area.write, area.own_write)
    return any(need is not None and can(membership, need) for need in needs)
