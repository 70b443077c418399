"""The models of accounts. Tenant models have a ``tailnet``; ``GLOBAL_MODELS`` are those that must not."""

from __future__ import annotations

from accounts.models.contacts import Contact
from accounts.models.people import LOCAL_ISSUER, User
from accounts.models.records import AuditEvent, Lease, Outbox
from accounts.models.secrets import ApiToken, OAuthClient, SignInLink
from accounts.models.tailnets import Invite, Membership, Tailnet

GLOBAL_MODELS: tuple[type, ...] = (User, Tailnet, SignInLink, Lease)

__all__ = [
    "GLOBAL_MODELS",
    "LOCAL_ISSUER",
    "ApiToken",
    "AuditEvent",
    "Contact",
    "Invite",
    "Lease",
    "Membership",
    "OAuthClient",
    "Outbox",
    "SignInLink",
    "Tailnet",
    "User",
]
