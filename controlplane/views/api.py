"""The pages for people who write programs: how one begins, every call, and the reference to try things in."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts import apiaddress
from accounts.access import NOT_HERE
from accounts.api.views import MAX_CALLS
from accounts.errors import NotFound
from accounts.models import Membership
from accounts.pages import membership_of, panel_view
from accounts.roles import Capability, can
from accounts.scopes import may_make_tokens
from controlplane.api.calls import Call, calls
from controlplane.api.openapi import document

SECTION = "api"
MAX_SEARCH = 100


def _reader(request: HttpRequest) -> Membership:
    """For whoever may have tokens or sees everything; for others these pages do not exist."""
    membership = membership_of(request)
    if membership is None or not (may_make_tokens(membership) or can(membership, Capability.SEE_ALL)):
        raise NotFound(NOT_HERE)
    return membership


@dataclass(frozen=True, slots=True)
class ShownCall:
    """A call and its two examples."""

    call: Call
    about: SafeString
    curl: str
    python: str

    def fits(self, words: list[str]) -> bool:
        """Whether it has all of these somewhere, in lower case."""
        call = self.call
        text = f"{call.method} {call.template} {call.name} {call.summary} {call.description} {call.group}"
        return all(word in text.lower() for word in words)


@cache
def every_call() -> tuple[ShownCall, ...]:
    """Made once in a process, as the description is."""
    base = settings.BASE_URL
    return tuple(
        ShownCall(call, paragraphs(call.description), call.curl(base), call.python(base))
        for call in calls(document())
    )


def paragraphs(text: str) -> SafeString:
    """A description, as Markdown has it, on a page: its paragraphs, and what is code in them."""
    return format_html_join("", "<p>{}</p>", ((_with_code(one),) for one in text.split("\n\n") if one))


def _with_code(text: str) -> SafeString:
    parts = ((("{}", "<code>{}</code>")[number % 2], part) for number, part in enumerate(text.split("`")))
    return mark_safe("".join(format_html(shape, part) for shape, part in parts))  # noqa: S308 - escaped


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """How a program begins: addresses, tokens, limits, and where to read on."""
    membership = _reader(request)
    devices = next(one for one in every_call() if one.call.name == "listTailnetDevices")
    token = next(one for one in every_call() if one.call.is_token_request)
    context = {
        "api_url": apiaddress.base_url(),
        "own_url": f"{settings.BASE_URL}{apiaddress.OWN_PREFIX}",
        "description_url": apiaddress.DESCRIPTION,
        "number": len(every_call()),
        "devices": devices,
        "token": token,
        "most": MAX_CALLS,
        "probe": f"curl {settings.BASE_URL}/healthz",
        "makes": may_make_tokens(membership),
        "sees": can(membership, Capability.SEE_ALL),
        "section": SECTION,
    }
    return render(request, "controlplane/api.html", context)


@never_cache
@require_safe
@panel_view
def every(request: HttpRequest) -> HttpResponse:
    """Every call as curl and as Python; with ``q`` those that have its words."""
    _reader(request)
    search = request.GET.get("q", "")[:MAX_SEARCH]
    found = [one for one in every_call() if one.fits(search.lower().split())]
    groups = [(name, list(group)) for name, group in groupby(found, lambda one: one.call.group)]
    context: dict[str, Any] = {"groups": groups, "search": search, "section": SECTION}
    return render(request, "controlplane/api_calls.html", context)


@never_cache
@require_safe
@panel_view
def reference(request: HttpRequest) -> HttpResponse:
    """The description as pages on which calls can be tried."""
    _reader(request)
    context = {"description_url": apiaddress.DESCRIPTION, "section": SECTION}
    return render(request, "controlplane/api_reference.html", context)
