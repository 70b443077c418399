"""What a provider says of itself: where people are sent, where codes are redeemed, where its keys are.

Source: OpenID Connect Discovery 1.0, section 4. Kept in the cache for an hour.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from django.core.cache import cache

from accounts.openid.documents import fetch
from accounts.openid.errors import SignInRefused

KEPT_SECONDS = 3600
FAILED_SECONDS = 30  # a provider that does not answer holds up one page in this time
WELL_KNOWN = "/.well-known/openid-configuration"
GOOGLE_ISSUER = "https://accounts.google.com"


@dataclass(frozen=True, slots=True)
class Metadata:
    """A provider's own word. ``basic_auth``: how it wants the secret; ``names_itself``: RFC 9207."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    basic_auth: bool = False
    names_itself: bool = False

    @property
    def origin(self) -> str:
        """Where people are sent, as a source of ``form-action``."""
        parts = urlsplit(self.authorization_endpoint)
        return f"{parts.scheme}://{parts.netloc}"


# What Google publishes at its issuer's well-known address; these do not move.
GOOGLE = Metadata(
    issuer=GOOGLE_ISSUER,
    authorization_endpoint="https://accounts.google.com/o/oauth2/v2/auth",
    token_endpoint="https://oauth2.googleapis.com/token",  # noqa: S106 - an address
    jwks_uri="https://www.googleapis.com/oauth2/v3/certs",
)


def cache_key(kind: str, name: str) -> str:
    """A key for the cache, of bounded length whatever the name."""
    return f"openid.{kind}.{hashlib.sha256(name.encode()).hexdigest()}"


def metadata_of(issuer: str) -> Metadata:
    """The metadata of the provider that the operator named; raises :class:`SignInRefused`."""
    if issuer == GOOGLE_ISSUER:
        return GOOGLE
    key = cache_key("metadata", issuer)
    document = cache.get(key)
    if document == "failed":
        raise SignInRefused("unreachable")
    if document is None:
        try:
            document = fetch(issuer.rstrip("/") + WELL_KNOWN)
            found = parse_metadata(document, issuer)
        except SignInRefused:
            cache.set(key, "failed", FAILED_SECONDS)
            raise
        cache.set(key, document, KEPT_SECONDS)
        return found
    return parse_metadata(document, issuer)


def parse_metadata(document: dict[str, Any], issuer: str) -> Metadata:
    """Check that the document is this issuer's, and that its addresses are as safe as the issuer's own."""
    said = document.get("issuer")
    if not isinstance(said, str) or said.rstrip("/") != issuer.rstrip("/"):
        raise SignInRefused("metadata-issuer")
    methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
    methods = methods if isinstance(methods, list) else []
    return Metadata(
        issuer=said,
        authorization_endpoint=_address(document, "authorization_endpoint", issuer),
        token_endpoint=_address(document, "token_endpoint", issuer),
        jwks_uri=_address(document, "jwks_uri", issuer),
        basic_auth="client_secret_post" not in methods,
        names_itself=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _address(document: dict[str, Any], name: str, issuer: str) -> str:
    address = document.get(name)
    if not isinstance(address, str):
        raise SignInRefused("malformed")
    parts, allowed = urlsplit(address), {"https", urlsplit(issuer).scheme}
    if parts.scheme not in allowed or not parts.hostname or parts.fragment or "@" in parts.netloc:
        raise SignInRefused("metadata-address")
    return address
