"""Access controls: what holds while a tailnet has no rules, in plain words."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from accounts.pages import is_htmx, member_with, panel_view
from accounts.roles import Capability
from nodes.reach import networks, reachable, ways_out


@never_cache
@require_safe
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """Everyone reaches everyone: how many that are, and what limits it all the same."""
    member_with(request, Capability.SEE_ALL)
    now = timezone.now()
    context = {
        "devices": reachable(now).count(),
        "networks": networks(now),
        "ways_out": ways_out(now),
        "section": "access",
    }
    template = "controlplane/_access.html" if is_htmx(request) else "controlplane/access.html"
    return render(request, template, context)
