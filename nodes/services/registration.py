"""``/machine/register`` without the wire: what a machine asks, and the one answer it gets.

The order of the questions is the contract: the node key's owner first, then logout, then a follow-up, then
whether the key is known, then rotation, auth key, and last an AuthURL.
Source: tailscale control/controlclient/direct.go (doLogin), tstest/integration/testcontrol.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import write
from accounts.credentials import digest
from accounts.errors import ApplicationError, LimitExceeded
from accounts.limits import check_limit, count_attempt
from accounts.models import Membership
from accounts.tenancy import find_by_credential, scope
from nodes.hostinfo import request_tags
from nodes.models import Node, PendingLogin, PreAuthKey
from nodes.policy import Policy
from nodes.services.authkeys import consume_auth_key
from nodes.services.enrolment import Machine, register_node
from nodes.services.lifecycle import logout_node, restart_node, rotate_node_key
from nodes.services.logins import begin_login, refused_tags

MAX_FAILED_KEYS_PER_MINUTE = 20  # for one address
LIMIT_KIND = "auth-key"
BAD_KEY = "invalid key: the auth key is unknown, used up, revoked or expired"
FOREIGN_KEY = "this node key belongs to another machine"
SUSPENDED = "the owner of this device is not an active member of the tailnet"


class Outcome(StrEnum):
    """What a registration came to."""

    REGISTERED = "registered"  # ``node`` is in (its approval may be pending)
    AUTH_URL = "auth-url"  # show <URL>/register/``token``
    WAIT = "wait"  # ask again when ``login_id`` has been answered
    KEY_EXPIRED = "key-expired"  # make a new node key and register once more
    REFUSED = "refused"  # show ``message``
    LIMITED = "limited"  # try again after ``retry_after`` seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationRequest:
    """What the machine asks. Keys in text form, "" = none; ``followup`` is the AuthURL's token."""

    machine: Machine
    old_node_key: str = ""
    auth_key: str = field(default="", repr=False)
    followup: str = field(default="", repr=False)
    rotate: bool = False
    client_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationResult:
    """The answer, as plain values."""

    outcome: Outcome
    node: Node | None = None
    token: str = field(default="", repr=False)
    login_id: int = 0
    message: str = ""
    retry_after: int = 0


class _Refused(Exception):
    """The registration ends here with this text for the user."""


def answer_registration(
    *, request: RegistrationRequest, policy: Policy | None = None, now: datetime | None = None
) -> RegistrationResult:
    """Decide one register request; never raises for what a client can do wrong."""
    now = now or timezone.now()
    try:
        return _answer(request, policy, now)
    except LimitExceeded as limit:
        return RegistrationResult(outcome=Outcome.LIMITED, message=str(limit), retry_after=limit.retry_after)
    except (_Refused, ApplicationError) as refusal:
        return RegistrationResult(outcome=Outcome.REFUSED, message=str(refusal))


def _answer(request: RegistrationRequest, policy: Policy | None, now: datetime) -> RegistrationResult:
    machine = request.machine
    if not machine.node_key:
        raise _Refused("a registration needs a node key")
    known: Node | None = find_by_credential("node_key", machine.node_key)
    if known is not None and known.machine_key != machine.machine_key:
        raise _Refused(FOREIGN_KEY)
    if machine.expiry is not None and machine.expiry <= now:
        if known is not None:
            logout_node(node=known, now=now)
        return RegistrationResult(outcome=Outcome.KEY_EXPIRED)
    if known is not None and known.key_is_good(now):
        return _restart(known, machine, now)
    if request.followup:
        return _follow_up(request, now)
    if known is not None:
        return RegistrationResult(outcome=Outcome.KEY_EXPIRED)
    return _new_key(request, policy, now)


def _restart(node: Node, machine: Machine, now: datetime) -> RegistrationResult:
    """The same machine with its good key: let in unchecked, also when it repeats an auth key it has used."""
    with scope(tailnet=node.tailnet):
        if node.user_id is not None and not _is_active_member(node.user_id):
            raise _Refused(SUSPENDED)
        return _registered(restart_node(node=node, requested_expiry=machine.expiry, now=now))


