"""Tokens and people as the public API v2 shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from accounts.actors import ActorType
from accounts.models import ApiToken, AuditEvent, Contact, Invite, OAuthClient


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def describe_contact(contact: Contact | None, owner: str) -> dict[str, Any]:
    """An API v2 Contact; ``owner`` is the address that counts where there is no other."""
    if contact is None:
        return {"email": owner, "needsVerification": False}
    described: dict[str, Any] = {"email": contact.email, "needsVerification": contact.needs_verification}
    if contact.needs_verification:
        described["fallbackEmail"] = contact.verified_email or owner
    return described


def describe_audit_event(event: AuditEvent) -> dict[str, Any]:
    """An API v2 entry of the configuration log. What the event does not say is left out."""
    described: dict[str, Any] = {
        "eventTime": event.event_time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "type": "CONFIG",
        "eventGroupID": event.digest,
        "origin": event.origin,
        "actor": {
            "id": event.actor_id or event.actor_name,
            "type": event.actor_type,
            "displayName": event.actor_name or event.actor_id,
        },
        "target": {"id": event.target_id, "name": event.target_name, "type": event.target_type},
        "action": event.action,
    }
    # A token's actor bears the login of its person, an OAuth client's its own id.
    if event.actor_type in (ActorType.USER, ActorType.CREDENTIAL) and event.actor_name != event.actor_id:
        described["actor"]["loginName"] = event.actor_name
    if event.target_property:
        described["target"]["property"] = event.target_property
    if event.details:
        described["actionDetails"] = event.details
    return described | {
        name: value for name, value in (("old", event.old), ("new", event.new)) if value is not None
    }


def describe_api_token(token: ApiToken, *, now: datetime, secret: str | None = None) -> dict[str, Any]:
    """An API v2 Key of type api; ``secret`` is given once, when it was made. Absent times are left out."""
    described: dict[str, Any] = {
        "id": token.public_id,
        "keyType": "api",
        "description": token.description,
        "created": timestamp(token.created),
        "scopes": token.scopes,
        "invalid": token.revoked_at is not None or (token.expires is not None and token.expires <= now),
    }
    if token.expires is not None:
        described["expires"] = timestamp(token.expires)
        described["expirySeconds"] = int((token.expires - token.created).total_seconds())
    if token.revoked_at is not None:
        described["revoked"] = timestamp(token.revoked_at)
    if token.user_id is not None:
        described["userId"] = str(token.user_id)
    if token.tags:
        described["tags"] = token.tags
    if secret is not None:
        described["key"] = secret
    return described


def describe_oauth_client(client: OAuthClient, *, secret: str | None = None) -> dict[str, Any]:
    """An API v2 Key of type client; ``secret`` is given once, when it was made."""
    described: dict[str, Any] = {
        "id": client.public_id,
        "keyType": "client",
        "description": client.description,
        "created": timestamp(client.created),
        "updated": timestamp(client.updated),
        "scopes": client.scopes,
        "tags": client.tags,
        "invalid": client.revoked_at is not None,
    }
    if client.created_by_id is not None:
        described["userId"] = str(client.created_by_id)
    if secret is not None:
        described["key"] = secret
    return described


def describe_invite(
    invite: Invite, *, mailed_at: datetime | None = None, link: str | None = None
) -> dict[str, Any]:
    """An API v2 UserInvite; ``link`` is given once, when it was made or sent again."""
    described: dict[str, Any] = {
        "id": str(invite.pk),
        "role": invite.role,
        "tailnetId": invite.tailnet_id,
    }
    if invite.email:
        described["email"] = invite.email
    if invite.invited_by_id is not None:
        described["inviterId"] = invite.invited_by_id
    if mailed_at is not None:
        described["lastEmailSentAt"] = timestamp(mailed_at)
    if link is not None:
        described["inviteUrl"] = link
    return described
