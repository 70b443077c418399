"""Search from every page (Ctrl-K), and the list of keys."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.models import Membership
from accounts.pages import membership_of, panel_view, sheet
from controlplane.search import MAX_QUERY, search


def _context(request: HttpRequest) -> dict[str, Any]:
    text = request.GET.get("q", "").strip()[:MAX_QUERY]
    return {"text": text, "groups": search(text, cast(Membership, membership_of(request)))}


@never_cache
@require_safe
@panel_view
def palette(request: HttpRequest) -> HttpResponse:
    """The field and what it finds: a dialog, or a page of its own without scripts."""
    return sheet(request, "controlplane/search.html", _context(request))


@never_cache
@require_safe
@panel_view
def results(request: HttpRequest) -> HttpResponse:
    """What fits the text so far."""
    return render(request, "controlplane/_search_results.html", _context(request))


@never_cache
@require_safe
@panel_view
def shortcuts(request: HttpRequest) -> HttpResponse:
    """Which keys do what."""
    return sheet(request, "controlplane/shortcuts.html", {})
