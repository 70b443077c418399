"""API tokens and OAuth clients: made and shown once, revoked after a question."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts import apiaddress
from accounts.access import client_for, token_for
from accounts.errors import ApplicationError, NotFound
from accounts.models import Membership, User
from accounts.pages import UNPROCESSABLE, actor_of, error_text, is_htmx, membership_of, panel_view, say, sheet
from accounts.roles import Capability, can
from accounts.scopes import scopes_of
from accounts.services import tokens
from nodes import keyring
from nodes.keyring import CLIENTS, TOKENS
from nodes.scopeforms import TOKEN_DAYS, ClientForm, ScopesForm, TokenForm

SECTION = "keys"
ROWS = {TOKENS: "nodes/_token_row.html", CLIENTS: "nodes/_client_row.html"}


def _maker(request: HttpRequest, show: str) -> Membership:
    """The person's place, if they may make one; missing and forbidden look alike."""
    membership = cast(Membership, membership_of(request))
    if not keyring.may_make(membership, show):
        raise NotFound("this role makes none of these")
    return membership


def _form(
    request: HttpRequest, show: str, form: ScopesForm, membership: Membership, status: int = 200
) -> HttpResponse:
    context = {
        "form": form,
        "show": show,
        "days": TOKEN_DAYS,
        "may_tag": can(membership, Capability.CREATE_TAGGED_KEYS),
        "section": SECTION,
    }
    return sheet(request, "nodes/secret_new.html", context, status=status)


def _made(request: HttpRequest, show: str, secret: str, **context: Any) -> HttpResponse:
    context |= {"show": show, "secret": secret, "api_url": apiaddress.base_url()}
    return sheet(request, "nodes/secret_made.html", context | {"section": SECTION})


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def new_token(request: HttpRequest) -> HttpResponse:
    """The form of a token that acts as the person; its POST shows it, once."""
    membership = _maker(request, TOKENS)
    allowed = scopes_of(membership, own=True)
    if request.method == "GET":
        return _form(request, TOKENS, TokenForm(allowed=allowed), membership)
    form = TokenForm(request.POST, allowed=allowed)
    if form.is_valid():
        try:
            made = tokens.create_api_token(
                tailnet=membership.tailnet,
                user=cast(User, request.user),
                by=actor_of(request),
                **form.values(),
            )
            return _made(request, TOKENS, made.text, token=made.token)
        except ApplicationError as error:
            form.add_error(None, error_text(error))
    return _form(request, TOKENS, form, membership, UNPROCESSABLE)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def new_client(request: HttpRequest) -> HttpResponse:
    """The form of a client of the tailnet; its POST shows the secret, once."""
    membership = _maker(request, CLIENTS)
    allowed = scopes_of(membership, own=False)
    if request.method == "GET":
        return _form(request, CLIENTS, ClientForm(allowed=allowed), membership)
    form = ClientForm(request.POST, allowed=allowed)
    if form.is_valid():
        try:
            made = tokens.create_oauth_client(
                tailnet=membership.tailnet, by=actor_of(request), **form.values()
            )
            return _made(request, CLIENTS, made.text, client=made.client)
        except ApplicationError as error:
            form.add_error(None, error_text(error))
    return _form(request, CLIENTS, form, membership, UNPROCESSABLE)


# --- revoking ----------------------------------------------------------------------------------------------


def _answer(request: HttpRequest, show: str, pk: int, message: str) -> HttpResponse:
    """The question, or, after the deed, the row as it is now."""
    membership = cast(Membership, membership_of(request))
    row = keyring.row_of(show, pk, membership, timezone.now())
    if request.method == "GET":
        return sheet(request, "nodes/secret_revoke.html", {"row": row, "show": show, "section": SECTION})
    if not is_htmx(request):
        return redirect(f"/keys?show={show}")
    return say(render(request, ROWS[show], {"row": row}), message)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def revoke_token(request: HttpRequest, public_id: str) -> HttpResponse:
    """Make a token useless; GET says what that means."""
    token = token_for(membership=membership_of(request), public_id=public_id)
    if request.method == "POST":
        tokens.revoke_api_token(token=token, by=actor_of(request))
    return _answer(request, TOKENS, token.pk, _("The token is revoked."))


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def revoke_client(request: HttpRequest, public_id: str) -> HttpResponse:
    """Make a client and its access tokens useless; GET says what that means."""
    client = client_for(membership=membership_of(request), public_id=public_id)
    if request.method == "POST":
        tokens.revoke_oauth_client(client=client, by=actor_of(request))
    return _answer(request, CLIENTS, client.pk, _("The client is revoked."))
