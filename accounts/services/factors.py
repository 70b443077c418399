"""Passkeys, authenticator apps, recovery codes and linked identities: each change in the audit log.

allauth changes these itself and tells of it by signals; :func:`listen` answers them.
"""

from __future__ import annotations

from typing import Any

from allauth.account.internal.flows.login import record_authentication
from allauth.mfa import signals
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.socialaccount.signals import social_account_added
from django.db import transaction
from django.http import HttpRequest

from accounts.actors import Actor
from accounts.errors import Conflict, NotFound
from accounts.models import User
from accounts.services import audit

NAMES = {
    Authenticator.Type.WEBAUTHN: "PASSKEY",
    Authenticator.Type.TOTP: "AUTHENTICATOR_APP",
    Authenticator.Type.RECOVERY_CODES: "RECOVERY_CODES",
}
IDENTITY = "IDENTITY"


def listen() -> None:
    """Connect to allauth's signals, once per process."""
    for signal, action in (
        (signals.authenticator_added, "CREATE"),
        (signals.authenticator_removed, "DELETE"),
        (signals.authenticator_reset, "UPDATE"),
    ):
        signal.connect(_recorder(action), weak=False, dispatch_uid=f"trenza-{action}")
    signals.authentication_failed.connect(_failed, dispatch_uid="trenza-failed")
    social_account_added.connect(_linked, dispatch_uid="trenza-linked")


def _recorder(action: str) -> Any:
    def record(
        sender: Any, request: HttpRequest, user: User, authenticator: Authenticator, **more: Any
    ) -> None:
        _record(user, action, NAMES[authenticator.type], details=_name(authenticator))
        if action == "CREATE" and authenticator.type != Authenticator.Type.RECOVERY_CODES:
            _proved_by(request, user, authenticator)

    return record


def _proved_by(request: HttpRequest, user: User, authenticator: Authenticator) -> None:
    """Who adds a passkey or an app has just used it: its recovery codes are shown without asking again."""
    record_authentication(
        request, user, "mfa", id=authenticator.pk, type=authenticator.type, reauthenticated=True
    )


def _failed(sender: Any, user: User, authenticator: Authenticator, **more: Any) -> None:
    _record(user, "LOGIN_FAILED", NAMES[authenticator.type])


def _linked(sender: Any, sociallogin: Any, **more: Any) -> None:
    _record(sociallogin.user, "CREATE", IDENTITY, new=_described(sociallogin.account))


def own_identity(*, user: User, pk: int) -> SocialAccount:
    """One of the person's own linked identities."""
    account = SocialAccount.objects.filter(user_id=user.pk, pk=pk).first()
    if account is None:
        raise NotFound("there is no such identity")
    return account


def unlink_identity(*, user: User, pk: int) -> None:
    """Take a linked identity away: not the one that this person is, which would come back as a stranger."""
    account = own_identity(user=user, pk=pk)
    if is_the_person(account, user):
        raise Conflict("this identity is who you are here; it cannot be taken away")
    described = _described(account)
    with transaction.atomic():
        account.delete()
        _record(user, "DELETE", IDENTITY, old=described)


def is_the_person(account: SocialAccount, user: User) -> bool:
    """Whether the person came by this identity, rather than having added it."""
    said = account.extra_data
    return (said.get("iss"), said.get("sub")) == (user.iss, user.sub)


def _described(account: SocialAccount) -> dict[str, Any]:
    return {name: account.extra_data.get(name) for name in ("iss", "sub", "email")}


def _name(authenticator: Authenticator) -> str:
    return str(authenticator.data.get("name", ""))


def _record(user: User, action: str, what: str, **more: Any) -> None:
    audit.record_of_person(user=user, by=Actor.person(user), action=action, target_property=what, **more)
