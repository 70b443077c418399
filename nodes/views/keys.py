"""The keys page, and its auth keys: made, shown once, downloaded ready to use, revoked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from django.conf import settings
from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.credentials import digest
from accounts.errors import ApplicationError, NotFound
from accounts.models import Membership
from accounts.pages import UNPROCESSABLE, actor_of, error_text, is_htmx, membership_of, panel_view, say, sheet
from accounts.roles import Capability, can
from nodes import keyring
from nodes.access import key_for, visible_keys
from nodes.forms import KEY_DAYS, AuthKeyForm
from nodes.keyring import KeyQuery
from nodes.qr import qr_code
from nodes.services.authkeys import create_auth_key, revoke_auth_key

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Download:
    """One of the files that a new key can be had as."""

    filename: str
    content_type: str


DOWNLOADS = {
    "env": Download("trenza.env", "text/plain; charset=utf-8"),
    "sh": Download("trenza-join.sh", "text/x-shellscript; charset=utf-8"),
    "cloud-init": Download("trenza-cloud-init.yaml", "text/yaml; charset=utf-8"),
}


def _membership(request: HttpRequest) -> Membership:
    membership = cast(Membership, membership_of(request))
    if not (can(membership, Capability.SEE_ALL) or can(membership, Capability.CREATE_OWN_KEYS)):
        raise NotFound("keys are not for this role")
    return membership


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def keys(request: HttpRequest) -> HttpResponse:
    """The keys, tokens or clients that the URL asks for, newest first; only the list for htmx."""
    membership, now = _membership(request), timezone.now()
    query, kinds = KeyQuery.parse(request.GET), keyring.kinds_for(membership)
    if query.show not in kinds:
        raise NotFound("this list is not for this role")
    counts = {kind: keyring.visible(membership, kind).count() for kind in kinds}
    chosen = keyring.select(query, keyring.visible(membership, query.show), now)
    page = Paginator(chosen, PAGE_SIZE).get_page(request.GET.get("page"))
    context = {
        "query": query,
        "tabs": [(kind, keyring.TABS[kind], counts[kind]) for kind in kinds],
        "total": counts[query.show],
        "states": keyring.STATES.items(),
        "page": page,
        "rows": keyring.rows_of(query.show, list(page), membership, now),
        "may_create": keyring.may_make(membership, query.show),
        "section": "keys",
    }
    return render(request, "nodes/_keys.html" if is_htmx(request) else "nodes/keys.html", context)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def new_key(request: HttpRequest) -> HttpResponse:
    """The form of a new key; its POST shows the secret, once."""
    membership = _membership(request)
    if not keyring.may_make(membership, keyring.AUTH_KEYS):
        raise NotFound("this role makes no keys")
    context: dict[str, Any] = {
        "form": AuthKeyForm(),
        "days": KEY_DAYS,
        "may_tag": can(membership, Capability.CREATE_TAGGED_KEYS),
        "may_preapprove": can(membership, Capability.MANAGE_DEVICES),
        "section": "keys",
    }
    if request.method == "GET":
        return sheet(request, "nodes/new_key.html", context)
    form = AuthKeyForm(request.POST)
    if form.is_valid():
        try:
            made = create_auth_key(tailnet=membership.tailnet, by=actor_of(request), **form.values())
            shown = {"key": made.key, "secret": made.text, "qr": qr_code(made.text), "section": "keys"}
            return sheet(request, "nodes/key_made.html", shown)
        except ApplicationError as error:
            form.add_error(None, error_text(error))
    return sheet(request, "nodes/new_key.html", context | {"form": form}, status=UNPROCESSABLE)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def revoke(request: HttpRequest, public_id: str) -> HttpResponse:
    """Make a key useless; GET says what that means."""
    membership = _membership(request)
    key = key_for(membership=membership, public_id=public_id, revoke=True)
    if request.method == "POST":
        revoke_auth_key(key=key, by=actor_of(request))
    row = keyring.row_of(keyring.AUTH_KEYS, key.pk, membership, timezone.now())
    if request.method == "GET":
        return sheet(request, "nodes/revoke_key.html", {"row": row, "section": "keys"})
    if not is_htmx(request):
        return redirect("/keys")
    return say(render(request, "nodes/_key_row.html", {"row": row}), _("The key is revoked."))


@never_cache
@require_POST
@panel_view
def download(request: HttpRequest) -> HttpResponse:
    """A key just made, as a file. Only its digest is stored, so the page that shows it sends it back."""
    kind = DOWNLOADS.get(request.POST.get("format", ""))
    secret = request.POST.get("secret", "")
    key = visible_keys(_membership(request)).filter(secret_hash=digest(secret)).first()
    if kind is None or key is None:
        raise NotFound("no such key or format")
    context = {"base_url": settings.BASE_URL, "secret": secret, "key": key}
    response = HttpResponse(
        render_to_string(f"download/{kind.filename}", context), content_type=kind.content_type
    )
    response["Content-Disposition"] = f'attachment; filename="{kind.filename}"'
    return response
