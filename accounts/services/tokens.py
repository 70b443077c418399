"""API tokens and OAuth clients: made, checked, revoked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from django.db.models import F, OuterRef, Q, Subquery
from django.db.models.functions import Coalesce
from django.utils import timezone

from accounts.actors import Actor
from accounts.changes import write
from accounts.credentials import API_KEY_PREFIX, OAUTH_CLIENT_PREFIX, new_secret
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import ApiToken, Membership, OAuthClient, Tailnet, User
from accounts.roles import Capability, can
from accounts.scopes import SCOPES, common, includes, may_make_tokens, scopes_of
from accounts.services import audit
from accounts.tenancy import find_by_credential, scope

DEFAULT_LIFETIME = timedelta(days=90)
ACCESS_TOKEN_LIFETIME = timedelta(hours=1)
USE_RESOLUTION = timedelta(minutes=1)

MAX_LIFETIME = timedelta(days=365)
MAX_DESCRIPTION = 200
MAX_TAGS = 20
MAX_CLEANED = 5000  # ended access tokens that one sweep deletes
TOKEN, CLIENT = "apitoken", "oauthclient"  # how changes name them to pages


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


def _may_give(by: Actor, user: User | None, scopes: Sequence[str], tags: Sequence[str] = ()) -> None:
    """To oneself what one's role can do; to a client (no user) only what it can do to everybody's."""
    if by.user is None:  # a command
        return
    acting = Membership.objects.filter(user=by.user).first()
    may = may_make_tokens(acting) if user is not None else can(acting, Capability.MANAGE_SETTINGS)
    if acting is None or not may or user not in (None, by.user):
        raise Forbidden("your role does not include this")
    if tags and not can(acting, Capability.CREATE_TAGGED_KEYS):
        raise Forbidden("your role does not include tags")
    beyond = sorted(set(scopes) - set(scopes_of(acting, own=user is not None)))
    if beyond:
        raise Forbidden(f"your role does not include {', '.join(beyond)}")


def _check_shape(description: str, tags: Sequence[str]) -> None:
    if len(description) > MAX_DESCRIPTION:
        raise Invalid(f"a description has at most {MAX_DESCRIPTION} characters")
    if len(tags) > MAX_TAGS:
        raise Invalid(f"there are at most {MAX_TAGS} tags")


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
    """Make a token that acts as a member (or as an OAuth client) with at most these scopes.

    A person makes their own only. Raises :class:`Invalid` on wrong values, :class:`Forbidden` on scopes that
    the person's role does not include.
    """
    now = now or timezone.now()
    _check_shape(description, tags)
    if not timedelta(0) < lifetime <= MAX_LIFETIME:
        raise Invalid(f"a token lives at most {MAX_LIFETIME.days} days")
    secret, scopes = new_secret(API_KEY_PREFIX), check_scopes(scopes)
    with write(tailnet) as change:
        if user is not None and not Membership.objects.filter(user=user).exists():
            raise Invalid(f"{user.login_name} is not in the tailnet {tailnet.name}")
        if oauth_client is None:
            _may_give(by, user, scopes)
        token = ApiToken.objects.create(
            tailnet=change.tailnet,
            user=user,
            oauth_client=oauth_client,
            public_id=secret.public_id,
            secret_hash=secret.digest,
            description=description,
            scopes=scopes,
            tags=list(tags),
            created=now,
            expires=now + lifetime,
        )
        if oauth_client is None:  # hourly access tokens are no news
            change.upsert(TOKEN, token.pk)
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


@dataclass(frozen=True, slots=True)
class Proven:
    """A token that is valid, and its person's place in its tailnet; none = an OAuth client's."""

    token: ApiToken
    place: Membership | None


def authenticate_token(*, text: str, now: datetime | None = None) -> Proven | None:
    """The token, with its tailnet and user loaded, if it is valid and its owner may act; else ``None``.

    Checked at use: expiry, revocation, the owner's membership, and the OAuth client's revocation; and what
    its client may no longer do, an access token may not either.
    """
    now = now or timezone.now()
    token: ApiToken | None = find_by_credential("api_token", text)
    if token is None or token.revoked_at is not None or (token.expires is not None and token.expires <= now):
        return None
    with scope(tailnet=token.tailnet):
        place = _place(token)
        if place is None and (token.oauth_client is None or token.oauth_client.revoked_at is not None):
            return None
        if token.last_used_at is None or now - token.last_used_at > USE_RESOLUTION:
            ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
        _bind(token)
        return Proven(token, place)


def _place(token: ApiToken) -> Membership | None:
    """Where the token's person acts, read with the person in one query: every call of the API asks."""
    if token.oauth_client_id is not None or token.user_id is None:
        return None
    active = Membership.objects.filter(status=Membership.Status.ACTIVE, user__is_active=True)
    place = active.select_related("user").filter(user_id=token.user_id).first()
    if place is not None:
        place.tailnet, token.user = token.tailnet, place.user
    return place


def _bind(token: ApiToken) -> None:
    """Narrow an access token, in memory, to what its client includes now."""
    client = token.oauth_client
    if client is not None and (token.scopes, token.tags) != (client.scopes, client.tags):
        token.scopes = common(token.scopes, client.scopes)
        token.tags = [tag for tag in token.tags if tag in client.tags]


