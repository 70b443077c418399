"""To an identity provider and back: allauth's two views, with limits, on our own adapter."""

from __future__ import annotations

from functools import partial

from allauth.socialaccount.models import SocialApp
from allauth.socialaccount.providers.oauth2.views import OAuth2LoginView
from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.adapters import FAILED_SIGN_INS
from accounts.limits import address_of, check_limit, count_attempt
from accounts.pages import public_view
from accounts.provider import CallbackView, OpenIDAdapter

SIGN_INS = "sign-in"
MAX_SIGN_INS = 30  # begun in a minute, from one address
MAX_FAILED_SIGN_INS = 20  # in a minute, from one address


@never_cache
@require_http_methods(["GET", "POST"])
@public_view
def begin(request: HttpRequest, provider: str) -> HttpResponse:
    """POST sends the person to the provider; GET, which another site could cause, asks first."""
    address = address_of(request)
    check_limit(SIGN_INS, address, limit=MAX_SIGN_INS)
    count_attempt(SIGN_INS, address)
    return _flow(OAuth2LoginView, request, provider)


@never_cache
@require_safe
@public_view
def callback(request: HttpRequest, provider: str) -> HttpResponse:
    """The person comes back with a code: redeem it, verify what it gives, sign in or link."""
    check_limit(FAILED_SIGN_INS, address_of(request), limit=MAX_FAILED_SIGN_INS)
    return _flow(CallbackView, request, provider)


def _flow(view: type, request: HttpRequest, provider: str) -> HttpResponse:
    try:
        response: HttpResponse = view.adapter_view(partial(OpenIDAdapter, provider_id=provider))(request)  # type: ignore[attr-defined]
    except SocialApp.DoesNotExist as error:
        raise Http404 from error
    return response
