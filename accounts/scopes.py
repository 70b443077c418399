"""Scopes of the public API: which there are, and which of them a role can give to a token or a client.

A token acts as the person who made it, so that what concerns their own devices and keys counts. An OAuth
client acts for the tailnet: nobody may give it more than their role lets them do to everybody's.
Source of the names: https://tailscale.com/kb/1623/trust-credentials#scopes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from accounts.models import Membership
from accounts.roles import TABLE, Capability, Role, can

ALL = "all"
READ = ":read"
LOGS = ("logs:configuration:read", "logs:network:read")  # what happens here, who talks to whom

C = Capability


@dataclass(frozen=True, slots=True)
class Area:
    """What one area of the API needs of a role: to write, to read; and the same for one's own alone."""

    write: Capability
    read: Capability = C.SEE_ALL
    own_write: Capability | None = None
    own_read: Capability | None = None


AREAS: dict[str, Area] = {
    "devices:core": Area(C.MANAGE_DEVICES, C.SEE_ALL, C.MANAGE_OWN_DEVICES, C.SEE_OWN_DEVICES),
    "devices:routes": Area(C.MANAGE_NETWORK, C.SEE_ALL, None, C.SEE_OWN_DEVICES),
    "devices:posture_attributes": Area(C.MANAGE_DEVICES),
    "users": Area(C.MANAGE_USERS),
    "policy_file": Area(C.MANAGE_NETWORK),
    "dns": Area(C.MANAGE_NETWORK),
    "auth_keys": Area(C.CREATE_KEYS, C.SEE_ALL, C.CREATE_OWN_KEYS, C.CREATE_OWN_KEYS),
    "api_access_tokens": Area(C.MANAGE_SETTINGS, C.SEE_ALL, C.CREATE_OWN_KEYS, C.CREATE_OWN_KEYS),
    "oauth_keys": Area(C.MANAGE_SETTINGS),
    "federated_keys": Area(C.MANAGE_SETTINGS),
    "feature_settings": Area(C.MANAGE_SETTINGS),
    "account_settings": Area(C.MANAGE_SETTINGS),
    "services": Area(C.MANAGE_NETWORK),
    "log_streaming": Area(C.MANAGE_SETTINGS),
}
SCOPES = frozenset({ALL, ALL + READ, *AREAS, *(area + READ for area in AREAS), *LOGS})
# What a client with the scope "all" could do.
EVERYTHING = frozenset(C) - {C.OWN_TAILNET}


def includes(scopes: Iterable[str], wanted: str) -> bool:
    """Whether these scopes have another: ``all`` has everything, and to change includes to read."""
    area = wanted.removesuffix(READ)
    having = {ALL, area} if area == wanted else {ALL, ALL + READ, area, wanted}
    return not having.isdisjoint(scopes)


def common(some: Sequence[str], others: Sequence[str]) -> list[str]:
    """What two lists of scopes both include, in as few scopes as say it."""
    both = {one for one in SCOPES if includes(some, one) and includes(others, one)}
    return sorted(one for one in both if not includes(both - {one}, one))


def may_make_tokens(membership: Membership | None) -> bool:
    """Whether a person may have API tokens: those who may have auth keys."""
    return can(membership, Capability.CREATE_KEYS) or can(membership, Capability.CREATE_OWN_KEYS)


def scopes_of(membership: Membership, *, own: bool) -> Sequence[str]:
    """The scopes that this person may give, in the order of forms; ``own`` = to a token that acts as them."""
    if not membership.is_active:
        return ()
    has = TABLE[Role(membership.role)]

    def fits(scope: str) -> bool:
        if scope in LOGS:
            return C.SEE_ALL in has
        if scope in (ALL, ALL + READ):
            everything = EVERYTHING if scope == ALL else {C.SEE_ALL}
            return own or has >= everything
        area = AREAS[scope.removesuffix(READ)]
        reads = scope.endswith(READ)
        needs = {area.read if reads else area.write}
        if own:
            needs.add((area.own_read if reads else area.own_write) or area.write)
        return bool(needs & has)

    return [one for one in ORDER if fits(one)]


ORDER = (ALL, ALL + READ, *(scope for area in AREAS for scope in (area + READ, area)), *LOGS)
