"""When the person in front of a browser last showed who they are, for what asks that anew."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from allauth.account.authentication import get_authentication_records
from allauth.account.internal.flows.reauthentication import get_reauthentication_flows
from django.contrib.auth import logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect

from accounts.services.sessions import SIGNED_IN_KEY, record_sign_out


def signed_in_at(request: HttpRequest) -> datetime:
    """The time of this session's sign-in, or of a passkey or second step shown since."""
    shown = [
        record["at"]
        for record in get_authentication_records(request, request.user)
        if record.get("reauthenticated")
    ]
    return datetime.fromtimestamp(max([request.session.get(SIGNED_IN_KEY, 0.0), *shown]), UTC)


def sign_in_again(request: HttpRequest, page: str) -> HttpResponse:
    """Have the person show who they are, and lead back to ``page``.

    By passkey or second step where they have one; else they are signed out, and sign in as at first.
    """
    if get_reauthentication_flows(request.user):
        return redirect(f"/accounts/reauthenticate/?{urlencode({'next': page})}")
    record_sign_out(user=request.user)
    logout(request)
    return redirect(f"/sign-in?{urlencode({'next': page})}")
