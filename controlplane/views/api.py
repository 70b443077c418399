"""The page for people who write programs: where the API is, how one signs in, what the server answers."""

from __future__ import annotations

from typing import cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts import apiaddress
from accounts.access import NOT_HERE
from accounts.errors import NotFound
from accounts.models import Membership
from accounts.pages import membership_of, panel_view
from accounts.roles import Capability, can
from accounts.scopes import may_make_tokens


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """For whoever may have tokens or sees everything."""
    membership = cast(Membership, membership_of(request))
    makes, sees = may_make_tokens(membership), can(membership, Capability.SEE_ALL)
    if not (makes or sees):
        raise NotFound(NOT_HERE)
    context = {
        "api_url": apiaddress.base_url(),
        "answered": apiaddress.is_answered(),
        "curl": f'curl -u "$TRENZA_API_KEY:" {settings.BASE_URL}{apiaddress.DEVICES}',
        "python": PYTHON.format(url=f"{settings.BASE_URL}{apiaddress.DEVICES}"),
        "probe": f"curl {settings.BASE_URL}/healthz",
        "makes": makes,
        "sees": sees,
        "section": "api",
    }
    return render(request, "controlplane/api.html", context)


PYTHON = """import json, os, urllib.request

request = urllib.request.Request(
    "{url}",
    headers={{"Authorization": "Bearer " + os.environ["TRENZA_API_KEY"]}},
)
print(json.load(urllib.request.urlopen(request)))"""
