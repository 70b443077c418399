"""The audit log: what happened, who did it, what it was before; and the whole of it as a file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe
from django.views.decorators.vary import vary_on_headers

from accounts import auditlog
from accounts.access import require
from accounts.auditlog import AuditQuery
from accounts.csvlines import csv_lines
from accounts.errors import Forbidden, NotFound
from accounts.limits import check_limit, count_attempt
from accounts.models import AuditEvent, Membership, Tailnet
from accounts.pages import is_htmx, membership_of, panel_view, say
from accounts.roles import Capability
from accounts.selectors import audit_events
from accounts.services.audit import first_broken_event
from accounts.tenancy import scope

LIST_ID = "log"
CHECK_LIMIT = "audit-check"
MAX_CHECKS = 6  # a minute, for one tailnet: each reads the whole log


def _seer(request: HttpRequest) -> Membership:
    """The reader, if they see the log; missing and forbidden look alike."""
    try:
        return require(membership_of(request), Capability.SEE_ALL)
    except Forbidden as error:
        raise NotFound(str(error)) from error


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The events that the URL asks for; only the list when htmx fetches it again."""
    _seer(request)
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
    tailnet = _seer(request).tailnet
    check_limit(CHECK_LIMIT, str(tailnet.pk), limit=MAX_CHECKS)
    count_attempt(CHECK_LIMIT, str(tailnet.pk))
    broken = first_broken_event(tailnet=tailnet)
    event = audit_events().filter(pk=broken).first() if broken else None
    context = {"intact": broken is None, "event": event, "checked": timezone.now()}
    response = render(request, "controlplane/_log_chain.html", context)
    return response if is_htmx(request) else say(response, _("The log was checked."))


# --- as a file ---------------------------------------------------------------------------------------------


def _as_csv(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    rows = ([_cell(event[name]) for name in auditlog.COLUMNS] for event in events)
    return csv_lines(auditlog.COLUMNS, rows)


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else value


def _as_json_lines(events: Iterator[dict[str, Any]]) -> Iterator[str]:
    return (json.dumps(event, ensure_ascii=False) + "\n" for event in events)


FORMATS: dict[str, tuple[str, Callable[[Iterator[dict[str, Any]]], Iterator[str]]]] = {
    "csv": ("text/csv; charset=utf-8", _as_csv),
    "jsonl": ("application/jsonl; charset=utf-8", _as_json_lines),
}


@never_cache
@require_safe
@panel_view
def export(request: HttpRequest, kind: str) -> HttpResponse | StreamingHttpResponse:
    """The events that the filters choose, as a file that is written while it is read."""
    tailnet = _seer(request).tailnet
    if kind not in FORMATS:
        raise NotFound("there is no such format")
    media_type, lines = FORMATS[kind]
    events = AuditQuery.parse(request.GET).select(audit_events())
    name = f"{tailnet.name}-log-{timezone.now():%Y-%m-%d}.{kind}"
    return StreamingHttpResponse(
        _scoped(tailnet, events, lines),
        content_type=media_type,
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _scoped(
    tailnet: Tailnet,
    events: QuerySet[AuditEvent],
    lines: Callable[[Iterator[dict[str, Any]]], Iterator[str]],
) -> Iterator[str]:
    """The lines, each read in the tailnet's scope: the one of the request has ended by then."""
    with scope(tailnet=tailnet):
        yield from lines(auditlog.exported(events))
