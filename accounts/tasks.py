"""Periodic work of accounts: idempotent sweeps, run by Celery or by the web process's loop."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from accounts.services.leases import take_lease
from accounts.services.outbox import KEPT, deliver_due, forget_old, is_due, is_settled
from accounts.services.signinlink import clean_links
from accounts.tenancy import each_tailnet

SWEEP_LEASE = timedelta(seconds=60)


def holder() -> str:
    """This process, as lease rows name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


@shared_task(name="accounts.tasks.deliver_outbox")  # type: ignore[untyped-decorator]
def deliver_outbox() -> int:
    """Send what waits in every tailnet's outbox; returns how many deliveries succeeded."""
    now = timezone.now()
    if take_lease(name="accounts.outbox", holder=holder(), length=SWEEP_LEASE, now=now) is None:
        return 0
    return sum(deliver_due() for _ in each_tailnet(due="accounts.Outbox", where=is_due(now)))


@shared_task(name="accounts.tasks.clean_outbox")  # type: ignore[untyped-decorator]
def clean_outbox() -> int:
    """Forget what was delivered or given up long ago; returns how many deliveries."""
    now = timezone.now()
    if take_lease(name="accounts.outbox-clean", holder=holder(), length=SWEEP_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="accounts.Outbox", where=is_settled(now - KEPT))
    return sum(forget_old(now=now) for _ in due)


@shared_task(name="accounts.tasks.clean_sign_in_links")  # type: ignore[untyped-decorator]
def clean_sign_in_links() -> int:
    """Delete sign-in links that ran out; returns how many."""
    return clean_links()
