"""Interactive logins: a machine waits at an AuthURL until a signed-in person confirms or rejects it.

The URL's token is stored as a digest and bound to the machine key and node key that asked for it, so whoever
learns the URL can only let that machine in, into a tailnet of their own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from django.db import transaction
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import publish, write
from accounts.credentials import digest, new_url_token
from accounts.errors import Forbidden, Gone, Invalid, LimitExceeded
from accounts.limits import bucket, check_limit, count_attempt
from accounts.models import Membership, Tailnet, User
from accounts.roles import Capability, can
from accounts.tenancy import scope
from nodes.hostinfo import essential, request_tags
from nodes.models import Node, PendingLogin
from nodes.policy import Policy, access_policy
from nodes.services.enrolment import Machine, register_node

LIFETIME = timedelta(hours=1)
KEPT_AFTER_EXPIRY = timedelta(minutes=10)
MAX_PER_MACHINE = 8
MAX_OPEN_PER_ADDRESS = 300
MAX_HOSTINFO_BYTES = 8 * 1024  # strangers fill these rows; the whole Hostinfo comes with the map requests
MAX_NEW_PER_MINUTE = 60  # for one address
LIMIT_KIND = "login"
OPEN_RETRY_SECONDS = 300
MAX_REFUSAL = 300


@dataclass(frozen=True, slots=True)
class NewLogin:
    """A login just begun; ``token`` goes into ``<URL>/register/TOKEN`` and is not stored."""

    login: PendingLogin
    token: str = field(repr=False)


def login_group(login_id: int) -> str:
    """The channel-layer group in which ``{"type": "login.done", "login": id}`` tells waiting follow-ups."""
    return f"login.{login_id}"


def begin_login(
    *, machine: Machine, old_node_key: str = "", client_address: str = "", now: datetime | None = None
) -> NewLogin:
    """Note a machine that wants in; raises ``LimitExceeded`` when its address begins too many."""
    now = now or timezone.now()
    check_limit(LIMIT_KIND, client_address, limit=MAX_NEW_PER_MINUTE, now=now)
    count_attempt(LIMIT_KIND, client_address, now=now)
    site = bucket(client_address)
    if PendingLogin.objects.filter(client_site=site, expires__gt=now).count() >= MAX_OPEN_PER_ADDRESS:
        raise LimitExceeded("too many logins are open from this address", OPEN_RETRY_SECONDS)
    secret = new_url_token()
    with transaction.atomic():
        mine = PendingLogin.objects.filter(machine_key=machine.machine_key).order_by("-pk")
        too_old = list(mine.values_list("pk", flat=True)[MAX_PER_MACHINE - 1 :])
        PendingLogin.objects.filter(pk__in=too_old).delete()
        login = PendingLogin.objects.create(
            token_hash=secret.digest,
            machine_key=machine.machine_key,
            node_key=machine.node_key,
            old_node_key=old_node_key,
            hostinfo=essential(machine.hostinfo, MAX_HOSTINFO_BYTES),
            ephemeral=machine.ephemeral,
            capability_version=machine.capability_version,
            requested_expiry=machine.expiry,
            client_address=client_address,
            client_site=site,
            created=now,
            expires=now + LIFETIME,
        )
    return NewLogin(login, secret.text)


def find_login(*, token: str, now: datetime | None = None) -> PendingLogin:
    """The open login of an AuthURL, for the confirmation page; raises :class:`Gone` for any other."""
    login = PendingLogin.objects.filter(token_hash=digest(token)).first()
    return _require_open(login, now or timezone.now())


def _require_open(login: PendingLogin | None, now: datetime) -> PendingLogin:
    if login is None or login.expires <= now:
        raise Gone("this link has run out; run the login on the device again")
    if login.confirmed_at is not None or login.rejected_at is not None:
        raise Gone("this device's login was answered already")
    return login


def confirm_login(
    *,
    pending: PendingLogin,
    user: User,
    tailnet: Tailnet,
    policy: Policy | None = None,
    now: datetime | None = None,
) -> Node:
    """Let the machine into ``tailnet`` as ``user``'s device (or as its tags, where policy lets them).

    Raises :class:`Gone` when it was answered or has run out, :class:`Forbidden` when the person is not an
    active member or has a role without devices, :class:`Invalid` when the tags are not permitted (the machine
    is told too).
    """
    now = now or timezone.now()
    policy = policy or access_policy()
    tags = request_tags(pending.hostinfo)
    with scope(tailnet=tailnet):
        permitted = not tags or policy.may_use_tags(tailnet, user, tags)
    if not permitted:
        refusal = refused_tags(tags)
        _reject(pending, refusal, now)
        raise Invalid(refusal)
    with write(tailnet) as change:
        row = _require_open(PendingLogin.objects.select_for_update().filter(pk=pending.pk).first(), now)
        place = Membership.objects.filter(user=user, status=Membership.Status.ACTIVE).first()
        if place is None:
            raise Forbidden("you are not an active member of this tailnet")
        if not can(place, Capability.SEE_OWN_DEVICES):
            raise Forbidden("your role has no devices")
        machine = Machine(
            machine_key=row.machine_key,
            node_key=row.node_key,
            hostinfo=row.hostinfo,
            ephemeral=row.ephemeral,
            expiry=row.requested_expiry,
            capability_version=row.capability_version,
        )
        node = register_node(
            tailnet=change.tailnet,
            machine=machine,
            user=None if tags else user,
            tags=tags,
            by=Actor.person(user),
            policy=policy,
            now=now,
        )
        row.confirmed_at, row.confirmed_by, row.node = now, user, node
        row.save(update_fields=["confirmed_at", "confirmed_by", "node"])
        transaction.on_commit(partial(_tell, row.pk), robust=True)
        return node


def reject_login(*, pending: PendingLogin, now: datetime | None = None) -> None:
    """Turn the machine away; it is told. Raises :class:`Gone` when it was answered already."""
    _reject(pending, "the login was rejected", now or timezone.now())


def _reject(pending: PendingLogin, refusal: str, now: datetime) -> None:
    with transaction.atomic():
        row = _require_open(PendingLogin.objects.select_for_update().filter(pk=pending.pk).first(), now)
        row.rejected_at, row.refusal = now, refusal[:MAX_REFUSAL]
        row.save(update_fields=["rejected_at", "refusal"])
        transaction.on_commit(partial(_tell, row.pk), robust=True)


def _tell(login_id: int) -> None:
    publish(login_group(login_id), {"type": "login.done", "login": login_id})


def refused_tags(tags: list[str]) -> str:
    """The text that clients know for tags they may not have."""
    return f"requested tags [{' '.join(tags)}] are invalid or not permitted"


def clean_logins(*, now: datetime | None = None) -> int:
    """Delete logins that ran out a while ago; returns how many."""
    cutoff = (now or timezone.now()) - KEPT_AFTER_EXPIRY
    return PendingLogin.objects.filter(expires__lt=cutoff).delete()[0]
