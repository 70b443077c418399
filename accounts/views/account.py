"""A person's own page: who they are here, how they sign in, and where they are signed in."""

from __future__ import annotations

from typing import Any, cast

from allauth.account.decorators import reauthentication_required
from allauth.account.internal.flows.reauthentication import is_reauthentication_required
from allauth.mfa.models import Authenticator
from allauth.socialaccount.models import SocialAccount
from allauth.usersessions.models import UserSession
from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from accounts import signing_in
from accounts.models import LOCAL_ISSUER, User
from accounts.pages import actor_of, panel_view, sheet
from accounts.services import factors, sessions
from accounts.useragents import PHONES, browser_of, system_of

PAGE = "/account"
LINKING = "allauth.socialaccount"


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """Identity, providers, passkeys, second step, sessions."""
    user = cast(User, request.user)
    context = _ways_in(request, user) | {
        "local": user.iss == LOCAL_ISSUER,
        "passkeys_possible": signing_in.passkeys_possible(),
        "sessions": [_shown(one, request) for one in sessions.sessions_of(user=user)],
    }
    return signing_in.let_forms_lead_to(render(request, "accounts/account.html", context), request)


def _ways_in(request: HttpRequest, user: User) -> dict[str, Any]:
    linked = {one.provider: one for one in SocialAccount.objects.filter(user=user)}
    own = list(Authenticator.objects.filter(user=user).order_by("pk"))
    codes = next((one for one in own if one.type == Authenticator.Type.RECOVERY_CODES), None)
    return {
        "providers": [
            {"provider": one, "account": linked.get(one.id), "fixed": _fixed(linked.get(one.id), user)}
            for one in signing_in.providers(request)
        ],
        "passkeys": [one for one in own if one.type == Authenticator.Type.WEBAUTHN],
        "app": next((one for one in own if one.type == Authenticator.Type.TOTP), None),
        "codes_left": len(codes.wrap().get_unused_codes()) if codes else None,
    }


def _fixed(account: SocialAccount | None, user: User) -> bool:
    return account is not None and factors.is_the_person(account, user)


def _shown(session: UserSession, request: HttpRequest) -> dict[str, Any]:
    system = system_of(session.user_agent)
    return {
        "session": session,
        "browser": browser_of(session.user_agent) or _("Another browser"),
        "system": system,
        "icon": "device-mobile" if system in PHONES else "device-laptop",
        "here": session.session_key == request.session.session_key,
    }


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def end_session(request: HttpRequest, pk: int) -> HttpResponse:
    """Sign one other browser out; GET asks."""
    user = cast(User, request.user)
    if request.method == "GET":
        shown = _shown(sessions.session_of(user=user, pk=pk), request)
        return sheet(request, "accounts/end_session.html", {"shown": shown})
    sessions.end_session(user=user, pk=pk, by=actor_of(request))
    messages.success(request, _("That browser is signed out."))
    return redirect(PAGE)


@never_cache
@require_POST
@panel_view
def end_other_sessions(request: HttpRequest) -> HttpResponse:
    """Sign every other browser out."""
    ended = sessions.end_other_sessions(
        user=cast(User, request.user), session_key=request.session.session_key, by=actor_of(request)
    )
    said = ngettext(
        "%(number)s other browser is signed out.", "%(number)s other browsers are signed out.", ended
    )
    messages.success(request, said % {"number": ended} if ended else _("No other browser was signed in."))
    return redirect(PAGE)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def unlink(request: HttpRequest, pk: int) -> HttpResponse:
    """Take a linked identity away; GET says what that means. Who has a second step takes it first."""
    if request.method == "GET":
        return cast(HttpResponse, _ask_to_unlink(request, pk))
    if is_reauthentication_required(request, app=LINKING):
        return redirect(request.path)
    factors.unlink_identity(user=cast(User, request.user), pk=pk)
    messages.success(request, _("The identity is removed."))
    return redirect(PAGE)


@reauthentication_required(app=LINKING)  # type: ignore[untyped-decorator]
def _ask_to_unlink(request: HttpRequest, pk: int) -> HttpResponse:
    account = factors.own_identity(user=cast(User, request.user), pk=pk)
    return sheet(request, "accounts/unlink.html", {"account": account})
