"""The audit log: what happened, who did it, what it was before; and the whole of it as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts import auditexport, auditlog, csvlines
from accounts.auditlog import AuditQuery, parse_id
from accounts.downloads import download
from accounts.errors import NotFound
from accounts.limits import check_limit, count_attempt
from accounts.models import Tailnet
from accounts.pages import is_htmx, member_with, panel_view
from accounts.roles import Capability
from accounts.selectors import audit_events
from accounts.services.audit import check_chain
from accounts.tenancy import scope

LIST_ID = "log"
CHECK_LIMIT = "audit-check"
MAX_STEPS = 240  # of checks, a minute, for one tailnet: four people at once get through a long log


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The events that the URL asks for; only the list when htmx fetches it again."""
    member_with(request, Capability.SEE_ALL)
    only_list = is_htmx(request) and request.htmx.target == LIST_ID  # type: ignore[attr-defined]
    return render(
        request, "controlplane/_log.html" if only_list else "controlplane/logs.html", _page(request)
    )


def _page(request: HttpRequest) -> dict[str, Any]:
    query = AuditQuery.parse(request.GET)
    events, older = query.page(audit_events())
    return {
        "query": query,
        "events": [(event, auditlog.change_lines(event)) for event in events],
        "older": older,
        "kinds": auditlog.KINDS.items(),
        "actions": auditlog.ACTIONS.items(),
        "origins": auditlog.ORIGINS,
        "section": "logs",
    }


@never_cache
@require_POST
@panel_view
def check(request: HttpRequest) -> HttpResponse:
    """Compute the chain of digests anew, and say whether an event was altered or taken away.

    A request does one step of it; while there are more, the answer has a form that asks for the next, which
    scripts send at once.
    """
    tailnet = member_with(request, Capability.SEE_ALL).tailnet
    check_limit(CHECK_LIMIT, str(tailnet.pk), limit=MAX_STEPS)
    count_attempt(CHECK_LIMIT, str(tailnet.pk))
    after, events = (parse_id(request.POST.get(name)) or 0 for name in ("after", "events"))
    done = check_chain(tailnet=tailnet, after=after, events=events)
    event = audit_events().filter(pk=done.broken).first() if done.broken else None
    context = {"check": done, "broken_event": event, "checked": timezone.now()}
    if is_htmx(request):
        return render(request, "controlplane/_log_chain.html", context)
    return render(request, "controlplane/logs.html", _page(request) | context)


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
