"""Leases: one holder at a time for a piece of periodic work, wherever it runs."""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.utils import timezone

from accounts.models import Lease


def take_lease(*, name: str, holder: str, length: timedelta, now: datetime | None = None) -> datetime | None:
    """Take or renew a lease; ``None`` while another holds it, else since when it has been held without a gap.

    A gap is any time nobody held it: whoever takes it then knows that the work has not run for a while.
    """
    now = now or timezone.now()
    try:
        with transaction.atomic():
            row = Lease.objects.select_for_update().filter(name=name).first()
            if row is None:
                row = Lease.objects.create(name=name, holder=holder, since=now, expires=now + length)
                return row.since
            if row.expires > now and row.holder != holder:
                return None
            if row.expires <= now:
                row.since = now
            row.holder, row.expires = holder, now + length
            row.save()
            return row.since
    except IntegrityError:  # another made the row first
        return None


def drop_lease(*, name: str, holder: str, now: datetime | None = None) -> None:
    """Let others take the lease at once."""
    Lease.objects.filter(name=name, holder=holder).update(expires=now or timezone.now())
