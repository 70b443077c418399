"""Pre-auth keys: made, listed once, used, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db.models import F
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import write
from accounts.credentials import AUTH_KEY_PREFIX, new_secret
from accounts.errors import Forbidden, Invalid
from accounts.models import Membership, Tailnet, User
from accounts.roles import Capability, can
from accounts.services import audit
from nodes.models import PreAuthKey
from nodes.services.tagging import refuse_unknown_tags
from nodes.tags import MAX_TAGS, invalid_tags, normalise_tags

DEFAULT_LIFETIME = timedelta(days=90)
MAX_LIFETIME = timedelta(days=90)
MAX_DESCRIPTION = 200


@dataclass(frozen=True, slots=True)
class NewAuthKey:
    """A key just made; ``text`` is shown once."""

    key: PreAuthKey
    text: str = field(repr=False)


def create_auth_key(
    *,
    tailnet: Tailnet,
    by: Actor,
    user: User | None = None,
    reusable: bool = False,
    ephemeral: bool = False,
    preauthorized: bool = False,
    tags: Sequence[str] = (),
    lifetime: timedelta = DEFAULT_LIFETIME,
    description: str = "",
    now: datetime | None = None,
) -> NewAuthKey:
    """Make a key. Nodes that join by it belong to ``user``, or to ``tags`` when there are any.

    Without a user and tags it belongs to the person who makes it. Whoever may not approve devices cannot
    make a key that approves them.
    """
    now = now or timezone.now()
    tags = normalise_tags(tags)
    owner = None if tags else (user or by.user)
    _check_shape(owner, tags, lifetime, description)
    secret = new_secret(AUTH_KEY_PREFIX)
    with write(tailnet) as change:
        _check_rights(by, owner, tags, preauthorized)
        refuse_unknown_tags(change.tailnet, tags)
        key = PreAuthKey.objects.create(
            tailnet=change.tailnet,
            user=owner,
            created_by=by.user,
            public_id=secret.public_id,
            secret_hash=secret.digest,
            description=description,
            reusable=reusable,
            ephemeral=ephemeral,
            preauthorized=preauthorized,
            tags=tags,
            created=now,
            expires=now + lifetime,
        )
        change.upsert("preauthkey", key.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="CREATE",
            target_type="AUTH_KEY",
            target_id=key.public_id,
            target_name=description,
            new={
                "reusable": reusable,
                "ephemeral": ephemeral,
                "preauthorized": preauthorized,
                "tags": tags,
                "user": owner.login_name if owner is not None else None,
            },
        )
    return NewAuthKey(key, secret.text)


def _check_shape(owner: User | None, tags: Sequence[str], lifetime: timedelta, description: str) -> None:
    if owner is None and not tags:
        raise Invalid("a key belongs to a person or has tags")
    bad = invalid_tags(tags)
    if bad:
        raise Invalid(f"not a tag: {', '.join(bad)}; write tag:, a letter, then letters, digits and hyphens")
    if len(tags) > MAX_TAGS:
        raise Invalid(f"a key has at most {MAX_TAGS} tags")
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise Invalid(f"a key lives at most {MAX_LIFETIME.days} days")
    if len(description) > MAX_DESCRIPTION:
        raise Invalid(f"a description has at most {MAX_DESCRIPTION} characters")


def _check_rights(by: Actor, owner: User | None, tags: Sequence[str], preauthorized: bool) -> None:
    if owner is not None and not Membership.objects.filter(user=owner).exists():
        raise Invalid(f"{owner.login_name} is not in this tailnet")
    if by.user is None:  # a command or the system
        return
    acting = Membership.objects.filter(user=by.user).first()
    if tags:
        allowed = can(acting, Capability.CREATE_TAGGED_KEYS)
    elif owner == by.user:
        allowed = can(acting, Capability.CREATE_OWN_KEYS) or can(acting, Capability.CREATE_KEYS)
    else:
        allowed = can(acting, Capability.CREATE_KEYS)
    if not allowed:
        raise Forbidden("your role does not let you make this key")
    if preauthorized and not can(acting, Capability.MANAGE_DEVICES):
        raise Forbidden("your role cannot approve devices, so it cannot make a pre-approved key")


def consume_auth_key(*, key: PreAuthKey, now: datetime) -> None:
    """Count one use, inside the write transaction that makes the node."""
    PreAuthKey.objects.filter(pk=key.pk).update(uses=F("uses") + 1, last_used_at=now)
    key.uses += 1
    key.last_used_at = now


def revoke_auth_key(*, key: PreAuthKey, by: Actor, now: datetime | None = None) -> PreAuthKey:
    """Make a key useless at once. Nodes that joined by it stay."""
    with write(key.tailnet_id) as change:
        row = PreAuthKey.objects.get(pk=key.pk)
        if row.revoked_at is None:
            row.revoked_at = now or timezone.now()
            row.save(update_fields=["revoked_at"])
            change.upsert("preauthkey", row.pk)
            audit.record(
                tailnet=change.tailnet,
                by=by,
                action="REVOKE",
                target_type="AUTH_KEY",
                target_id=row.public_id,
                target_name=row.description,
            )
        return row
