"""Periodic work of the top app: idempotent sweeps, run by Celery or by the web process's loop."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.conf import settings

from accounts.tasks import leased, sweep
from accounts.tenancy import each_tailnet
from controlplane.services import flows, mails, telling

ENDING_LEASE = timedelta(minutes=20)
MAIL_LEASE = timedelta(seconds=90)


@leased("controlplane.ending", ENDING_LEASE)
def tell_of_ending_keys(now: datetime, _since: datetime) -> int:
    """Tell webhooks, once, of devices whose keys end within a day; returns of how many."""
    due = each_tailnet(due="nodes.Node", where=telling.ends_within_a_day(now))
    return sweep(due, lambda tailnet: telling.tell_of_ending_keys(tailnet=tailnet, now=now))


@leased("controlplane.mail-waiting", MAIL_LEASE)
def mail_what_waits(now: datetime, _since: datetime) -> int:
    """Write to those who may decide about what has begun to wait; returns how many mails."""
    if not settings.MAIL_IS_SET_UP:
        return 0
    return sweep(each_tailnet(), lambda tailnet: mails.tell_of_waiting(tailnet=tailnet, now=now))


@leased("controlplane.mail-ending", ENDING_LEASE)
def mail_what_ends(now: datetime, _since: datetime) -> int:
    """Write to people whose devices' keys end soon; returns how many mails."""
    if not settings.MAIL_IS_SET_UP:
        return 0
    due = each_tailnet(due="nodes.Node", where=mails.ends_soon(now))
    return sweep(due, lambda tailnet: mails.tell_of_ending(tailnet=tailnet, now=now))


@leased("controlplane.flows", ENDING_LEASE)
def forget_old_flows(now: datetime, _since: datetime) -> int:
    """Delete flow logs that are too old, or more than a tailnet keeps; returns how many."""
    due = each_tailnet(due="controlplane.FlowLog")
    return sweep(due, lambda tailnet: flows.forget_old_flows(tailnet=tailnet, now=now))
