"""Signing in and out, choosing a tailnet, and how the pages look."""

from __future__ import annotations

from django.conf import settings
from django.contrib.auth import login, logout
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST, require_safe
from django_htmx.http import HttpResponseClientRefresh

from accounts import signing_in
from accounts.access import membership_in
from accounts.errors import Gone
from accounts.limits import address_of, check_limit, count_attempt
from accounts.middleware import switch_tailnet
from accounts.models import User
from accounts.pages import is_htmx, public_view, safe_next, to_sign_in
from accounts.services.preferences import set_preferences
from accounts.services.sessions import record_sign_out
from accounts.services.signinlink import use_link
from accounts.signing_in import NEXT_KEY

LINK_BACKEND = "django.contrib.auth.backends.ModelBackend"
MAX_NEXT_LENGTH = 500
MAX_ID_DIGITS = 18  # Python reads no number of any length
LINK_LIMIT = "sign-in-link"
MAX_FAILED_LINKS = 20  # a minute, from one address
THEME_COOKIE = "trenza_theme"
COOKIE_SECONDS = 365 * 24 * 3600


@never_cache
@require_safe
def sign_in(request: HttpRequest) -> HttpResponse:
    """The ways in; remembers where the person was going, so that a link opened later leads there too."""
    wanted = safe_next(request, request.GET.get("next", "")[:MAX_NEXT_LENGTH], "")
    if request.user.is_authenticated:
        return redirect(wanted or settings.LOGIN_REDIRECT_URL)
    if wanted and wanted != "/":
        request.session[NEXT_KEY] = wanted
    context = {
        "providers": signing_in.providers(request),
        "passkeys_possible": signing_in.passkeys_possible(),
        "next": wanted or settings.LOGIN_REDIRECT_URL,
        "messages_shown": True,
    }
    return signing_in.let_forms_lead_to(render(request, "accounts/sign_in.html", context), request)


def next_page(request: HttpRequest) -> str:
    """Where the person was going before they had to sign in; forgotten with that."""
    return safe_next(request, request.session.pop(NEXT_KEY, None), settings.LOGIN_REDIRECT_URL)


@never_cache
@require_GET
@public_view
def sign_in_link(request: HttpRequest, token: str) -> HttpResponse:
    """Use a one-time link: it signs its person in and leads on; a second use is 410."""
    address = address_of(request)
    check_limit(LINK_LIMIT, address, limit=MAX_FAILED_LINKS)
    try:
        found = use_link(token=token)
    except Gone:
        count_attempt(LINK_LIMIT, address)
        return render(request, "accounts/link_gone.html", status=410)
    wanted = next_page(request)
    login(request, found.user, backend=LINK_BACKEND)
    if found.tailnet is not None:
        switch_tailnet(request, found.tailnet)
    return with_preferences(redirect(wanted), found.user)


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    """End the session."""
    record_sign_out(user=request.user)
    logout(request)
    return redirect(settings.LOGIN_URL)


@require_POST
@public_view
def switch(request: HttpRequest) -> HttpResponse:
    """Make another of the person's tailnets the current one. (The one form that may name another.)"""
    if not request.user.is_authenticated:
        return to_sign_in(request)
    wanted = request.POST.get("to", "")
    is_id = wanted.isascii() and wanted.isdigit() and len(wanted) <= MAX_ID_DIGITS
    membership = membership_in(user=request.user, tailnet_id=int(wanted) if is_id else 0)
    switch_tailnet(request, membership.tailnet)
    return redirect(settings.LOGIN_REDIRECT_URL)


@require_POST
@public_view
def preferences(request: HttpRequest) -> HttpResponse:
    """Keep language and theme: for a signed-in person with their account, for anybody in a cookie."""
    language = request.POST.get("language") or None
    theme = request.POST.get("theme") or None
    user = request.user if request.user.is_authenticated else User()
    if request.user.is_authenticated:
        set_preferences(user=user, language=language, theme=theme)
    else:
        user.language = language if language in dict(settings.LANGUAGES) else ""
        user.theme = (
            theme if theme in User.Theme.values else request.COOKIES.get(THEME_COOKIE, User.Theme.SYSTEM)
        )
    response: HttpResponse
    if is_htmx(request):
        response = HttpResponseClientRefresh()
    else:
        response = redirect(safe_next(request, request.POST.get("next"), settings.LOGIN_REDIRECT_URL))
    return with_preferences(response, user)


def with_preferences(response: HttpResponse, user: User) -> HttpResponse:
    """Set the cookies that the next pages read language and theme from."""
    if user.language:
        _cookie(response, settings.LANGUAGE_COOKIE_NAME, user.language)
    _cookie(response, THEME_COOKIE, user.theme)
    return response


def _cookie(response: HttpResponse, name: str, value: str) -> None:
    response.set_cookie(
        name,
        value,
        max_age=COOKIE_SECONDS,
        secure=settings.SESSION_COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )


def language_names() -> list[tuple[str, str]]:
    """The languages, each in its own words."""
    return [("en", "English"), ("es", "Español")]


def theme_names() -> list[tuple[str, str, str]]:
    """The themes: value, icon, word."""
    return [
        (User.Theme.SYSTEM.value, "device-desktop", _("As the system")),
        (User.Theme.LIGHT.value, "sun", _("Light")),
        (User.Theme.DARK.value, "moon", _("Dark")),
    ]
