"""The list of people, a person's page, and what can be done to one or to several."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect, reswap, retarget, trigger_client_event

from accounts.access import member_of, require
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import Membership
from accounts.pages import (
    UNPROCESSABLE,
    actor_of,
    error_text,
    in_sheet,
    is_htmx,
    member_with,
    membership_of,
    panel_view,
    path_of_page,
    say,
    sheet,
)
from accounts.roles import Capability, Role, can
from accounts.selectors import audit_events, members, open_invites
from accounts.words import ROLES, roles_to_give
from nodes.access import visible_nodes
from nodes.models import Node, PreAuthKey
from nodes.people import (
    ORDERS,
    TABS,
    PeopleQuery,
    PersonRow,
    count_statuses,
    facts_of,
    person_row,
    signs_in_with,
)
from nodes.peoplewords import words_of_one, words_of_several
from nodes.rows import device_row
from nodes.services.members import PersonAction, act_on_person, may_act

SECTION = "users"
PAGE = "/users"
LIST_ID, TABS_ID, DETAIL_ID = "people-list", "people-tabs", "person"
HISTORY_LENGTH = 15
MAX_DEVICES = 50  # on a person's page; the list of devices has them all
MAX_CHOSEN = 200  # people in one bulk action
MAX_NAMES = 20  # people named in its dialog


def _reader(request: HttpRequest) -> Membership:
    return cast(Membership, membership_of(request))


# --- the list --------------------------------------------------------------------------------------------


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def people(request: HttpRequest) -> HttpResponse:
    """The people that the URL asks for; only the list, or its tabs, when htmx fetches those again."""
    reader, now = member_with(request, Capability.SEE_ALL), timezone.now()
    query = PeopleQuery.parse(request.GET)
    context = tabs_context(query)
    target = request.htmx.target if is_htmx(request) else None  # type: ignore[attr-defined]
    if target == TABS_ID:
        return render(request, "people/_tabs.html", context)
    page, found = query.page(request.GET.get("page"), now)
    context |= {
        "page": page,
        "rows": [person_row(place, facts, reader=reader) for place, facts in found.items()],
        "roles": [(role.value, words.word) for role, words in ROLES.items()],
        "orders": _orders(query),
        "manages": can(reader, Capability.MANAGE_USERS),
        "section": SECTION,
    }
    return render(request, "people/_list.html" if target == LIST_ID else "people/people.html", context)


def tabs_context(query: PeopleQuery | None) -> dict[str, Any]:
    """The tabs with their numbers; no query = the tab of the invitations is open."""
    counts = count_statuses()
    wanted = query.status if query is not None else ""
    tabs = [
        (status, word, counts[status])
        for status, word in TABS.items()
        if counts[status] or not status or status == wanted
    ]
    return {"query": query, "tabs": tabs, "total": counts[""], "invites_open": open_invites().count()}


def _orders(query: PeopleQuery) -> list[tuple[str, str]]:
    """The orders to choose from; one that only a column head gives is kept as it is."""
    kept = {query.sort: ORDERS[query.sort.removeprefix("-")]} if query.sort not in ORDERS else {}
    return [(value, str(word)) for value, word in (ORDERS | kept).items()]


def _row_of(request: HttpRequest, user_id: int, now: datetime | None = None) -> PersonRow:
    """A person as the reader may see them, with everything that a row shows."""
    place = member_of(membership=_reader(request), user_id=user_id)
    facts = facts_of([place], now or timezone.now())[place.user_id]
    return person_row(place, facts, reader=_reader(request))


@never_cache
@require_safe
@panel_view
def row(request: HttpRequest, user_id: int) -> HttpResponse:
    """One row, fetched again after a change; empty when the person has gone."""
    try:
        found = _row_of(request, user_id)
    except NotFound:
        return HttpResponse()
    return render(request, "people/_rows.html", _row_context(request, found))


def _row_context(request: HttpRequest, found: PersonRow) -> dict[str, Any]:
    return {"rows": [found], "manages": can(_reader(request), Capability.MANAGE_USERS)}


# --- one person ------------------------------------------------------------------------------------------


@never_cache
@require_safe
@panel_view
def person(request: HttpRequest, user_id: int) -> HttpResponse:
    """A person's page; only its inside when htmx fetches it again."""
    try:
        context = _detail_context(request, user_id)
    except NotFound:
        if is_htmx(request):  # they were removed while somebody looked at them
            return HttpResponseClientRedirect(PAGE)
        raise
    return render(request, "people/_person.html" if is_htmx(request) else "people/person.html", context)


def _detail_context(request: HttpRequest, user_id: int) -> dict[str, Any]:
    reader, now = _reader(request), timezone.now()
    found = _row_of(request, user_id, now)
    nodes = visible_nodes(reader).filter(user_id=user_id)[:MAX_DEVICES]
    history = []
    if can(reader, Capability.SEE_ALL):
        events = audit_events().filter(target_type="USER", target_id=str(user_id))
        history = list(events[:HISTORY_LENGTH])
    return {
        "row": found,
        "hint": ROLES[Role(found.place.role)].hint,
        "signs_in_with": signs_in_with(found.user),
        "devices": [
            device_row(node, membership=reader, base_domain=settings.BASE_DOMAIN, now=now) for node in nodes
        ],
        "keys": PreAuthKey.objects.filter(user_id=user_id, revoked_at=None, expires__gt=now).count(),
        "history": history,
        "section": SECTION,
    }


