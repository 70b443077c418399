"""What every view of the panel goes through: who is signed in, for which tailnet, and how refusals look."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, cast
from urllib.parse import urlencode

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.shortcuts import redirect, render
from django.utils.http import url_has_allowed_host_and_scheme
from django.utils.translation import get_language, ngettext
from django.utils.translation import gettext as _
from django_htmx.http import HttpResponseClientRedirect, reswap, retarget, trigger_client_event

from accounts.access import NOT_HERE
from accounts.actors import Actor
from accounts.errors import ApplicationError, Conflict, LimitExceeded, NotFound
from accounts.models import Membership, User
from accounts.roles import Capability, can

TAILNET_FIELD = "tailnet"
TAILNET_HEADER = "X-Trenza-Tailnet"
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
UNPROCESSABLE = 422
# Statuses that have a page of their own; every other refusal shows the one for 400.
ERROR_PAGES = frozenset({400, 403, 404, 409, 410, 429})

View = Callable[..., HttpResponseBase]


class OtherTailnet(Conflict):
    """A page of one tailnet was used after this session had switched to another."""

    code = "other_tailnet"


def panel_view(view: View) -> Callable[..., Any]:
    """Sign-in, an active membership, the right tailnet on every form, and refusals as pages or toasts."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        if not request.user.is_authenticated:
            return to_sign_in(request)
        try:
            if membership_of(request) is None:
                return render(request, "accounts/no_tailnet.html", status=403)
            if "\0" in request.path:  # PostgreSQL takes none, and nothing is called so
                raise NotFound("nothing is called so")
            check_tailnet(request)
            return view(request, *args, **kwargs)
        except ApplicationError as error:
            return error_response(request, error)

    return wrapped


def person_view(view: View) -> Callable[..., Any]:
    """Sign-in alone: for pages about a person's tailnets, which they may have none of yet."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        if not request.user.is_authenticated:
            return to_sign_in(request)
        return public_view(view)(request, *args, **kwargs)

    return wrapped


def public_view(view: View) -> Callable[..., Any]:
    """For pages that need no sign-in: refusals look as everywhere else."""

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(request, *args, **kwargs)
        except ApplicationError as error:
            return error_response(request, error)

    return wrapped


def membership_of(request: HttpRequest) -> Membership | None:
    """The active membership that this request is about."""
    membership = cast(Membership | None, getattr(request, "membership", None))
    return membership if membership is not None and membership.is_active else None


def member_with(request: HttpRequest, capability: Capability) -> Membership:
    """The reader's membership, if it includes this; missing and forbidden look alike."""
    membership = membership_of(request)
    if membership is None or not can(membership, capability):
        raise NotFound(NOT_HERE)
    return membership


def actor_of(request: HttpRequest) -> Actor:
    """The signed-in person as services name them."""
    return Actor.person(cast(User, request.user))


def is_htmx(request: HttpRequest) -> bool:
    return bool(getattr(request, "htmx", False))


def check_tailnet(request: HttpRequest) -> None:
    """Refuse a form or fragment that was made for another tailnet than the session's current one."""
    said = request.POST.get(TAILNET_FIELD) or request.headers.get(TAILNET_HEADER)
    if said is None and request.method in SAFE_METHODS:
        return
    membership = membership_of(request)
    if membership is None or said != str(membership.tailnet_id):
        raise OtherTailnet("this page belongs to another tailnet than the one you have switched to")


def to_sign_in(request: HttpRequest) -> HttpResponse:
    """To the sign-in page, and back here afterwards (to the page around it, when this is a fragment)."""
    if not is_htmx(request):
        wanted = request.get_full_path() if request.method in SAFE_METHODS else "/"
        return redirect(f"/sign-in?{urlencode({'next': wanted})}")
    page = request.htmx.current_url_abs_path or "/"  # type: ignore[attr-defined]
    return HttpResponseClientRedirect(f"/sign-in?{urlencode({'next': page})}")


def safe_next(request: HttpRequest, wanted: str | None, default: str) -> str:
    """``wanted`` when it is a path of this server, else ``default``."""
    if wanted and wanted.startswith("/") and url_has_allowed_host_and_scheme(wanted, allowed_hosts=None):
        return wanted
    return default


def error_text(error: ApplicationError) -> str:
    """A refusal in the reader's language; English readers get the service's own words."""
    if isinstance(error, LimitExceeded):
        said = ngettext(
            "Too many attempts. Try again in %(n)d second.",
            "Too many attempts. Try again in %(n)d seconds.",
            error.retry_after,
        )
        return said % {"n": error.retry_after}
    words = {
        "invalid": _("The server did not accept this."),
        "not_found": _("This does not exist, or it is not for you."),
        "forbidden": _("Your role does not include this."),
        "conflict": _("This cannot be done in its present state. Reload the page and look again."),
        "precondition_failed": _("Somebody else has changed this meanwhile. Reload the page and look again."),
        "gone": _("This link was used already, or it has run out."),
        "other_tailnet": _("You have switched to another tailnet. Reload the page."),
    }
    if error.code in ("invalid", "conflict") and (get_language() or "en").startswith("en"):
        text = str(error)
        return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
    return words.get(error.code, words["invalid"])


def error_response(request: HttpRequest, error: ApplicationError) -> HttpResponse:
    """A refusal as a toast (for htmx) or as a page."""
    text = error_text(error)
    if is_htmx(request):
        response = HttpResponse(status=error.status)
        if isinstance(error, OtherTailnet):
            trigger_client_event(response, "otherTailnet", {})
        else:
            trigger_client_event(response, "toast", {"message": text, "error": True})
    else:
        page = error.status if error.status in ERROR_PAGES else 400
        response = render(request, f"{page}.html", {"message": text, "code": error.code}, status=error.status)
    if isinstance(error, LimitExceeded):
        response["Retry-After"] = str(error.retry_after)
    return response


def sheet(request: HttpRequest, template: str, context: dict[str, Any], *, status: int = 200) -> HttpResponse:
    """A dialog: a fragment for htmx, a page of its own otherwise. With errors it stays open (422)."""
    layout = "sheet.html" if is_htmx(request) else "sheet_page.html"
    response = render(request, template, context | {"layout": layout}, status=status)
    return in_sheet(request, response) if status == UNPROCESSABLE else response


def in_sheet(request: HttpRequest, response: HttpResponse) -> HttpResponse:
    """Show the answer in the dialog, whatever had asked for it."""
    return reswap(retarget(response, "#sheet"), "innerHTML") if is_htmx(request) else response


def go_to(request: HttpRequest, path: str) -> HttpResponse:
    """To another page, whoever asked."""
    return HttpResponseClientRedirect(path) if is_htmx(request) else redirect(path)


def path_of_page(request: HttpRequest) -> str:
    """On which page htmx asked; "" when a browser asked by itself."""
    return (request.htmx.current_url_abs_path or "").partition("?")[0] if is_htmx(request) else ""  # type: ignore[attr-defined]


def say(response: HttpResponse, message: str, *, close: bool = True) -> HttpResponse:
    """Say what was done, and close the dialog in which it was asked for."""
    if close:
        trigger_client_event(response, "closeSheet", {})
    return trigger_client_event(response, "toast", {"message": message})
