"""Tokens and people as the public API v2 shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from accounts.models import ApiToken


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC to the second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


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
