"""The queue of what waits: seen, approved and rejected, one by one or many at once."""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.functional import Promise
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.errors import Conflict
from accounts.models import Membership
from accounts.pages import actor_of, is_htmx, membership_of, panel_view, say, sheet
from accounts.roles import Capability, can
from nodes.access import with_devices
from nodes.approvals import (
    KINDS,
    MAX_PICKED,
    Entry,
    Kind,
    Ref,
    count_waiting,
    deciding,
    entries,
    entry_of,
    find_all,
    load,
    may_decide,
    parse_refs,
)
from nodes.services.approvals import decide

PAGE_SIZE = 50
SECTION = "approvals"
PAGE = "/approvals"
LIST_ID = "queue"
TABS_ID = "queue-tabs"
WORDS: dict[Kind, str | Promise] = {
    Kind.DEVICE: gettext_lazy("Devices"),
    Kind.PERSON: gettext_lazy("People"),
    Kind.ROUTE: gettext_lazy("Routes"),
    Kind.EXIT_NODE: gettext_lazy("Exit nodes"),
}


def _membership(request: HttpRequest) -> Membership:
    """Whoever sees all, and whoever has devices: they see how those stand."""
    return with_devices(membership_of(request))


# --- the queue -------------------------------------------------------------------------------------------


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def queue(request: HttpRequest) -> HttpResponse:
    """What waits, the oldest first; only the list, or its tabs, when htmx fetches those again."""
    membership = _membership(request)
    kind = KINDS.get(request.GET.get("kind", ""))
    counts = count_waiting(membership)
    target = request.htmx.target if is_htmx(request) else None  # type: ignore[attr-defined]
    context: dict[str, Any] = {"kind": kind.value if kind else "", "tabs": _tabs(counts, kind)}
    if target == TABS_ID:
        return render(request, "nodes/_queue_tabs.html", context)
    paginator: Paginator[Any] = Paginator(entries(membership, [kind] if kind else list(Kind)), PAGE_SIZE)
    # Counted for the tabs already.
    paginator.__dict__["count"] = counts[kind] if kind else sum(counts.values())
    page = paginator.get_page(request.GET.get("page"))
    rows = load(list(page), membership)
    context |= {
        "page": page,
        "rows": rows,
        "total": sum(counts.values()),
        "pending_count": sum(counts[one] for one in deciding(membership)),
        "may_any": any(row.may for row in rows),
        "may_all": bool(deciding(membership)),
        "manages_settings": can(membership, Capability.MANAGE_SETTINGS),
        "section": SECTION,
    }
    return render(request, "nodes/_queue.html" if target == LIST_ID else "nodes/queue.html", context)


def _tabs(counts: dict[Kind, int], kind: Kind | None) -> list[tuple[str, str, int]]:
    """``(value, word, number)``: all, then the kinds of which something waits, and the chosen one."""
    kinds = [one for one in Kind if counts[one] or one is kind]
    return [
        ("", _("All"), sum(counts.values())),
        *((one.value, str(WORDS[one]), counts[one]) for one in kinds),
    ]


@never_cache
@require_safe
@panel_view
def badge(request: HttpRequest) -> HttpResponse:
    """How much waits for this person, for the side bar and, beside it, for the top bar."""
    return render(request, "nodes/_badge.html", {"with_top": True})


# --- deciding --------------------------------------------------------------------------------------------


def _picked(request: HttpRequest, membership: Membership) -> dict[Ref, Any]:
    """What of the entries that were named still waits and is this person's to decide.

    ``only`` names one, ``everything`` means all of a kind (or of every one), ``item`` names any number.
    """
    given = request.GET if request.method == "GET" else request.POST
    if given.get("only"):
        refs = parse_refs([given["only"]])
    elif given.get("everything"):
        kind = KINDS.get(given.get("kind", ""))
        kinds = [one for one in deciding(membership) if kind in (None, one)]
        keys = entries(membership, kinds)[:MAX_PICKED] if kinds else []
        refs = [Ref(Kind(name), number) for name, number, _since in keys]
    else:
        refs = parse_refs(given.getlist("item"))
    found = find_all(refs, membership)
    return {ref: found[ref] for ref in refs if ref in found and may_decide(found[ref], membership)}


def _decided(
    request: HttpRequest, membership: Membership, picked: dict[Ref, Any], *, approved: bool
) -> HttpResponse:
    """Do it, and answer with the rows as they are now, in their places."""
    now = timezone.now()
    shown = {ref: entry_of(ref, subject, now, membership) for ref, subject in picked.items()}
    tailnet = membership.tailnet
    done = decide(tailnet=tailnet, subjects=list(picked.values()), approved=approved, by=actor_of(request))
    if not is_htmx(request):
        return redirect(PAGE)
    rows = [row for row, was_done in zip(shown.values(), done, strict=True) if was_done]
    answer = render(request, "nodes/_queue_done.html", {"rows": rows, "approved": approved})
    return say(answer, _sentence(rows, len(done) - len(rows), approved=approved))


def _sentence(rows: list[Entry], failed: int, *, approved: bool) -> str:
    if len(rows) == 1:
        words = _("%(name)s is approved.") if approved else _("%(name)s is rejected.")
        said = words % {"name": rows[0].name}
    elif approved:
        said = ngettext("%(n)d is approved.", "%(n)d are approved.", len(rows)) % {"n": len(rows)}
    else:
        said = ngettext("%(n)d is rejected.", "%(n)d are rejected.", len(rows)) % {"n": len(rows)}
    if failed:
        rest = ngettext("%(n)d could not be changed.", "%(n)d could not be changed.", failed) % {"n": failed}
        return f"{said} {rest}" if rows else rest
    return said


@never_cache
@require_POST
@panel_view
def approve(request: HttpRequest) -> HttpResponse:
    """Approve what was picked."""
    membership = _membership(request)
    picked = _picked(request, membership)
    if not picked:
        raise Conflict("nothing was picked that waits and that you may decide about")
    return _decided(request, membership, picked, approved=True)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def reject(request: HttpRequest) -> HttpResponse:
    """Say first what rejecting means for what was picked; do it once that was confirmed."""
    membership = _membership(request)
    picked = _picked(request, membership)
    if not picked:
        raise Conflict("nothing was picked that waits and that you may decide about")
    if request.POST.get("sure"):
        return _decided(request, membership, picked, approved=False)
    now = timezone.now()
    rows = [entry_of(ref, subject, now, membership) for ref, subject in picked.items()]
    context = {"rows": rows, "kinds": {row.kind for row in rows}, "section": SECTION}
    return sheet(request, "nodes/queue_reject.html", context)
