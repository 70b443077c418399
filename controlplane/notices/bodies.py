"""The bytes of a webhook delivery, and their signature. Pure.

Format: a JSON list of events, signed in ``Tailscale-Webhook-Signature: t=UNIX,v1=HEX`` with HMAC-SHA256 of
``UNIX.BODY``; chat services get their own form of a message, which nobody signs.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

SIGNATURE_HEADER = "Tailscale-Webhook-Signature"
EVENT_VERSION = 1
# The member that each chat service takes a message's text from.
CHATS = {"slack": "text", "mattermost": "text", "googlechat": "text", "discord": "content"}
MAX_CHAT_TEXT = 1900  # characters; Discord takes 2,000


@dataclass(frozen=True, slots=True)
class Delivery:
    """One request: its body and headers."""

    body: bytes
    headers: dict[str, str]


def event_of(*, kind: str, tailnet: str, message: str, data: dict[str, Any], at: datetime) -> dict[str, Any]:
    """One event as receivers get it."""
    return {
        "timestamp": at.astimezone(UTC).isoformat().replace("+00:00", "Z"),
        "version": EVENT_VERSION,
        "type": kind,
        "tailnet": tailnet,
        "message": message,
        "data": data,
    }


def sign(secret: str, body: bytes, at: datetime) -> str:
    """The signature header's value."""
    moment = str(int(at.timestamp()))
    digest = hmac.new(secret.encode(), moment.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={moment},v1={digest}"


def delivery(events: list[dict[str, Any]], *, provider: str, secret: str, at: datetime) -> Delivery:
    """The request that tells of these events."""
    headers = {"Content-Type": "application/json", "User-Agent": "Trenza"}
    if provider in CHATS:
        body = json.dumps({CHATS[provider]: _sentences(events)}, ensure_ascii=False).encode()
        return Delivery(body, headers)
    body = json.dumps(events, ensure_ascii=False).encode()
    return Delivery(body, headers | {SIGNATURE_HEADER: sign(secret, body, at)})


def _sentences(events: list[dict[str, Any]]) -> str:
    lines = []
    for event in events:
        url = event["data"].get("url", "")
        lines.append(f"[{event['tailnet']}] {event['message']}{f' {url}' if url else ''}")
    return "\n".join(lines)[:MAX_CHAT_TEXT]
