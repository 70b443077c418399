"""API tokens and OAuth clients: made, checked, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import write
from accounts.credentials import API_KEY_PREFIX, OAUTH_CLIENT_PREFIX, new_secret
from accounts.errors import Conflict, Invalid
from accounts.models import ApiToken, Membership, OAuthClient, Tailnet, User
from accounts.services import audit
from accounts.tenancy import find_by_credential, scope

DEFAULT_LIFETIME = timedelta(days=90)
ACCESS_TOKEN_LIFETIME = timedelta(hours=1)
USE_RESOLUTION = timedelta(minutes=1)

AREAS = (
    "all",
    "devices:core",
    "devices:routes",
    "devices:posture_attributes",
    "users",
    "policy_file",
    "dns",
    "auth_keys",
    "oauth_keys",
    "federated_keys",
    "feature_settings",
    "account_settings",
    "services",
    "log_streaming",
)
SCOPES = frozenset({*AREAS, *(f"{area}:read" for area in AREAS), "logs:configuration:read"})


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token just made; ``text`` is shown once."""

    token: ApiToken
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewClient:
    """An OAuth client just made; ``text`` is its secret, shown once."""

    client: OAuthClient
    text: str = field(repr=False)


def check_scopes(scopes: Sequence[str]) -> list[str]:
    """The scopes, sorted, each once; raises :class:`Invalid` on an unknown or missing one."""
    unknown = sorted(set(scopes) - SCOPES)
    if unknown:
        raise Invalid(f"unknown scope {', '.join(unknown)}; the scopes are {', '.join(sorted(SCOPES))}")
    if not scopes:
        raise Invalid("a token needs at least one scope")
    return sorted(set(scopes))


def create_api_token(
    *,
    tailnet: Tailnet,
    user: User | None,
    by: Actor,
    scopes: Sequence[str] = ("all",),
    description: str = "",
    lifetime: timedelta = DEFAULT_LIFETIME,
    oauth_client: OAuthClient | None = None,
    tags: Sequence[str] = (),
    now: datetime | None = None,
) -> NewToken:
    """Make a token that acts as a member (or as an OAuth client) with at most these scopes."""
    now = now or timezone.now()
    secret = new_secret(API_KEY_PREFIX)
    with write(tailnet) as change:
        if user is not None and not Membership.objects.filter(user=user).exists():
            raise Invalid(f"{user.login_name} is not in the tailnet {tailnet.name}")
        token = ApiToken.objects.create(
            tailnet=change.tailnet,
            user=user,
            oauth_client=oauth_client,
            public_id=secret.public_id,
            secret_hash=secret.digest,
            description=description,
            scopes=check_scopes(scopes),
            tags=list(tags),
            created=now,
            expires=now + lifetime,
        )
        if oauth_client is None:  # hourly access tokens are no news
            audit.record(
                tailnet=change.tailnet,
                by=by,
                action="CREATE",
                target_type="API_KEY",
                target_id=token.public_id,
                target_name=description,
                new={"scopes": token.scopes},
            )
    return NewToken(token, secret.text)


def authenticate_token(*, text: str, now: datetime | None = None) -> ApiToken | None:
    """The token, with its tailnet and user loaded, if it is valid and its owner may act; else ``None``.

    Checked at use: expiry, revocation, the owner's membership, and the OAuth client's revocation.
    """
    now = now or timezone.now()
    found = find_by_credential("api_token", text)
    if found is None:
        return None
    with scope(tailnet=found.tailnet):
        token = ApiToken.objects.select_related("tailnet", "user", "oauth_client").filter(pk=found.pk).first()
        if token is None or not _is_valid(token, now):
            return None
        if token.last_used_at is None or now - token.last_used_at > USE_RESOLUTION:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
        return token


def _is_valid(token: ApiToken, now: datetime) -> bool:
    if token.revoked_at is not None or (token.expires is not None and token.expires <= now):
        return False
    if token.oauth_client is not None:
        return token.oauth_client.revoked_at is None
    if token.user is None or not token.user.is_active:
        return False
    return Membership.objects.filter(user=token.user, status=Membership.Status.ACTIVE).exists()


def revoke_api_token(*, token: ApiToken, by: Actor, now: datetime | None = None) -> ApiToken:
    """Make a token useless at once; it stays in the list."""
    with write(token.tailnet_id) as change:
        row = ApiToken.objects.get(pk=token.pk)
        if row.revoked_at is None:
            row.revoked_at = now or timezone.now()
            row.save(update_fields=["revoked_at"])
            audit.record(
                tailnet=change.tailnet,
                by=by,
                action="REVOKE",
                target_type="API_KEY",
                target_id=row.public_id,
                target_name=row.description,
            )
        return row


def create_oauth_client(
    *, tailnet: Tailnet, by: Actor, scopes: Sequence[str], description: str = "", tags: Sequence[str] = ()
) -> NewClient:
    """Make a client for the client-credentials grant."""
    secret = new_secret(OAUTH_CLIENT_PREFIX)
    with write(tailnet) as change:
        client = OAuthClient.objects.create(
            tailnet=change.tailnet,
            created_by=by.user,
            public_id=secret.public_id,
            secret_hash=secret.digest,
            description=description,
            scopes=check_scopes(scopes),
            tags=list(tags),
        )
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="CREATE",
            target_type="OAUTH_CLIENT",
            target_id=client.public_id,
            target_name=description,
            new={"scopes": client.scopes, "tags": client.tags},
        )
    return NewClient(client, secret.text)


def issue_access_token(*, client_secret: str, now: datetime | None = None) -> NewToken:
    """Trade an OAuth client's secret for a token that lives one hour."""
    client = find_by_credential("oauth_client", client_secret)
    if client is None or client.revoked_at is not None:
        raise Conflict("the client secret is unknown or revoked")
    return create_api_token(
        tailnet=client.tailnet,
        user=None,
        by=Actor.token(client.public_id, None),
        scopes=client.scopes,
        tags=client.tags,
        lifetime=ACCESS_TOKEN_LIFETIME,
        oauth_client=client,
        now=now,
    )


def revoke_oauth_client(*, client: OAuthClient, by: Actor, now: datetime | None = None) -> OAuthClient:
    """Make a client and every token it got useless at once."""
    with write(client.tailnet_id) as change:
        row = OAuthClient.objects.get(pk=client.pk)
        if row.revoked_at is None:
            row.revoked_at = now or timezone.now()
            row.save(update_fields=["revoked_at"])
            audit.record(
                tailnet=change.tailnet,
                by=by,
                action="REVOKE",
                target_type="OAUTH_CLIENT",
                target_id=row.public_id,
                target_name=row.description,
            )
        return row
