"""People as the public API v2 shows them."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from accounts.describe import timestamp
from accounts.models import Membership

USER_STATUSES = ("active", "idle", "suspended", "needs-approval")
IDLE_AFTER = timedelta(days=28)


def describe_user(
    place: Membership, *, devices: int, online: bool, seen: datetime | None, now: datetime
) -> dict[str, Any]:
    """An API v2 User; ``lastSeen`` is absent for somebody whom nobody has ever seen."""
    seen = now if online else seen
    described: dict[str, Any] = {
        "id": str(place.user_id),
        "displayName": place.user.name,
        "loginName": place.user.login_name,
        "profilePicUrl": place.user.picture_url,
        "tailnetId": str(place.tailnet_id),
        "created": timestamp(place.created),
        "type": "member",
        "role": place.role,
        "status": _user_status(place, seen or place.created, now),
        "deviceCount": devices,
        "currentlyConnected": online,
    }
    if seen is not None:
        described["lastSeen"] = timestamp(seen)
    return described


def _user_status(place: Membership, seen: datetime, now: datetime) -> str:
    if not place.user.is_active:
        return Membership.Status.SUSPENDED.value
    if place.is_active and now - seen > IDLE_AFTER:
        return "idle"
    return str(place.status)
