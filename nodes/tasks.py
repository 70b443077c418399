"""Periodic work on nodes: idempotent sweeps over due rows, run by Celery or by the web process's loop.

They only tidy: whether a key is good is decided by time whenever it is used.
"""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from accounts.services.leases import take_lease
from accounts.tasks import holder, sweep
from accounts.tenancy import each_tailnet
from nodes.services import clones, lifecycle, logins, posture, rotation, sshchecks

# Longer than the pause between two runs, so that a lease held without a gap means "it ran all the time".
EXPIRY_LEASE = timedelta(seconds=60)
EPHEMERAL_LEASE = timedelta(seconds=90)
ROTATION_LEASE = timedelta(seconds=120)
CLONES_LEASE = timedelta(seconds=90)
ATTRIBUTES_LEASE = timedelta(seconds=60)
SSH_CHECKS_LEASE = timedelta(seconds=7200)


@shared_task(name="nodes.tasks.expire_due")  # type: ignore[untyped-decorator]
def expire_due() -> int:
    """Mark nodes whose key has ended, in every tailnet; returns how many."""
    now = timezone.now()
    if take_lease(name="nodes.expire", holder=holder(), length=EXPIRY_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="nodes.Node", where=lifecycle.due_to_expire(now))
    return sweep(due, lambda tailnet: lifecycle.expire_due(tailnet=tailnet, now=now))


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
    return sweep(due, lambda tailnet: lifecycle.delete_inactive_ephemeral(tailnet=tailnet, now=now))


@shared_task(name="nodes.tasks.clean_logins")  # type: ignore[untyped-decorator]
def clean_logins() -> int:
    """Delete interactive logins that ran out; returns how many."""
    return logins.clean_logins()


@shared_task(name="nodes.tasks.forget_ssh_checks")  # type: ignore[untyped-decorator]
def forget_ssh_checks() -> int:
    """Delete checks of SSH sessions that no policy can count any more; returns how many."""
    now = timezone.now()
    if take_lease(name="nodes.ssh_checks", holder=holder(), length=SSH_CHECKS_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="nodes.SSHCheck", where=sshchecks.outdated(now))
    return sweep(due, lambda tailnet: sshchecks.delete_outdated(tailnet=tailnet, now=now))


@shared_task(name="nodes.tasks.rotate_due")  # type: ignore[untyped-decorator]
def rotate_due() -> int:
    """Ask connected clients whose keys are older than their tailnet wants for new ones; returns how many."""
    now = timezone.now()
    if take_lease(name="nodes.rotation", holder=holder(), length=ROTATION_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="nodes.Node", where=rotation.connected(now))
    return sweep(due, lambda tailnet: rotation.ask_for_due_rotations(tailnet=tailnet, now=now))


@shared_task(name="nodes.tasks.clear_clones")  # type: ignore[untyped-decorator]
def clear_clones() -> int:
    """Clear devices of which no clone has been seen for a while; returns how many.

    After a time in which this did not run nobody may have looked, so clones get a whole period to show again.
    """
    now = timezone.now()
    since = take_lease(name="nodes.clones", holder=holder(), length=CLONES_LEASE, now=now)
    if since is None or now - since < clones.CLEARED_AFTER:
        return 0
    due = each_tailnet(due="nodes.Node", where=clones.no_longer_cloned(now))
    return sweep(due, lambda tailnet: clones.clear_clones(tailnet=tailnet, now=now))


@shared_task(name="nodes.tasks.delete_expired_attributes")  # type: ignore[untyped-decorator]
def delete_expired_attributes() -> int:
    """Delete posture attributes whose time is over, and tell netmaps; returns how many."""
    now = timezone.now()
    if take_lease(name="nodes.attributes", holder=holder(), length=ATTRIBUTES_LEASE, now=now) is None:
        return 0
    due = each_tailnet(due="nodes.PostureAttribute", where=posture.expired(now))
    return sweep(due, lambda tailnet: posture.delete_expired(tailnet=tailnet, now=now))
