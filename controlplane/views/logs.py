"""The audit log: what happened, who did it, what it was before; and the whole of it as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts import auditexport, auditlog, csvlines
from accounts.auditlog import AuditQuery
from accounts.downloads import download
from accounts.errors import NotFound
from accounts.limits import check_limit, count_attempt
from accounts.models import Tailnet
from accounts.pages import is_htmx, member_with, panel_view, say
from accounts.roles import Capability
from accounts.selectors import audit_events
from accounts.services.audit import first_broken_event
from accounts.tenancy import scope

LIST_ID = "log"
CHECK_LIMIT = "audit-check"
MAX_CHECKS = 6  # a minute, for one tailnet: each reads the whole log


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The events that the URL asks for; only the list when htmx fetches it again."""
    member_with(request, Capability.SEE_ALL)
    query = AuditQuery.parse(request.GET)
    events, older = query.page(audit_events())
    context = {
        "query": query,
        "events": [(event, auditlog.change_lines(event)) for event in events],
        "older": older,
        "kinds": auditlog.KINDS.items(),
        "actions": auditlog.ACTIONS.items(),
        "origins": auditlog.ORIGINS,
        "section": "logs",
    }
    only_list = is_htmx(request) and request.htmx.target == LIST_ID  # type: ignore[attr-defined]
    return render(request, "controlplane/_log.html" if only_list else "controlplane/logs.html", context)


@never_cache
@require_POST
@panel_view
def check(request: HttpRequest) -> HttpResponse:
    """Compute the chain of digests anew, and say whether an event was altered or taken away."""
    tailnet = member_with(request, Capability.SEE_ALL).tailnet
    check_limit(CHECK_LIMIT, str(tailnet.pk), limit=MAX_CHECKS)
    count_attempt(CHECK_LIMIT, str(tailnet.pk))
    broken = first_broken_event(tailnet=tailnet)
    event = audit_events().filter(pk=broken).first() if broken else None
    context = {"intact": broken is None, "event": event, "checked": timezone.now()}
    response = render(request, "controlplane/_log_chain.html", context)
    return response if is_htmx(request) else say(response, _("The log was checked."))


# --- as a file ---------------------------------------------------------------------------------------------


Events = list[dict[str, Any]]


def _as_csv(events: Events) -> str:
    return csvlines.lines([_cell(event[name]) for name in auditexport.COLUMNS] for event in events)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _as_json_lines(events: Events) -> str:
    return "".join(json.dumps(event, ensure_ascii=False) + "\n" for event in events)


@dataclass(frozen=True, slots=True)
class Format:
    """A kind of file: what it begins with, and how events are written in it."""

    media_type: str
    head: str
    write: Callable[[Events], str]


FORMATS = {
    "csv": Format("text/csv", csvlines.head(auditexport.COLUMNS), _as_csv),
    "jsonl": Format("application/jsonl", "", _as_json_lines),
}


@never_cache
@require_safe
@panel_view
def export(request: HttpRequest, kind: str) -> HttpResponse:
    """The events that the filters choose, as a file that is written while it is read."""
    tailnet = member_with(request, Capability.SEE_ALL).tailnet
    if kind not in FORMATS:
        raise NotFound("there is no such format")
    events = AuditQuery.parse(request.GET).select(audit_events())
    name = f"{tailnet.name}-log-{timezone.now():%Y-%m-%d}.{kind}"
    pieces = _pieces(tailnet, auditexport.exported(events), FORMATS[kind])
    return download(request, pieces, name=name, media_type=FORMATS[kind].media_type)


def _pieces(tailnet: Tailnet, slices: Iterator[Events], form: Format) -> Iterator[str]:
    """Each slice is read in the tailnet's scope: the one of the request has ended by then."""
    yield form.head
    while True:
        with scope(tailnet=tailnet):
            events = next(slices, None)
        if events is None:
            return
        yield form.write(events)
