"""ID tokens: signature always, then every claim that ties one to this login.

Source: OpenID Connect Core 1.0, sections 2 and 3.1.3.7; RFC 7515; RFC 8725 (best current practices).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt

from accounts.openid.documents import parse_object
from accounts.openid.errors import SignInRefused
from accounts.openid.keys import SHAPES

MAX_TOKEN = 16 * 1024  # characters
MAX_SUBJECT = 255  # OpenID Connect Core, section 2
MAX_KID = 255
MAX_MOMENT = 2**53  # Unix time; every whole second up to here is a float
LEEWAY_SECONDS = 60
MAX_AGE_SECONDS = 600  # a login is given up after ten minutes: its token cannot be older
COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

KeyFinder = Callable[[str, str], jwt.PyJWK]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the token of one login must say. ``issuers``: every spelling of the provider's name."""

    issuers: frozenset[str]
    client_id: str
    nonce: str = field(repr=False)
    access_token: str = field(repr=False)


def verify(token: str, *, key_for: KeyFinder, expected: Expected, now: float) -> dict[str, Any]:
    """The claims of a token that is the provider's own, fresh, and meant for this login of this client.

    ``key_for(algorithm, kid)`` finds the public key; ``now`` is Unix time. Raises :class:`SignInRefused`,
    whose code says what was wrong.
    """
    claims = _signed_claims(token, key_for)
    _check_parties(claims, expected)
    _check_times(claims, now)
    _check_login(claims, expected)
    return claims


def _signed_claims(token: str, key_for: KeyFinder) -> dict[str, Any]:
    if len(token) > MAX_TOKEN:
        raise SignInRefused("oversized")
    if not COMPACT.fullmatch(token):
        raise SignInRefused("malformed")
    header = _object(token.partition(".")[0])
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in SHAPES:
        raise SignInRefused("algorithm")
    if "crit" in header:  # extensions that must be understood; none is
        raise SignInRefused("header")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise SignInRefused("key")
    key = key_for(algorithm, kid)
    try:
        jwt.PyJWS(algorithms=[algorithm]).decode(token, key=key, algorithms=[algorithm])
    except (jwt.PyJWTError, ValueError) as error:
        raise SignInRefused("signature") from error
    return _object(token.split(".")[1])


def _object(part: str) -> dict[str, Any]:
    """A header or payload: base64url of a JSON object in which no name stands twice."""
    try:
        return parse_object(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except ValueError as error:
        raise SignInRefused("malformed") from error


def _check_parties(claims: dict[str, Any], expected: Expected) -> None:
    """Who made it, for whom, about whom."""
    issuer = claims.get("iss")
    if not isinstance(issuer, str) or issuer not in expected.issuers:
        raise SignInRefused("issuer")
    audience = claims.get("aud")
    # With more than one audience another party could use the same token here.
    if audience not in (expected.client_id, [expected.client_id]):
        raise SignInRefused("audience")
    if claims.get("azp", expected.client_id) != expected.client_id:
        raise SignInRefused("authorized-party")
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= MAX_SUBJECT or not subject.isprintable():
        raise SignInRefused("subject")


def _check_times(claims: dict[str, Any], now: float) -> None:
    expires, issued = _moment(claims, "exp"), _moment(claims, "iat")
    if expires + LEEWAY_SECONDS <= now:
        raise SignInRefused("expired")
    if issued - LEEWAY_SECONDS > now:
        raise SignInRefused("not-yet")
    if issued + MAX_AGE_SECONDS + LEEWAY_SECONDS < now:
        raise SignInRefused("too-old")
    if "nbf" in claims and _moment(claims, "nbf") - LEEWAY_SECONDS > now:
        raise SignInRefused("not-yet")


def _moment(claims: dict[str, Any], name: str) -> float:
    value = claims.get(name)
    # Neither infinite, nor no number, nor an integer of a size that arithmetic with fractions does not take.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_MOMENT:
        raise SignInRefused("time")
    return value


def _check_login(claims: dict[str, Any], expected: Expected) -> None:
    """That it answers this login and came with this access token."""
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not expected.nonce or not _same(nonce, expected.nonce):
        raise SignInRefused("nonce")
    said = claims.get("at_hash")
    if said is not None and not (isinstance(said, str) and _same(said, half_hash(expected.access_token))):
        raise SignInRefused("access-token")


def half_hash(text: str) -> str:
    """``at_hash`` (section 3.1.3.6): half of a SHA-256, the hash of both algorithms, in base64url."""
    half = hashlib.sha256(text.encode()).digest()[:16]
    return base64.urlsafe_b64encode(half).rstrip(b"=").decode()


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
