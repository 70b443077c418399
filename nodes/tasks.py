"""Periodic work on nodes: idempotent sweeps over due rows, run by Celery or by the web process's loop.

They only tidy: whether a key is good is decided by time whenever it is used.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from celery import shared_task

from accounts.tasks import leased, sweep
from accounts.tenancy import each_tailnet
from nodes.services import clones, lifecycle, logins, posture, rotation, sshchecks

# Longer than the pause between two runs, so that a lease held without a gap means "it ran all the time".
EXPIRY_LEASE = timedelta(seconds=60)
EPHEMERAL_LEASE = timedelta(seconds=90)
ROTATION_LEASE = timedelta(seconds=120)
CLONES_LEASE = timedelta(seconds=90)
ATTRIBUTES_LEASE = timedelta(seconds=60)
SSH_CHECKS_LEASE = timedelta(seconds=7200)


@leased("nodes.expire", EXPIRY_LEASE)
def expire_due(now: datetime, _since: datetime) -> int:
    """Mark nodes whose key has ended, in every tailnet; returns how many."""
    due = each_tailnet(due="nodes.Node", where=lifecycle.due_to_expire(now))
    return sweep(due, lambda tailnet: lifecycle.expire_due(tailnet=tailnet, now=now))


@leased("nodes.ephemeral", EPHEMERAL_LEASE)
def delete_inactive_ephemeral(now: datetime, since: datetime) -> int:
    """Delete ephemeral nodes that have been away for long; returns how many.

    After a time in which this did not run the server was away too, and nodes get a whole grace to come back.
    """
    if now - since < lifecycle.EPHEMERAL_GRACE:
        return 0
    due = each_tailnet(due="nodes.Node", where=lifecycle.inactive_ephemeral(now))
    return sweep(due, lambda tailnet: lifecycle.delete_inactive_ephemeral(tailnet=tailnet, now=now))


@shared_task(name="nodes.tasks.clean_logins")  # type: ignore[untyped-decorator]
def clean_logins() -> int:
    """Delete interactive logins that ran out; returns how many."""
    return logins.clean_logins()


@leased("nodes.ssh_checks", SSH_CHECKS_LEASE)
def forget_ssh_checks(now: datetime, _since: datetime) -> int:
    """Delete checks of SSH sessions that no policy can count any more; returns how many."""
    due = each_tailnet(due="nodes.SSHCheck", where=sshchecks.outdated(now))
    return sweep(due, lambda tailnet: sshchecks.delete_outdated(tailnet=tailnet, now=now))


@leased("nodes.rotation", ROTATION_LEASE)
def rotate_due(now: datetime, _since: datetime) -> int:
    """Ask connected clients whose keys are older than their tailnet wants for new ones; returns how many."""
    due = each_tailnet(due="nodes.Node", where=rotation.connected(now))
    return sweep(due, lambda tailnet: rotation.ask_for_due_rotations(tailnet=tailnet, now=now))


@leased("nodes.clones", CLONES_LEASE)
def clear_clones(now: datetime, since: datetime) -> int:
    """Clear devices of which no clone has been seen for a while; returns how many.

    After a time in which this did not run nobody may have looked, so clones get a whole period to show again.
    """
    if now - since < clones.CLEARED_AFTER:
        return 0
    due = each_tailnet(due="nodes.Node", where=clones.no_longer_cloned(now))
    return sweep(due, lambda tailnet: clones.clear_clones(tailnet=tailnet, now=now))


@leased("nodes.attributes", ATTRIBUTES_LEASE)
def delete_expired_attributes(now: datetime, _since: datetime) -> int:
    """Delete posture attributes whose time is over, and tell netmaps; returns how many."""
    due = each_tailnet(due="nodes.PostureAttribute", where=posture.expired(now))
    return sweep(due, lambda tailnet: posture.delete_expired(tailnet=tailnet, now=now))
