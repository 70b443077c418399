"""Periodic work of the top app: idempotent sweeps, run by Celery or by the web process's loop."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.conf import settings
from django.utils import timezone

from accounts.services.leases import take_lease
from accounts.tasks import holder, sweep
from accounts.tenancy import each_tailnet
from controlplane.services import flows, mails, telling

ENDING_LEASE = timedelta(minutes=20)
MAIL_LEASE = timedelta(seconds=90)


@shared_task(name="controlplane.tasks.tell_of_ending_keys")  # type: ignore[untyped-decorator]
def tell_of_ending_keys() -> int:
    """Tell webhooks, once, of devices whose keys end within a day; returns of how many."""
    now = timezone.now()
    if take_lease(name="controlplane.ending", holder=holder(), length=ENDING_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="nodes.Node", where=telling.ends_within_a_day(now))
    return sweep(due, lambda tailnet: telling.tell_of_ending_keys(tailnet=tailnet, now=now))


@shared_task(name="controlplane.tasks.mail_what_waits")  # type: ignore[untyped-decorator]
def mail_what_waits() -> int:
    """Write to those who may decide about what has begun to wait; returns how many mails."""
    now = timezone.now()
    if not settings.MAIL_IS_SET_UP:
        return 0
    if take_lease(name="controlplane.mail-waiting", holder=holder(), length=MAIL_LEASE, now=now) is None:
        return 0
    return sweep(each_tailnet(), lambda tailnet: mails.tell_of_waiting(tailnet=tailnet, now=now))


@shared_task(name="controlplane.tasks.mail_what_ends")  # type: ignore[untyped-decorator]
def mail_what_ends() -> int:
    """Write to people whose devices' keys end soon; returns how many mails."""
    now = timezone.now()
    if not settings.MAIL_IS_SET_UP:
        return 0
    if take_lease(name="controlplane.mail-ending", holder=holder(), length=ENDING_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="nodes.Node", where=mails.ends_soon(now))
    return sweep(due, lambda tailnet: mails.tell_of_ending(tailnet=tailnet, now=now))


@shared_task(name="controlplane.tasks.forget_old_flows")  # type: ignore[untyped-decorator]
def forget_old_flows() -> int:
    """Delete flow logs that are too old, or more than a tailnet keeps; returns how many."""
    now = timezone.now()
    if take_lease(name="controlplane.flows", holder=holder(), length=ENDING_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="controlplane.FlowLog")
    return sweep(due, lambda tailnet: flows.forget_old_flows(tailnet=tailnet, now=now))
