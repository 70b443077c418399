"""A provider's public keys: kept for an hour, fetched anew for an unknown key at most once a minute.

Source: RFC 7517 (keys), RFC 7518 section 3 (which algorithm takes which key).
"""

from __future__ import annotations

from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from django.core.cache import cache

from accounts.openid.documents import fetch
from accounts.openid.errors import SignInRefused
from accounts.openid.metadata import cache_key

KEPT_SECONDS = 3600
REFETCH_SECONDS = 60
MAX_KEYS = 100
MIN_RSA_BITS = 2048
# The algorithms that count, and what a key must be for them. Everything else, "none" and shared secrets
# above all, is refused by not being here.
SHAPES: dict[str, dict[str, str]] = {
    "RS256": {"kty": "RSA"},
    "ES256": {"kty": "EC", "crv": "P-256"},
}


def key_for(jwks_uri: str, algorithm: str, kid: str) -> jwt.PyJWK:
    """The one key of this name that signs with this algorithm; raises :class:`SignInRefused`."""
    cached = cache.get(cache_key("keys", jwks_uri))
    found = choose(cached, algorithm, kid) if cached is not None else None
    if found is None:
        found = choose(_fetch(jwks_uri), algorithm, kid)
    if found is None:
        raise SignInRefused("key")
    return found


def _fetch(jwks_uri: str) -> list[dict[str, Any]]:
    """The keys as they are now; within a minute of the last time this is refused."""
    if not cache.add(cache_key("keys-fetched", jwks_uri), True, REFETCH_SECONDS):
        raise SignInRefused("key")
    try:
        keys = fetch(jwks_uri).get("keys")
    except SignInRefused:
        cache.delete(cache_key("keys-fetched", jwks_uri))  # nothing was learned: the next login may ask
        raise
    if not isinstance(keys, list) or len(keys) > MAX_KEYS:
        raise SignInRefused("malformed")
    known = [one for one in keys if isinstance(one, dict)]
    cache.set(cache_key("keys", jwks_uri), known, KEPT_SECONDS)
    return known


def choose(keys: list[dict[str, Any]], algorithm: str, kid: str) -> jwt.PyJWK | None:
    """The key of this name, if it is one for signing by this algorithm and no other has the same name."""
    named = [one for one in keys if one.get("kid") == kid]
    if len(named) != 1:
        return None
    jwk, shape = named[0], SHAPES[algorithm]
    if any(jwk.get(name) != value for name, value in shape.items()):
        return None
    if jwk.get("use", "sig") != "sig" or jwk.get("alg", algorithm) != algorithm:
        return None
    try:
        key = jwt.PyJWK(jwk, algorithm)
    except (jwt.PyJWTError, ValueError):
        return None
    weak = isinstance(key.key, RSAPublicKey) and key.key.key_size < MIN_RSA_BITS
    return None if weak else key