def revoke_api_token(*, token: ApiToken, by: Actor, now: datetime | None = None) -> ApiToken:
    """Make a token useless at once; it stays in the list."""
    with write(token.tailnet_id) as change:
        row = ApiToken.objects.get(pk=token.pk)
        if row.revoked_at is None:
            row.revoked_at = now or timezone.now()
            row.save(update_fields=["revoked_at"])
            change.upsert(TOKEN, row.pk)
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
    """Make a client for the client-credentials grant. Raises as :func:`create_api_token` does."""
    secret, scopes = new_secret(OAUTH_CLIENT_PREFIX), check_scopes(scopes)
    _check_shape(description, tags)
    with write(tailnet) as change:
        _may_give(by, None, scopes, tags)
        client = OAuthClient.objects.create(
            tailnet=change.tailnet,
            created_by=by.user,
            public_id=secret.public_id,
            secret_hash=secret.digest,
            description=description,
            scopes=scopes,
            tags=list(tags),
        )
        change.upsert(CLIENT, client.pk)
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


def update_oauth_client(
    *, client: OAuthClient, by: Actor, scopes: Sequence[str], description: str = "", tags: Sequence[str] = ()
) -> OAuthClient:
    """Set what a client is for and may do; the access tokens that it has got have no more from now on.

    Raises as :func:`create_api_token` does.
    """
    scopes = check_scopes(scopes)
    _check_shape(description, tags)
    with write(client.tailnet_id) as change:
        _may_give(by, None, scopes, tags)
        row = OAuthClient.objects.filter(pk=client.pk, revoked_at__isnull=True).first()
        if row is None:
            raise NotFound("this client was revoked")
        old = _terms(row)
        row.description, row.scopes, row.tags = description, scopes, list(tags)
        row.save(update_fields=["description", "scopes", "tags", "updated"])
        change.upsert(CLIENT, row.pk)
        audit.record(
            tailnet=change.tailnet,
            by=by,
            action="UPDATE",
            target_type="OAUTH_CLIENT",
            target_id=row.public_id,
            target_name=row.description,
            old=old,
            new=_terms(row),
        )
        return row


def _terms(client: OAuthClient) -> dict[str, Any]:
    return {"description": client.description, "scopes": client.scopes, "tags": client.tags}


def client_by_secret(secret: str) -> OAuthClient | None:
    """The client that this is the secret of, in whichever tailnet, unless it was revoked."""
    found: OAuthClient | None = find_by_credential("oauth_client", secret)
    return found if found is not None and found.revoked_at is None else None


def issue_access_token(
    *, client_secret: str, scopes: Sequence[str] = (), tags: Sequence[str] = (), now: datetime | None = None
) -> NewToken:
    """Trade an OAuth client's secret for a token that lives one hour; ``scopes`` and ``tags`` narrow it.

    Raises :class:`Conflict` on a secret that is none, :class:`Invalid` on what the client itself lacks.
    """
    client = client_by_secret(client_secret)
    if client is None:
        raise Conflict("the client secret is unknown or revoked")
    beyond = sorted(one for one in scopes if one not in SCOPES or not includes(client.scopes, one))
    beyond += sorted(set(tags) - set(client.tags))
    if beyond:
        raise Invalid(f"this client does not include {', '.join(beyond)}")
    return create_api_token(
        tailnet=client.tailnet,
        user=None,
        by=Actor.token(client.public_id, None),
        scopes=scopes or client.scopes,
        tags=sorted(set(tags)) or client.tags,
        lifetime=ACCESS_TOKEN_LIFETIME,
        oauth_client=client,
        now=now,
    )


def is_ended_access_token(now: datetime) -> Q:
    """Access tokens of OAuth clients that have run out."""
    return Q(oauth_client__isnull=False, expires__lte=now)


def clean_access_tokens(*, now: datetime) -> int:
    """Delete the open scope's access tokens that have run out; returns how many.

    The one that each client used last stays: it tells when that was.
    """
    used = Coalesce("last_used_at", "created")
    siblings = ApiToken.objects.filter(oauth_client=OuterRef("oauth_client")).annotate(used=used)
    last = Subquery(siblings.order_by("-used", "-pk").values("pk")[:1])
    ended = ApiToken.objects.filter(is_ended_access_token(now)).annotate(last=last).exclude(pk=F("last"))
    return ApiToken.objects.filter(pk__in=list(ended.values_list("pk", flat=True)[:MAX_CLEANED])).delete()[0]


def revoke_oauth_client(*, client: OAuthClient, by: Actor, now: datetime | None = None) -> OAuthClient:
    """Make a client and every token it got useless at once."""
    with write(client.tailnet_id) as change:
        row = OAuthClient.objects.get(pk=client.pk)
        if row.revoked_at is None:
            row.revoked_at = now or timezone.now()
            row.save(update_fields=["revoked_at"])
            change.upsert(CLIENT, row.pk)
            audit.record(
                tailnet=change.tailnet,
                by=by,
                action="REVOKE",
                target_type="OAUTH_CLIENT",
                target_id=row.public_id,
                target_name=row.description,
            )
        return row
