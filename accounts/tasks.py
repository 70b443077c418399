"""Periodic work of accounts: idempotent sweeps, run by Celery or by the web process's loop."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from functools import wraps
from typing import cast

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


Sweep = Callable[[datetime, datetime], int]


def leased(lease: str, length: timedelta) -> Callable[[Sweep], Callable[[], int]]:
    """A task under a lease: where another process holds that, it does nothing and returns 0.

    The function is told the time, and since when the lease has been held without a gap.
    """

    def decorate(function: Sweep) -> Callable[[], int]:
        @wraps(function)
        def run() -> int:
            now = timezone.now()
            since = take_lease(name=lease, holder=holder(), length=length, now=now)
            return 0 if since is None else function(now, since)

        task = shared_task(name=f"{function.__module__}.{function.__name__}")(run)
        return cast(Callable[[], int], task)

    return decorate


def sweep(tailnets: Iterable[Tailnet], step: Callable[[Tailnet], int]) -> int:
    """A step in each tailnet's scope, and the sum; where it fails is logged, and holds up no other."""
    done = 0
    for tailnet in tailnets:
        try:
            done += step(tailnet)
        except Exception:  # the edge of a tailnet's share of a sweep: the others have done nothing to it
            logger.exception("a sweep failed in tailnet %d; it goes on with the others", tailnet.pk)
    return done


@leased("accounts.outbox", SWEEP_LEASE)
def deliver_outbox(now: datetime, _since: datetime) -> int:
    """Send what waits in every tailnet's outbox; returns how many deliveries succeeded."""
    due = each_tailnet(due="accounts.Outbox", where=is_due(now))
    return sweep(due, lambda _tailnet: deliver_due())


@leased("accounts.outbox-clean", SWEEP_LEASE)
def clean_outbox(now: datetime, _since: datetime) -> int:
    """Forget what was delivered or given up long ago; returns how many deliveries."""
    due = each_tailnet(due="accounts.Outbox", where=is_settled(now - KEPT))
    return sweep(due, lambda _tailnet: forget_old(now=now))


@shared_task(name="accounts.tasks.clean_sign_in_links")  # type: ignore[untyped-decorator]
def clean_sign_in_links() -> int:
    """Delete sign-in links that ran out; returns how many."""
    return clean_links()


@leased("accounts.access-tokens", SWEEP_LEASE)
def clean_access_tokens(now: datetime, _since: datetime) -> int:
    """Delete the hourly tokens of OAuth clients that ran out; returns how many."""
    due = each_tailnet(due="accounts.ApiToken", where=tokens.is_ended_access_token(now))
    return sweep(due, lambda _tailnet: tokens.clean_access_tokens(now=now))
