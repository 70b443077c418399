"""One-time sign-in links: for the first owner, and for whoever the operator makes one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from accounts.actors import Actor
from accounts.credentials import digest, new_url_token
from accounts.errors import Gone
from accounts.models import SignInLink, Tailnet, User
from accounts.services import audit

LIFETIME = timedelta(minutes=15)
KEPT_AFTER_EXPIRY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class NewLink:
    """A link just made; ``token`` goes into ``<URL>/sign-in/link/TOKEN`` and is not stored."""

    token: str = field(repr=False)
    expires: datetime


@dataclass(frozen=True, slots=True)
class SignIn:
    """Whom a link signs in, and the tailnet that their session opens with (``None``: any of theirs)."""

    user: User
    tailnet: Tailnet | None


def create_link(
    *, user: User, tailnet: Tailnet | None = None, by: Actor | None = None, now: datetime | None = None
) -> NewLink:
    """Make a link for one person; it lives 15 minutes and works once. ``by``: a command unless said."""
    now = now or timezone.now()
    secret = new_url_token()
    with transaction.atomic():
        link = SignInLink.objects.create(
            token_hash=secret.digest, user=user, tailnet=tailnet, created=now, expires=now + LIFETIME
        )
        audit.record_of_person(user=user, by=by or Actor.command(), action="CREATE_SIGN_IN_LINK")
    return NewLink(token=secret.text, expires=link.expires)


def use_link(*, token: str, now: datetime | None = None) -> SignIn:
    """Consume a link; raises :class:`Gone` when it is unknown, used or old, or its person is switched off."""
    now = now or timezone.now()
    with transaction.atomic():
        link = (
            SignInLink.objects.select_for_update(of=("self",))
            .select_related("user", "tailnet")
            .filter(token_hash=digest(token))
            .first()
        )
        if link is None or link.used_at is not None or link.expires <= now or not link.user.is_active:
            raise Gone("this sign-in link was used or has run out")
        link.used_at = now
        link.save(update_fields=["used_at"])
        audit.record_of_person(
            user=link.user, by=Actor.person(link.user), action="LOGIN", details="by a sign-in link"
        )
        return SignIn(link.user, link.tailnet)


def clean_links(*, now: datetime | None = None) -> int:
    """Delete links that ran out a day ago; returns how many."""
    cutoff = (now or timezone.now()) - KEPT_AFTER_EXPIRY
    return SignInLink.objects.filter(expires__lt=cutoff).delete()[0]
