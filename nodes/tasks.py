"""Periodic work on nodes: idempotent sweeps over due rows, run by Celery or by the web process's loop.

They only tidy: whether a key is good is decided by time whenever it is used.
"""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from accounts.services.leases import take_lease
from accounts.tasks import holder
from accounts.tenancy import each_tailnet
from nodes.services import lifecycle, logins

# Longer than the pause between two runs, so that a lease held without a gap means "it ran all the time".
EXPIRY_LEASE = timedelta(seconds=60)
EPHEMERAL_LEASE = timedelta(seconds=90)


@shared_task(name="nodes.tasks.expire_due")  # type: ignore[untyped-decorator]
def expire_due() -> int:
    """Mark nodes whose key has ended, in every tailnet; returns how many."""
    now = timezone.now()
    if take_lease(name="nodes.expire", holder=holder(), length=EXPIRY_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="nodes.Node", where=lifecycle.due_to_expire(now))
    return sum(lifecycle.expire_due(tailnet=tailnet, now=now) for tailnet in due)


@shared_task(name="nodes.tasks.delete_inactive_ephemeral")  # type: ignore[untyped-decorator]
def delete_inactive_ephemeral() -> int:
    """Delete ephemeral nodes that have been away for long; returns how many.

    After a time in which this did not run the server was away too, and nodes get a whole grace to come back.
    """
    now = timezone.now()
    since = take_lease(name="nodes.ephemeral", holder=holder(), length=EPHEMERAL_LEASE, now=now)
    if since is None or now - since < lifecycle.EPHEMERAL_GRACE:
        return 0
    due = each_tailnet(due="nodes.Node", where=lifecycle.inactive_ephemeral(now))
    return sum(lifecycle.delete_inactive_ephemeral(tailnet=tailnet, now=now) for tailnet in due)


@shared_task(name="nodes.tasks.clean_logins")  # type: ignore[untyped-decorator]
def clean_logins() -> int:
    """Delete interactive logins that ran out; returns how many."""
    return logins.clean_logins()
