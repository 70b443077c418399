"""SSH sessions that a policy lets in only after its person has signed in anew: asked, answered, remembered.

The device that is reached asks; the person answers on a page of the panel, signed in since they were asked.
An answer counts for the pair of devices, whichever user they become, for as long as the policy says.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import publish, write
from accounts.credentials import digest, new_url_token
from accounts.errors import Conflict, Gone, NotFound
from accounts.models import Tailnet, User
from accounts.services import audit
from accounts.tenancy import find_by_credential, scope
from nodes.models import MAX_LOCAL_USER, Node, SSHCheck

LIFETIME = timedelta(minutes=30)  # a client holds a session no longer
KEPT = timedelta(days=8)  # more than the longest period that a policy may set
MAX_OPEN = 8  # of one pair of devices; the oldest go
SWEEP_BATCH = 1000


class Answer(StrEnum):
    """What has become of a check."""

    WAITS = "waits"
    LET_IN = "let in"
    TURNED_AWAY = "turned away"


@dataclass(frozen=True, slots=True)
class NewCheck:
    """A check just begun; ``token`` goes into ``<URL>/ssh-check/TOKEN`` and is not stored."""

    check: SSHCheck
    token: str = field(repr=False)


def check_group(check_id: int) -> str:
    """The channel-layer group in which ``{"type": "ssh.done"}`` tells whoever waits for the answer."""
    return f"ssh.{check_id}"


def was_let_in(*, source: Node, target: Node, since: datetime) -> bool:
    """Whether the source's person was let into the target by a sign-in of that time or later."""
    checks = SSHCheck.objects.filter(source=source, target=target, user=source.user)
    return checks.filter(signed_in_at__gte=since).exists()


def begin_check(*, source: Node, target: Node, local_user: str, now: datetime | None = None) -> NewCheck:
    """Ask the source's person; raises :class:`Conflict` when it is nobody's device."""
    now = now or timezone.now()
    if source.user_id is None:
        raise Conflict("nobody can sign in for a tagged device")
    secret = new_url_token()
    with write(target.tailnet_id) as change:
        mine = SSHCheck.objects.filter(source=source, target=target, answered_at=None).order_by("-pk")
        SSHCheck.objects.filter(pk__in=list(mine.values_list("pk", flat=True)[MAX_OPEN - 1 :])).delete()
        check = SSHCheck.objects.create(
            tailnet=change.tailnet,
            token_hash=secret.digest,
            user_id=source.user_id,
            source=source,
            target=target,
            local_user=local_user[:MAX_LOCAL_USER],
            created=now,
            expires=now + LIFETIME,
        )
    return NewCheck(check, secret.text)


def find_check(
    *, token: str, source: Node, target: Node, local_user: str, now: datetime | None = None
) -> SSHCheck:
    """The check that a device waits for; raises :class:`Gone` when it has run out or is of others."""
    checks = SSHCheck.objects.filter(token_hash=digest(token), source=source, target=target)
    theirs = checks.filter(user=source.user, local_user=local_user)
    check = theirs.filter(expires__gt=now or timezone.now()).first()
    if check is None:
        raise Gone("the check has run out: connect again")
    return check


def answer_of(check: SSHCheck) -> Answer:
    if check.answered_at is None:
        return Answer.WAITS
    return Answer.TURNED_AWAY if check.signed_in_at is None else Answer.LET_IN


def own_check(*, token: str, user: User, now: datetime | None = None) -> SSHCheck:
    """The open check behind a link, for its person's page.

    Raises :class:`Gone` when it was answered or has run out, :class:`NotFound` when it is for somebody else.
    """
    found: SSHCheck | None = find_by_credential("ssh_check", token)
    if found is None:
        raise Gone("this link has run out: connect again")
    with scope(tailnet=found.tailnet):
        check = SSHCheck.objects.select_related("source", "target", "tailnet").get(pk=found.pk)
    if check.user_id != user.pk:
        raise NotFound("this link is for somebody else")
    return _require_open(check, now or timezone.now())


def _require_open(check: SSHCheck, now: datetime) -> SSHCheck:
    if check.expires <= now or check.answered_at is not None:
        raise Gone("this link has run out or was answered: connect again")
    return check


def let_in(*, check: SSHCheck, signed_in_at: datetime, now: datetime | None = None) -> None:
    """Let the session in; raises :class:`Conflict` when the person has not signed in since it was asked."""
    if signed_in_at < check.created:
        raise Conflict("sign in again first")
    _answer(check, signed_in_at, now or timezone.now())


def turn_away(*, check: SSHCheck, now: datetime | None = None) -> None:
    """Turn the session away; the device is told."""
    _answer(check, None, now or timezone.now())


def _answer(check: SSHCheck, signed_in_at: datetime | None, now: datetime) -> None:
    with write(check.tailnet_id) as change:
        row = SSHCheck.objects.select_for_update().filter(pk=check.pk).first()
        if row is None:
            raise Gone("this link has run out: connect again")
        _require_open(row, now)
        row.answered_at, row.signed_in_at = now, signed_in_at
        row.save(update_fields=["answered_at", "signed_in_at"])
        _record(change.tailnet, check, signed_in_at is not None)
        transaction.on_commit(partial(_tell, row.pk), robust=True)


def _record(tailnet: Tailnet, check: SSHCheck, was_let_in: bool) -> None:
    audit.record(
        tailnet=tailnet,
        by=Actor.person(check.user),
        action="ALLOW" if was_let_in else "REFUSE",
        target_type="NODE",
        target_id=check.target.stable_id,
        target_name=check.target.name,
        target_property="SSH_SESSION",
        new={"from": check.source.name, "user": check.local_user},
    )


def _tell(check_id: int) -> None:
    publish(check_group(check_id), {"type": "ssh.done", "check": check_id})


def outdated(now: datetime) -> Q:
    """Which checks :func:`delete_outdated` deletes."""
    return Q(created__lt=now - KEPT)


def delete_outdated(*, tailnet: Tailnet, now: datetime | None = None) -> int:
    """Delete checks that no policy can count any more; returns how many."""
    with write(tailnet):
        due = SSHCheck.objects.filter(outdated(now or timezone.now())).values_list("pk", flat=True)
        return SSHCheck.objects.filter(pk__in=list(due[:SWEEP_BATCH])).delete()[0]
