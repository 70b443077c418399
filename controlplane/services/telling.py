"""What webhooks are told: noted in the Outbox in the transaction of what happened, and sent from there."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from accounts.models import AuditEvent, Outbox, Tailnet
from accounts.services.outbox import DeliveryFailed, DeliveryRefused, enqueue, enqueue_all
from controlplane.models import Webhook
from controlplane.notices.bodies import delivery, event_of
from controlplane.notices.occasions import KEY_ENDS_SOON, Occasion, occasions_of, wants
from controlplane.notices.outgoing import NoAnswer, NotAllowed, post
from controlplane.notices.seal import unseal
from nodes.models import Node
from nodes.selectors import ends_within

HTTP_OK = range(200, 300)
HTTP_GONE = 410
ENDS_SOON = timedelta(days=1)


def tell_of_event(event: AuditEvent) -> None:
    """Note, in the transaction of an audit event, what webhooks are to be told of it."""
    occasions = list(occasions_of(event))
    if occasions:
        tell(event.tailnet, occasions, event.event_time)


def tell(tailnet: Tailnet, occasions: list[Occasion], at: datetime) -> None:
    """Note deliveries of these occasions to those who subscribe; needs the tailnet's scope."""
    webhooks = list(Webhook.objects.filter(enabled=True))
    for occasion in occasions:
        told = [webhook.public_id for webhook in webhooks if wants(webhook.subscriptions, occasion.type)]
        if told:
            payload = _payload(tailnet, occasion, at)
            enqueue_all(
                tailnet=tailnet,
                kind=Outbox.Kind.WEBHOOK,
                targets=told,
                subject=occasion.type,
                payload=payload,
            )


def ends_within_a_day(now: datetime) -> Q:
    """The devices that are told of."""
    return ends_within(ENDS_SOON, now)


def tell_of_ending_keys(*, tailnet: Tailnet, now: datetime) -> int:
    """Tell of the open tailnet's keys that end within a day, of each once; returns how many devices."""
    told = 0
    hooks = [one for one in Webhook.objects.filter(enabled=True) if wants(one.subscriptions, KEY_ENDS_SOON)]
    nodes = Node.objects.filter(ends_within_a_day(now)) if hooks else Node.objects.none()
    for node in nodes.select_related("user"):
        message = f"Key of node {node.name} expires within a day"
        occasion = Occasion(KEY_ENDS_SOON, message, {"nodeID": node.stable_id, "deviceName": node.name})
        once = f"{KEY_ENDS_SOON}.{node.pk}.{int(node.key_expiry.timestamp()) if node.key_expiry else 0}"
        sent = [tell_one(hook, tailnet, occasion, now, once=f"{once}.{hook.pk}") for hook in hooks]
        told += any(sent)
    return told


def tell_one(
    webhook: Webhook, tailnet: Tailnet, occasion: Occasion, at: datetime, *, once: str | None = None
) -> Outbox | None:
    """Note a delivery to one webhook, whatever it subscribes to; ``None`` when ``once`` was noted already."""
    return enqueue(
        tailnet=tailnet,
        kind=Outbox.Kind.WEBHOOK,
        target=webhook.public_id,
        subject=occasion.type,
        payload=_payload(tailnet, occasion, at),
        idempotency_key=once,
    )


def _payload(tailnet: Tailnet, occasion: Occasion, at: datetime) -> dict[str, Any]:
    event = event_of(
        kind=occasion.type,
        tailnet=tailnet.name,
        message=occasion.message,
        data={"url": _page_of(occasion)} | _filled(occasion),
        at=at,
    )
    return {"event": event}


def _page_of(occasion: Occasion) -> str:
    base = settings.BASE_URL
    if "nodeID" in occasion.data and occasion.type != "nodeDeleted":
        return f"{base}/devices/{occasion.data['nodeID']}"
    if "user" in occasion.data:
        return f"{base}/users"
    return f"{base}/"


def _filled(occasion: Occasion) -> dict[str, Any]:
    """The members of ``data`` that only the database knows."""
    node = (
        Node.objects.select_related("user").filter(stable_id=occasion.data["nodeID"]).first()
        if "nodeID" in occasion.data
        else None
    )
    if node is None:
        return occasion.data
    managed = node.user.login_name if node.user is not None else ", ".join(node.tags)
    expiry = {"expiration": node.expires.isoformat()} if node.expires is not None else {}
    return occasion.data | {"managedBy": managed} | expiry


def send_to_webhook(row: Outbox) -> None:
    """The Outbox's sender: one request; raises ``DeliveryFailed`` (tried again) or ``DeliveryRefused``."""
    webhook = Webhook.objects.filter(public_id=row.target).first()
    if webhook is None or not webhook.enabled:
        raise DeliveryRefused("the webhook was removed or switched off")
    secret = unseal(webhook.sealed_secret)
    if secret is None:
        raise DeliveryRefused(
            "the server's SECRET_KEY is another one than when the secret was made: rotate it"
        )
    request = delivery([row.payload["event"]], provider=webhook.provider, secret=secret, at=timezone.now())
    try:
        status = post(webhook.url, request.body, request.headers, private=settings.WEBHOOK_PRIVATE)
    except NotAllowed as error:
        raise DeliveryRefused(str(error)) from error
    except NoAnswer as error:
        raise DeliveryFailed(str(error)) from error
    if status == HTTP_GONE:
        raise DeliveryRefused("answered 410: the receiver is gone")
    if status not in HTTP_OK:
        raise DeliveryFailed(f"answered {status}")
