"""Webhooks: made, changed, tried, and told through the Outbox in the transaction of what happened."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import WEBHOOK_PREFIX, new_secret
from accounts.errors import Conflict, Invalid
from accounts.models import AuditEvent, Outbox, Tailnet
from accounts.services import audit
from accounts.services.outbox import DeliveryFailed, DeliveryRefused, enqueue, enqueue_all
from controlplane.models import Webhook
from controlplane.notices.bodies import CHATS, delivery, event_of
from controlplane.notices.occasions import KEY_ENDS_SOON, SUBSCRIPTIONS, TEST, Occasion, occasions_of, wants
from controlplane.notices.outgoing import NoAnswer, NotAllowed, check_url, post
from controlplane.notices.seal import seal, unseal
from nodes.models import Node
from nodes.selectors import ends_within

MAX_WEBHOOKS = 20  # of one tailnet
HTTP_OK = range(200, 300)
HTTP_GONE = 410
ENDS_SOON = timedelta(days=1)


# --- their life --------------------------------------------------------------------------------------------


def _checked(url: str) -> str:
    try:
        return check_url(url, private=settings.WEBHOOK_PRIVATE)
    except NotAllowed as error:
        raise Invalid(str(error)) from error


def _subscriptions(wanted: Collection[str]) -> list[str]:
    unknown = sorted(set(wanted) - SUBSCRIPTIONS)
    if unknown:
        raise Invalid(f"there is no event {unknown[0]!r}")
    if not wanted:
        raise Invalid("choose at least one event")
    return sorted(set(wanted))


def _provider(name: str) -> str:
    if name and name not in CHATS:
        raise Invalid(f"{name!r} is no kind of receiver: leave it empty, or one of {', '.join(CHATS)}")
    return name


def create_webhook(
    *, tailnet: Tailnet, url: str, subscriptions: Collection[str], by: Actor, provider: str = ""
) -> tuple[Webhook, str]:
    """A webhook and its secret, which is shown now and never again."""
    address, wanted = _checked(url), _subscriptions(subscriptions)
    with write(tailnet) as change:
        if Webhook.objects.count() >= MAX_WEBHOOKS:
            raise Conflict(f"a tailnet has at most {MAX_WEBHOOKS} webhooks: remove one first")
        secret = new_secret(WEBHOOK_PREFIX)
        webhook = Webhook.objects.create(
            tailnet=change.tailnet,
            public_id=secret.public_id,
            url=address,
            provider=_provider(provider),
            subscriptions=wanted,
            sealed_secret=seal(secret.text),
            creator=by.user,
            creator_name=by.name,
        )
        _record(change, webhook, by, "CREATE", new=_facts(webhook))
        return webhook, secret.text


def update_webhook(*, webhook: Webhook, by: Actor, **values: Any) -> Webhook:
    """Change ``url``, ``subscriptions``, ``provider`` or ``enabled``."""
    checks: dict[str, Callable[[Any], Any]] = {
        "url": _checked,
        "subscriptions": _subscriptions,
        "provider": _provider,
        "enabled": bool,
    }
    with write(webhook.tailnet_id) as change:
        row = _locked(webhook)
        wanted = {name: checks[name](value) for name, value in values.items()}
        old = _facts(row)
        changed = [name for name, value in wanted.items() if getattr(row, name) != value]
        if changed:
            for name in changed:
                setattr(row, name, wanted[name])
            row.updated = timezone.now()
            row.save()
            prop = changed[0].upper() if len(changed) == 1 else ""
            _record(change, row, by, "UPDATE", prop=prop, old=old, new=_facts(row))
        return row


def rotate_webhook(*, webhook: Webhook, by: Actor) -> tuple[Webhook, str]:
    """Give it another secret; what is sent from now on, retries too, is signed with that one."""
    with write(webhook.tailnet_id) as change:
        row, secret = _locked(webhook), new_secret(WEBHOOK_PREFIX)
        row.sealed_secret, row.updated = seal(secret.text), timezone.now()
        row.save(update_fields=["sealed_secret", "updated"])
        _record(change, row, by, "UPDATE", prop="SECRET")
        return row, secret.text


def delete_webhook(*, webhook: Webhook, by: Actor) -> None:
    """Remove it, and what was still to be sent to it."""
    with write(webhook.tailnet_id) as change:
        row = _locked(webhook)
        deliveries(row).filter(delivered_at__isnull=True).delete()
        change.delete("webhook", row.pk)
        _record(change, row, by, "DELETE", old=_facts(row), published=False)
        row.delete()


def try_webhook(*, webhook: Webhook, by: Actor) -> Outbox | None:
    """Send a test event soon."""
    with write(webhook.tailnet_id) as change:
        occasion = Occasion(TEST, "This is a test event", {"actor": by.name})
        change.upsert("webhook", webhook.pk)
        return _enqueue(webhook, change.tailnet, occasion, timezone.now())


def send_again(*, webhook: Webhook, delivery_id: int) -> None:
    """Deliver one that failed, or was delivered, once more."""
    with write(webhook.tailnet_id) as change:
        fresh = {"due": timezone.now(), "attempts": 0, "delivered_at": None, "failed_at": None}
        if not deliveries(webhook).filter(pk=delivery_id).update(**fresh):
            raise Conflict("this delivery is no longer kept")
        change.upsert("webhook", webhook.pk)


def deliveries(webhook: Webhook) -> Any:
    """What was or will be sent to it, newest first (a query of :class:`Outbox` rows)."""
    return Outbox.objects.filter(kind=Outbox.Kind.WEBHOOK, target=webhook.public_id).order_by("-pk")


def _locked(webhook: Webhook) -> Webhook:
    return Webhook.objects.select_related("tailnet").get(pk=webhook.pk)


def _facts(webhook: Webhook) -> dict[str, Any]:
    """What the log keeps of it."""
    return {
        "url": webhook.place,
        "provider": webhook.provider,
        "subscriptions": webhook.subscriptions,
        "enabled": webhook.enabled,
    }


def _record(
    change: ChangeSet,
    webhook: Webhook,
    by: Actor,
    action: str,
    *,
    prop: str = "",
    old: Any = None,
    new: Any = None,
    published: bool = True,
) -> None:
    if published:
        change.upsert("webhook", webhook.pk)
    audit.record(
        tailnet=change.tailnet,
        by=by,
        action=action,
        target_type="WEBHOOK",
        target_id=webhook.public_id,
        target_name=webhook.place,
        target_property=prop,
        old=old,
        new=new,
    )


# --- telling -----------------------------------------------------------------------------------------------


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
        sent = [_enqueue(hook, tailnet, occasion, now, once=f"{once}.{hook.pk}") for hook in hooks]
        told += any(sent)
    return told


def _enqueue(
    webhook: Webhook, tailnet: Tailnet, occasion: Occasion, at: datetime, *, once: str | None = None
) -> Outbox | None:
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
