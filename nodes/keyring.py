"""The keys page: what a URL asks for, as a value; the query that it means; the rows that come of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Count, Max, Q, QuerySet
from django.db.models.functions import Coalesce
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.access import visible_clients, visible_tokens
from accounts.models import ApiToken, Membership, OAuthClient
from accounts.roles import Capability, can
from accounts.scopes import may_make_tokens
from nodes.access import visible_keys
from nodes.rows import KEY_STATES, Shown, key_row

MAX_SEARCH = 100
AUTH_KEYS, TOKENS, CLIENTS = "auth-keys", "tokens", "clients"
TABS: dict[str, Promise] = {
    AUTH_KEYS: _("Auth keys"),
    TOKENS: _("API tokens"),
    CLIENTS: _("OAuth clients"),
}
STATES: dict[str, Promise] = {"": _("Every state"), "active": _("Active"), "ended": _("Used up or ended")}
MAX_SHOWN_SCOPES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyQuery:
    """Which list and its filters, as the URL has them; whatever it has wrongly is left out."""

    show: str = AUTH_KEYS
    search: str = ""
    state: str = ""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> KeyQuery:
        show, state = str(values.get("show", "")), str(values.get("state", ""))
        return cls(
            show=show if show in TABS else AUTH_KEYS,
            search=str(values.get("q", "")).replace("\x00", "").strip()[:MAX_SEARCH],
            state=state if state in STATES else "",
        )

    @property
    def narrows(self) -> bool:
        return bool(self.search or self.state)


def kinds_for(membership: Membership) -> Sequence[str]:
    """The tabs that a person has: OAuth clients are for those who see everything."""
    return tuple(TABS) if can(membership, Capability.SEE_ALL) else (AUTH_KEYS, TOKENS)


def may_make(membership: Membership, show: str) -> bool:
    """Whether a person may make one more of a list."""
    return can(membership, Capability.MANAGE_SETTINGS) if show == CLIENTS else may_make_tokens(membership)


def visible(membership: Membership, show: str) -> QuerySet[Any]:
    """All that a person sees of a list."""
    lists = {AUTH_KEYS: visible_keys, TOKENS: visible_tokens, CLIENTS: visible_clients}
    return lists[show](membership)


def select(query: KeyQuery, among: QuerySet[Any], now: datetime) -> QuerySet[Any]:
    """What the filters leave, with the numbers that rows show."""
    live = {AUTH_KEYS: _live_keys, TOKENS: _live_tokens, CLIENTS: _live_clients}[query.show](now)
    if query.state:
        among = among.filter(live) if query.state == "active" else among.exclude(live)
    if query.search:
        among = among.filter(_names(query))
    if query.show == AUTH_KEYS:
        among = among.annotate(device_count=Count("nodes"))
    if query.show == CLIENTS:
        in_use = Q(access_tokens__revoked_at=None, access_tokens__expires__gt=now)
        used = Max(Coalesce("access_tokens__last_used_at", "access_tokens__created"))
        among = among.annotate(token_count=Count("access_tokens", filter=in_use), last_used_at=used)
    return among


def _live_keys(now: datetime) -> Q:
    return Q(revoked_at=None, expires__gt=now) & (Q(reusable=True) | Q(uses=0))


def _live_tokens(now: datetime) -> Q:
    return Q(revoked_at=None) & (Q(expires=None) | Q(expires__gt=now))


def _live_clients(_now: datetime) -> Q:
    return Q(revoked_at=None)


def _names(query: KeyQuery) -> Q:
    person = "created_by" if query.show == CLIENTS else "user"
    found = Q(description__icontains=query.search) | Q(public_id__icontains=query.search)
    return found | Q(**{f"{person}__email__icontains": query.search})


# --- rows --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretRow:
    """An API token or OAuth client, for its row; ``more`` scopes are not named."""

    secret: ApiToken | OAuthClient
    state: Shown
    scopes: Sequence[str]
    more: int
    may_revoke: bool


def token_row(token: ApiToken, membership: Membership, now: datetime) -> SecretRow:
    """What the list shows of a token: one's own may be revoked, and anybody's by who manages settings."""
    word = "active"
    if token.revoked_at is not None:
        word = "revoked"
    elif token.expires is not None and token.expires <= now:
        word = "expired"
    own = token.user_id == membership.user_id
    return _secret_row(token, word, own or can(membership, Capability.MANAGE_SETTINGS))


def client_row(client: OAuthClient, membership: Membership) -> SecretRow:
    """What the list shows of a client."""
    word = "active" if client.revoked_at is None else "revoked"
    return _secret_row(client, word, can(membership, Capability.MANAGE_SETTINGS))


def _secret_row(secret: ApiToken | OAuthClient, word: str, may_revoke: bool) -> SecretRow:
    return SecretRow(
        secret=secret,
        state=KEY_STATES[word],
        scopes=secret.scopes[:MAX_SHOWN_SCOPES],
        more=max(0, len(secret.scopes) - MAX_SHOWN_SCOPES),
        may_revoke=may_revoke and word == "active",
    )


def rows_of(show: str, page: Sequence[Any], membership: Membership, now: datetime) -> list[Any]:
    """A page's rows."""
    if show == TOKENS:
        return [token_row(token, membership, now) for token in page]
    if show == CLIENTS:
        return [client_row(client, membership) for client in page]
    creates = can(membership, Capability.CREATE_KEYS)
    return [key_row(key, may_revoke=creates or key.user_id == membership.user_id, now=now) for key in page]


def row_of(show: str, pk: int, membership: Membership, now: datetime) -> Any:
    """One row as it is now."""
    chosen = select(KeyQuery(show=show), visible(membership, show).filter(pk=pk), now)
    return rows_of(show, list(chosen), membership, now)[0]