# --- doing something -------------------------------------------------------------------------------------


def _done(request: HttpRequest, user_id: int, message: str, *, dialog: bool = True) -> HttpResponse:
    """The answer after a change: the row or the page as it is now, and a word about it."""
    try:
        found = _row_of(request, user_id)
    except NotFound:
        return _gone(request, message)
    if not is_htmx(request):
        return redirect(f"{PAGE}/{user_id}")
    if _on_page_of(request):
        response = render(request, "people/_person.html", _detail_context(request, user_id))
        return say(reswap(retarget(response, f"#{DETAIL_ID}"), "outerHTML"), message, close=dialog)
    return say(render(request, "people/_rows.html", _row_context(request, found)), message, close=dialog)


def _gone(request: HttpRequest, message: str) -> HttpResponse:
    if not is_htmx(request):
        return redirect(PAGE)
    return HttpResponseClientRedirect(PAGE) if _on_page_of(request) else say(HttpResponse(), message)


def _on_page_of(request: HttpRequest) -> bool:
    """Whether a person's own page (not the list) asked."""
    parts = path_of_page(request).strip("/").split("/")
    return len(parts) == 2 and parts[0] == "users" and parts[1].isdigit()


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def act(request: HttpRequest, user_id: int, action: str) -> HttpResponse:
    """Do something to a person; GET is the dialog that says what follows from it."""
    chosen, reader = _action(action), _reader(request)
    target = member_of(membership=reader, user_id=user_id, manage=True)
    if not may_act(reader, chosen, target):
        raise Conflict("this person is in another state by now")
    if request.method == "POST":
        try:
            act_on_person(
                action=chosen, person=target, by=actor_of(request), role=request.POST.get("role", "")
            )
            dialog = chosen not in (PersonAction.APPROVE, PersonAction.RESTORE)
            return _done(request, user_id, words_of_one(chosen, target.user.name).done, dialog=dialog)
        except Invalid as error:
            return _ask(request, chosen, [target], error=error_text(error))
    return _ask(request, chosen, [target])


def _action(text: str) -> PersonAction:
    try:
        return PersonAction(text)
    except ValueError as error:
        raise NotFound("there is no such action") from error


def _ask(
    request: HttpRequest,
    action: PersonAction,
    targets: Sequence[Membership],
    *,
    left: int = 0,
    error: str = "",
) -> HttpResponse:
    """The dialog of an action, for one person or several."""
    ids = [target.user_id for target in targets]
    one = targets[0] if len(targets) == 1 and not left else None
    context = {
        "action": action.value,
        "words": words_of_one(action, one.user.name) if one else words_of_several(action, len(targets)),
        "targets": targets,
        "names": [target.user.name for target in targets[:MAX_NAMES]],
        "more": max(0, len(targets) - MAX_NAMES),
        "one": one,
        "left": left,
        "devices": Node.objects.filter(user_id__in=ids).count(),
        "roles": roles_to_give(_reader(request)) if action is PersonAction.ROLE else [],
        "error": error,
        "section": SECTION,
    }
    return sheet(request, "people/ask.html", context, status=UNPROCESSABLE if error else 200)


# --- several at once -------------------------------------------------------------------------------------


@never_cache
@require_POST
@panel_view
def bulk(request: HttpRequest) -> HttpResponse:
    """Do one thing to those who were ticked; without ``sure`` it counts, says what follows, and asks."""
    reader, action = member_with(request, Capability.SEE_ALL), _action(request.POST.get("action", ""))
    require(reader, Capability.MANAGE_USERS)
    ids = [int(text) for text in request.POST.getlist("user")[:MAX_CHOSEN] if _is_id(text)]
    chosen = list(members().select_related("tailnet").filter(user_id__in=ids))
    fitting = [one for one in chosen if may_act(reader, action, one)]
    role = request.POST.get("role", "")
    if request.POST.get("sure") != "1" or not fitting or (action is PersonAction.ROLE and not role):
        error = _("Choose a role.") if request.POST.get("sure") == "1" and fitting else ""
        return in_sheet(request, _ask(request, action, fitting, left=len(chosen) - len(fitting), error=error))
    done = sum(_did(request, action, one, role) for one in fitting)
    return _several_done(request, words_of_several(action, done).done)


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 19


def _did(request: HttpRequest, action: PersonAction, target: Membership, role: str) -> bool:
    """Act on one of several; who has changed meanwhile is left as they are."""
    try:
        act_on_person(action=action, person=target, by=actor_of(request), role=role)
    except (Conflict, Forbidden, NotFound):
        return False
    return True


def _several_done(request: HttpRequest, message: str) -> HttpResponse:
    if not is_htmx(request):
        return redirect(PAGE)
    return trigger_client_event(say(reswap(HttpResponse(), "none"), message), "showChanges", {})
