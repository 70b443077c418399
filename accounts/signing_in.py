"""The ways in that this server has: which providers, and whether passkeys can work at its address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from allauth.socialaccount.adapter import get_adapter
from django.conf import settings
from django.http import HttpRequest, HttpResponse

from accounts.openid.errors import SignInRefused

NEXT_KEY = "next"  # in the session: where somebody was going before they had to sign in
INVITATIONS = "/invite/"


def providers(request: HttpRequest) -> Sequence[Any]:
    """The providers that the operator has set up, Google first."""
    return list(get_adapter(request).list_providers(request))


def came_by_invitation(request: HttpRequest) -> bool:
    """Whether the person was on their way to an invitation when they had to sign in."""
    return str(request.session.get(NEXT_KEY, "")).startswith(INVITATIONS)


def passkeys_possible() -> bool:
    """Browsers make passkeys for names, over https or on this very host, and never for a bare address."""
    parts = urlsplit(settings.BASE_URL)
    host = parts.hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return parts.scheme == "https" or host == "localhost" or host.endswith(".localhost")
    return False


def let_forms_lead_to(response: HttpResponse, request: HttpRequest) -> HttpResponse:
    """Allow this page's forms to end at the providers, whom the answer to such a form redirects to."""
    origins = []
    for provider in providers(request):
        try:
            origins.append(provider.metadata.origin)
        except SignInRefused:
            continue  # it cannot be reached now: the form says so
    response._csp_update = {"form-action": origins}  # type: ignore[attr-defined]
    return response