def _new_key(request: RegistrationRequest, policy: Policy | None, now: datetime) -> RegistrationResult:
    if request.rotate and request.old_node_key:
        rotated = _rotate(request, now)
        if rotated is not None:
            return rotated
    if request.auth_key:
        return _register_with_key(request, policy, now)
    return _new_login(request, now)


def _rotate(request: RegistrationRequest, now: datetime) -> RegistrationResult | None:
    """A silent rotation, only from the same machine and while the old key is good; else a login is needed."""
    old: Node | None = find_by_credential("node_key", request.old_node_key)
    if old is None:
        return None
    if old.machine_key != request.machine.machine_key:
        raise _Refused("the old node key belongs to another machine")
    if not old.key_is_good(now):
        return None
    with scope(tailnet=old.tailnet):
        if old.user_id is not None and not _is_active_member(old.user_id):
            raise _Refused(SUSPENDED)
    return _registered(rotate_node_key(node=old, new_node_key=request.machine.node_key, now=now))


def _register_with_key(
    request: RegistrationRequest, policy: Policy | None, now: datetime
) -> RegistrationResult:
    check_limit(LIMIT_KIND, request.client_address, limit=MAX_FAILED_KEYS_PER_MINUTE, now=now)
    found: PreAuthKey | None = find_by_credential("auth_key", request.auth_key)
    try:
        if found is None:
            raise _Refused(BAD_KEY)
        return _registered(_enrol_with_key(found, request, policy, now))
    except _Refused:
        count_attempt(LIMIT_KIND, request.client_address, now=now)
        raise


def _enrol_with_key(
    found: PreAuthKey, request: RegistrationRequest, policy: Policy | None, now: datetime
) -> Node:
    """Check the key again and use it up in the transaction that makes the node: two holders, one node."""
    machine = request.machine
    with write(found.tailnet_id) as change:
        key = (
            PreAuthKey.objects.select_for_update(of=("self",))
            .select_related("user")
            .filter(pk=found.pk)
            .first()
        )
        if key is None or not key.is_valid(now):
            raise _Refused(BAD_KEY)
        if key.user_id is not None and not _is_active_member(key.user_id):
            raise _Refused(SUSPENDED)
        wanted = request_tags(machine.hostinfo)
        if not set(wanted) <= set(key.tags):
            raise _Refused(refused_tags(wanted))
        consume_auth_key(key=key, now=now)
        return register_node(
            tailnet=change.tailnet,
            machine=Machine(
                machine_key=machine.machine_key,
                node_key=machine.node_key,
                hostinfo=machine.hostinfo,
                ephemeral=machine.ephemeral or key.ephemeral,
                expiry=machine.expiry,
                capability_version=machine.capability_version,
            ),
            user=key.user,
            tags=key.tags,
            preapproved=key.preauthorized,
            auth_key=key,
            by=Actor.token(key.public_id, key.user),
            policy=policy,
            now=now,
        )


def _follow_up(request: RegistrationRequest, now: datetime) -> RegistrationResult:
    """How the login that the client shows stands; a fresh one when it is unknown, run out, or not its own."""
    login = PendingLogin.objects.filter(token_hash=digest(request.followup)).first()
    machine = request.machine
    if login is None or (login.machine_key, login.node_key) != (machine.machine_key, machine.node_key):
        return _new_login(request, now)
    if login.rejected_at is not None:
        raise _Refused(login.refusal or "the login was rejected")
    if login.confirmed_at is not None or login.expires <= now:
        return _new_login(request, now)  # a confirmed key that is good was answered before this
    return RegistrationResult(outcome=Outcome.WAIT, login_id=login.pk)


def _new_login(request: RegistrationRequest, now: datetime) -> RegistrationResult:
    login = begin_login(
        machine=request.machine,
        old_node_key=request.old_node_key,
        client_address=request.client_address,
        now=now,
    )
    return RegistrationResult(outcome=Outcome.AUTH_URL, token=login.token, login_id=login.login.pk)


def _is_active_member(user_id: int) -> bool:
    active = Membership.objects.filter(user_id=user_id, status=Membership.Status.ACTIVE, user__is_active=True)
    return active.exists()


def _registered(node: Node) -> RegistrationResult:
    return RegistrationResult(outcome=Outcome.REGISTERED, node=node)
