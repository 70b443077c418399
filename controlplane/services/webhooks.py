"""Webhooks: made, changed, tried, removed. What they are told is :mod:`controlplane.services.telling`'s."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any

from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone

from accounts.access import NOT_HERE, require_right
from accounts.actors import Actor
from accounts.changes import ChangeSet, write
from accounts.credentials import WEBHOOK_PREFIX, new_secret
from accounts.describe import timestamp
from accounts.errors import Conflict, Invalid, NotFound
from accounts.limits import check_limit, count_attempt
from accounts.models import Outbox, Tailnet
from accounts.roles import Capability
from accounts.services import audit
from controlplane.models import Webhook
from controlplane.notices.bodies import CHATS
from controlplane.notices.occasions import SUBSCRIPTIONS, TEST, UNHEARD, Occasion
from controlplane.notices.outgoing import NotAllowed, check_url
from controlplane.notices.seal import seal
from controlplane.services.telling import tell_one

MAX_WEBHOOKS = 20  # of one tailnet
BY_HAND = "webhook-by-hand"
MAX_BY_HAND = 20  # tests and repeats a minute, of one webhook: each is a request to somebody's server


def _checked(url: str) -> str:
    try:
        return check_url(url, private=settings.WEBHOOK_PRIVATE)
    except NotAllowed as error:
        raise Invalid(str(error)) from error


def _subscriptions(wanted: Collection[str]) -> list[str]:
    unknown = sorted(set(wanted) - SUBSCRIPTIONS - UNHEARD)
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
        require_right(by, Capability.MANAGE_SETTINGS)
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
    with _changing(webhook, by) as (change, row):
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
    secret = new_secret(WEBHOOK_PREFIX)
    with _changing(webhook, by) as (change, row):
        row.sealed_secret, row.updated = seal(secret.text), timezone.now()
        row.save(update_fields=["sealed_secret", "updated"])
        _record(change, row, by, "UPDATE", prop="SECRET")
        return row, secret.text


def delete_webhook(*, webhook: Webhook, by: Actor) -> None:
    """Remove it, and what was still to be sent to it."""
    with _changing(webhook, by) as (change, row):
        deliveries(row).filter(delivered_at__isnull=True).delete()
        change.delete("webhook", row.pk)
        _record(change, row, by, "DELETE", old=_facts(row), published=False)
        row.delete()


def try_webhook(*, webhook: Webhook, by: Actor) -> Outbox | None:
    """Send a test event soon; raises ``LimitExceeded`` after :data:`MAX_BY_HAND` in a minute."""
    with _changing(webhook, by) as (change, row):
        _count_by_hand(row)
        occasion = Occasion(TEST, "This is a test event", {"actor": by.name})
        _record(change, row, by, "TEST")
        return tell_one(row, change.tailnet, occasion, timezone.now())


def send_again(*, webhook: Webhook, delivery_id: int, by: Actor) -> None:
    """Deliver one that failed, or was delivered, once more; raises as :func:`try_webhook` does."""
    with _changing(webhook, by) as (change, row):
        kept = deliveries(row).filter(pk=delivery_id).first()
        if kept is None:
            raise Conflict("this delivery is no longer kept")
        _count_by_hand(row)
        kept.due, kept.attempts, kept.delivered_at, kept.failed_at = timezone.now(), 0, None, None
        kept.save(update_fields=["due", "attempts", "delivered_at", "failed_at"])
        _record(change, row, by, "RESEND", details=f"{kept.subject} of {timestamp(kept.created)}")


def _count_by_hand(webhook: Webhook) -> None:
    check_limit(BY_HAND, webhook.public_id, limit=MAX_BY_HAND)
    count_attempt(BY_HAND, webhook.public_id)


def deliveries(webhook: Webhook) -> QuerySet[Outbox]:
    """What was or will be sent to it, newest first."""
    return Outbox.objects.filter(kind=Outbox.Kind.WEBHOOK, target=webhook.public_id).order_by("-pk")


@contextmanager
def _changing(webhook: Webhook, by: Actor) -> Iterator[tuple[ChangeSet, Webhook]]:
    """The webhook as it is now, locked with its tailnet, for somebody who may change it."""
    with write(webhook.tailnet_id) as change:
        require_right(by, Capability.MANAGE_SETTINGS)
        row = Webhook.objects.select_related("tailnet").filter(pk=webhook.pk).first()
        if row is None:
            raise NotFound(NOT_HERE)
        yield change, row


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
    details: str = "",
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
        details=details,
    )
