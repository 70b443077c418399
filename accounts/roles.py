"""Who may do what: one literal table, the same as in the documentation."""

from __future__ import annotations

from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    """A person's role in a tailnet; the values are those of the public API."""

    OWNER = "owner"
    ADMIN = "admin"
    IT_ADMIN = "it-admin"
    NETWORK_ADMIN = "network-admin"
    AUDITOR = "auditor"
    BILLING_ADMIN = "billing-admin"
    MEMBER = "member"


class Capability(StrEnum):
    """Something a person may do in a tailnet. ``*_OWN_*`` concerns their own devices and keys only."""

    SEE_ALL = "see-all"  # devices, users, settings, logs
    SEE_OWN_DEVICES = "see-own-devices"
    MANAGE_DEVICES = "manage-devices"  # approve, rename, expire, delete; set a device's exit node
    MANAGE_OWN_DEVICES = "manage-own-devices"  # rename, expire, remove
    MANAGE_NETWORK = "manage-network"  # routes, exit nodes, DNS, policy
    CREATE_KEYS = "create-keys"
    CREATE_OWN_KEYS = "create-own-keys"  # untagged
    CREATE_TAGGED_KEYS = "create-tagged-keys"
    MANAGE_USERS = "manage-users"  # approve, invite, roles below own, suspend
    MANAGE_SETTINGS = "manage-settings"  # settings, contacts, webhooks, OAuth clients
    MANAGE_RELAYS = "manage-relays"  # the tailnet's own
    OWN_TAILNET = "own-tailnet"  # transfer or delete it


C = Capability
OWN = frozenset({C.SEE_OWN_DEVICES, C.MANAGE_OWN_DEVICES, C.CREATE_OWN_KEYS})

# fmt: off
TABLE: dict[Role, frozenset[Capability]] = {
    Role.OWNER: OWN | {C.SEE_ALL, C.MANAGE_DEVICES, C.MANAGE_NETWORK, C.CREATE_KEYS, C.CREATE_TAGGED_KEYS,
                       C.MANAGE_USERS, C.MANAGE_SETTINGS, C.MANAGE_RELAYS, C.OWN_TAILNET},
    Role.ADMIN: OWN | {C.SEE_ALL, C.MANAGE_DEVICES, C.MANAGE_NETWORK, C.CREATE_KEYS, C.CREATE_TAGGED_KEYS,
                       C.MANAGE_USERS, C.MANAGE_SETTINGS, C.MANAGE_RELAYS},
    Role.IT_ADMIN: OWN | {C.SEE_ALL, C.MANAGE_DEVICES, C.CREATE_KEYS, C.MANAGE_USERS, C.MANAGE_SETTINGS},
    Role.NETWORK_ADMIN: frozenset({C.SEE_ALL, C.SEE_OWN_DEVICES, C.MANAGE_NETWORK, C.CREATE_KEYS,
                                   C.CREATE_OWN_KEYS, C.MANAGE_RELAYS}),
    Role.AUDITOR: frozenset({C.SEE_ALL, C.SEE_OWN_DEVICES}),
    Role.BILLING_ADMIN: frozenset(),
    Role.MEMBER: OWN,
}
# fmt: on

# Whom a person with MANAGE_USERS may act on and which roles they may give: those that rank below their own.
RANK: dict[Role, int] = {
    Role.OWNER: 3,
    Role.ADMIN: 2,
    Role.IT_ADMIN: 1,
    Role.NETWORK_ADMIN: 1,
    Role.AUDITOR: 0,
    Role.BILLING_ADMIN: 0,
    Role.MEMBER: 0,
}


class HasRole(Protocol):
    """What :func:`can` reads of a membership."""

    @property
    def role(self) -> str: ...

    @property
    def is_active(self) -> bool: ...


def can(membership: HasRole | None, capability: Capability) -> bool:
    """Whether a membership includes a capability; an inactive one or none includes nothing."""
    return membership is not None and membership.is_active and capability in TABLE[Role(membership.role)]


def outranks(actor: HasRole, role: str) -> bool:
    """Whether ``actor`` may act on people who have ``role`` (and give it)."""
    return RANK[Role(actor.role)] > RANK[Role(role)]
