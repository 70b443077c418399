"""Whom a verified token is about, as far as it concerns us."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import urlsplit

from django.core.exceptions import ValidationError
from django.core.validators import validate_email

from accounts.groups import groups_in
from accounts.openid.errors import SignInRefused

MAX_EMAIL = 254
MAX_NAME = 200
MAX_PICTURE_URL = 1000
MAX_DOMAIN = 253
PICTURE_HOSTS = ".googleusercontent.com"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A person at a provider: ``iss`` and ``sub`` are who they are, the rest is what they are called.

    ``hosted_domain`` is Google's word on the organisation that owns the account; empty from anybody else.
    ``groups`` are those of the claim that the operator named, as access rules name them (``group:…``).
    """

    iss: str
    sub: str
    email: str
    name: str = ""
    picture: str = ""
    hosted_domain: str = ""
    groups: tuple[str, ...] = ()

    @property
    def uid(self) -> str:
        """One text of bounded length for issuer and subject: equal subjects of two issuers are two people."""
        return hashlib.sha256(f"{len(self.iss)}:{self.iss}{self.sub}".encode()).hexdigest()

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON has it."""
        return asdict(self) | {"groups": list(self.groups)}


def identity_of(
    claims: dict[str, Any], *, issuer: str, says_domain: bool, groups_claim: str = ""
) -> Identity:
    """Read the claims of a verified token; raises :class:`SignInRefused` unless the address is verified.

    ``issuer`` is the provider's one name, whatever spelling the token has. ``says_domain``: whether this
    provider's ``hd`` counts. ``groups_claim`` names the claim that has the person's groups; "" = none has.
    """
    email = claims.get("email")
    # `is True`, not truth: a provider that says "false" as text must not count as verified.
    if claims.get("email_verified") is not True or not isinstance(email, str):
        raise SignInRefused("unverified")
    try:
        validate_email(email)
    except ValidationError as error:
        raise SignInRefused("unverified") from error
    if len(email) > MAX_EMAIL:
        raise SignInRefused("unverified")
    return Identity(
        iss=issuer,
        sub=claims["sub"],
        email=email,
        name=_text(claims, "name")[:MAX_NAME],
        picture=_picture(claims),
        hosted_domain=_domain(claims) if says_domain else "",
        groups=groups_in(claims.get(groups_claim)) if groups_claim else (),
    )


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims.get(name)
    return value if isinstance(value, str) and value.isprintable() else ""


def _picture(claims: dict[str, Any]) -> str:
    """An address that the pages' content policy lets a browser load, or none."""
    address = _text(claims, "picture")
    parts = urlsplit(address) if len(address) <= MAX_PICTURE_URL else None
    shown = parts is not None and parts.scheme == "https" and f".{parts.netloc}".endswith(PICTURE_HOSTS)
    return address if shown else ""


def _domain(claims: dict[str, Any]) -> str:
    domain = claims.get("hd", "")
    if not isinstance(domain, str) or len(domain) > MAX_DOMAIN:
        raise SignInRefused("domain")
    return domain.lower()
