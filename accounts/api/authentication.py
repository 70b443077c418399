"""A token in the header ``Authorization``, as Basic's user name or after ``Bearer``."""

from __future__ import annotations

import base64
import binascii

from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.request import Request

from accounts.api.callers import Caller, place_of_client
from accounts.limits import address_of, check_limit, count_attempt
from accounts.models import ApiToken
from accounts.services.tokens import authenticate_token

MAX_TOKEN = 200  # characters
WRONG, MAX_WRONG = "api-wrong", 60  # wrong tokens a minute, from one place
REFUSED = "API token invalid"


class TokenAuthentication(BaseAuthentication):
    """``request.user`` becomes the :class:`Caller`. A wrong token is refused even where none is needed."""

    def authenticate(self, request: Request) -> tuple[Caller, ApiToken] | None:
        text = presented(request.META.get("HTTP_AUTHORIZATION", ""))
        if text is None:
            return None
        address = address_of(request)
        check_limit(WRONG, address, limit=MAX_WRONG)
        proven = authenticate_token(text=text) if 0 < len(text) <= MAX_TOKEN else None
        if proven is None:
            count_attempt(WRONG, address)
            raise AuthenticationFailed(REFUSED)
        return Caller(proven.token, proven.place or place_of_client(proven.token.tailnet)), proven.token

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="API"'


def presented(header: str) -> str | None:
    """The token of an ``Authorization`` header; "" for one that is none, ``None`` without a header."""
    kind, _, rest = header.partition(" ")
    if not kind:
        return None
    if kind.lower() == "bearer":
        return rest.strip()
    return basic(header)[0]


def basic(header: str) -> tuple[str, str]:
    """User name and password of HTTP Basic (RFC 7617); both "" for anything else."""
    kind, _, rest = header.partition(" ")
    if kind.lower() != "basic":
        return "", ""
    try:
        name, _, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return "", ""
    return name, password
