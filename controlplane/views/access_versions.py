"""The policies that were in force: what each of them changed, and how one comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from accounts.pages import UNPROCESSABLE, actor_of, go_to, panel_view, sheet
from accounts.roles import Capability, can
from controlplane.models import PolicyVersion
from controlplane.netmap.policy.textdiff import diff
from controlplane.services import policy
from controlplane.views.access_draft import (
    SECTION,
    as_field,
    editor_phrases,
    membership_with,
    refusal_words,
)

PAGE = "/access"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a diff: ``kind`` is "add", "del", "gap" (between hunks) or "" (the same in both)."""

    kind: str
    text: str


KINDS = {"+": "add", "-": "del", "@": "gap"}


def _lines(before: str, after: str) -> list[Line]:
    return [Line(KINDS.get(line[0], ""), line) for line in diff(before, after)]


@never_cache
@require_safe
@panel_view
def version(request: HttpRequest, number: int) -> HttpResponse:
    """One version against the one before it, or (``with=current``) the one in force."""
    membership = membership_with(request, Capability.SEE_ALL)
    found = policy.policy_version(membership.tailnet, number)
    current = policy.current_policy(membership.tailnet)
    with_current = request.GET.get("with") == "current"
    earlier = PolicyVersion.objects.filter(number__lt=found.number).order_by("-number").first()
    against = current.version if with_current else earlier
    before, after = (as_field(policy.text_of(one)) for one in (against, found))
    context: dict[str, Any] = {
        "version": found,
        "against": against,
        "with_current": with_current,
        "in_force": current.number == found.number,
        "may_change": can(membership, Capability.MANAGE_NETWORK),
        "before": before,
        "after": after,
        "lines": _lines(before, after),
        "phrases": json.dumps(editor_phrases()),
        "section": SECTION,
    }
    return render(request, "controlplane/access_version.html", context)


@never_cache
@require_http_methods(["GET", "HEAD", "POST"])
@panel_view
def restore(request: HttpRequest, number: int) -> HttpResponse:
    """Put an earlier version in force; GET says what that means."""
    membership = membership_with(request, Capability.MANAGE_NETWORK)
    found = policy.policy_version(membership.tailnet, number)
    context: dict[str, Any] = {"version": found, "section": SECTION}
    if request.method != "POST":
        return sheet(request, "controlplane/access_restore.html", context)
    try:
        policy.restore_policy(tailnet=membership.tailnet, number=found.number, by=actor_of(request))
    except policy.PolicyRefused as error:
        context |= {"problems": refusal_words(error)}
        return sheet(request, "controlplane/access_restore.html", context, status=UNPROCESSABLE)
    return go_to(request, f"{PAGE}?show=history")
