"""Periodic work of accounts: idempotent sweeps, run by Celery or by the web process's loop."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from accounts.models import Tailnet
from accounts.services import tokens
from accounts.services.leases import take_lease
from accounts.services.outbox import KEPT, deliver_due, forget_old, is_due, is_settled
from accounts.services.signinlink import clean_links
from accounts.tenancy import each_tailnet

logger = logging.getLogger("trenza.tasks")

SWEEP_LEASE = timedelta(seconds=60)


def holder() -> str:
    """This process, as lease rows name it."""
    return f"{socket.gethostname()}:{os.getpid()}"


def sweep(tailnets: Iterable[Tailnet], step: Callable[[Tailnet], int]) -> int:
    """A step in each tailnet's scope, and the sum; where it fails is logged, and holds up no other."""
    done = 0
    for tailnet in tailnets:
        try:
            done += step(tailnet)
        except Exception:  # the edge of a tailnet's share of a sweep: the others have done nothing to it
            logger.exception("a sweep failed in tailnet %d; it goes on with the others", tailnet.pk)
    return done


@shared_task(name="accounts.tasks.deliver_outbox")  # type: ignore[untyped-decorator]
def deliver_outbox() -> int:
    """Send what waits in every tailnet's outbox; returns how many deliveries succeeded."""
    now = timezone.now()
    if take_lease(name="accounts.outbox", holder=holder(), length=SWEEP_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="accounts.Outbox", where=is_due(now))
    return sweep(due, lambda _tailnet: deliver_due())


@shared_task(name="accounts.tasks.clean_outbox")  # type: ignore[untyped-decorator]
def clean_outbox() -> int:
    """Forget what was delivered or given up long ago; returns how many deliveries."""
    now = timezone.now()
    if take_lease(name="accounts.outbox-clean", holder=holder(), length=SWEEP_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="accounts.Outbox", where=is_settled(now - KEPT))
    return sweep(due, lambda _tailnet: forget_old(now=now))


@shared_task(name="accounts.tasks.clean_sign_in_links")  # type: ignore[untyped-decorator]
def clean_sign_in_links() -> int:
    """Delete sign-in links that ran out; returns how many."""
    return clean_links()


@shared_task(name="accounts.tasks.clean_access_tokens")  # type: ignore[untyped-decorator]
def clean_access_tokens() -> int:
    """Delete the hourly tokens of OAuth clients that ran out; returns how many."""
    now = timezone.now()
    if take_lease(name="accounts.access-tokens", holder=holder(), length=SWEEP_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="accounts.ApiToken", where=tokens.is_ended_access_token(now))
    return sweep(due, lambda _tailnet: tokens.clean_access_tokens(now=now))
