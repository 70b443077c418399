"""Bulk actions: a dialog that counts and says the consequences, then slices until all are done.

The dialog names the devices that it counted, so what joins meanwhile stays out of it. Each slice is one
request; a browser sends the next by itself, and a person without scripts presses Continue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, QueryDict
from django.shortcuts import redirect
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_htmx.http import reswap, trigger_client_event

from accounts.errors import Invalid
from accounts.models import Membership
from accounts.pages import actor_of, in_sheet, is_htmx, membership_of, panel_view, say, sheet
from nodes.access import visible_nodes, with_devices
from nodes.bulk_plan import MAX_NAMES, plan
from nodes.bulk_words import done_words, refused_words, words
from nodes.listing import DeviceQuery
from nodes.models import Node
from nodes.services import bulk
from nodes.services.bulk import BulkAction, Refusal

MAX_BULK = 10_000
MAX_ID_DIGITS = 18
MAX_QUERY = 2000
MAX_LEFT = 2000  # refusals that are remembered from slice to slice


def _action(request: HttpRequest) -> BulkAction:
    try:
        return BulkAction(request.POST.get("action", ""))
    except ValueError as error:
        raise Invalid("no such action") from error


def _query(request: HttpRequest) -> str:
    """The list that asked, as its URL has it."""
    return request.POST.get("query", "")[:MAX_QUERY]


def _chosen(request: HttpRequest, membership: Membership) -> Iterable[Node]:
    """The devices ticked, or all that the list's filter selects, in its order."""
    visible = visible_nodes(membership)
    query = DeviceQuery.parse(QueryDict(_query(request)).dict())
    if request.POST.get("all") != "1":
        ids = request.POST.getlist("id")[:MAX_BULK]
        return query.ordered(visible.filter(stable_id__in=ids), timezone.now())
    return query.select(visible, timezone.now())[:MAX_BULK]


@never_cache
@require_POST
@panel_view
def ask(request: HttpRequest) -> HttpResponse:
    """Count, say what follows, ask; changes nothing."""
    membership, action = with_devices(membership_of(request)), _action(request)
    planned = plan(action, _chosen(request, membership), membership=membership, now=timezone.now())
    context = {
        "action": action,
        "words": words(action, len(planned.ids)),
        "plan": planned,
        "ids": _packed(planned.ids),
        "query": _query(request),
        "section": "devices",
    }
    return in_sheet(request, sheet(request, "nodes/bulk_ask.html", context))


@never_cache
@require_POST
@panel_view
def do(request: HttpRequest) -> HttpResponse:
    """One slice; then the next, or a word about what came of it."""
    membership, action = with_devices(membership_of(request)), _action(request)
    ids = _unpacked(request.POST.get("ids", ""))
    now, later = ids[: bulk.SLICE], ids[bulk.SLICE :]
    outcome = bulk.act_on_nodes(membership=membership, node_ids=now, action=action, by=actor_of(request))
    done = _number(request.POST.get("done", "")) + outcome.done
    left = _left(request.POST.get("left", "")) | outcome.refused
    if later:
        total = done + len(left) + len(later)
        context = {
            "action": action,
            "ids": _packed(later),
            "done": done,
            "left": _packed_left(left),
            "total": total,
            "so_far": total - len(later),
            "query": _query(request),
            "section": "devices",
        }
        return in_sheet(request, sheet(request, "nodes/bulk_progress.html", context))
    return _finished(request, membership, action, done, left)


def _finished(
    request: HttpRequest, membership: Membership, action: BulkAction, done: int, left: dict[int, Refusal]
) -> HttpResponse:
    """Nothing more to do: a toast, or a dialog when some devices were left."""
    message = done_words(action, done)
    why = [refused_words(action, reason, n) for reason, n in Counter(left.values()).most_common()]
    if not is_htmx(request):
        messages.success(request, " ".join([message, *(f"{one}." for one in why)]))
        query = _query(request)
        return redirect("/devices" + (f"?{query}" if query else ""))
    if not left:
        response = say(reswap(HttpResponse(), "none"), message)
    else:
        names = visible_nodes(membership).filter(pk__in=list(left)).values_list("name", flat=True)
        context = {"message": message, "refused": why, "names": list(names[:MAX_NAMES])}
        response = in_sheet(request, sheet(request, "nodes/bulk_done.html", context))
    return trigger_client_event(response, "showChanges", {})


# --- what the dialog carries from request to request -------------------------------------------------------


def _packed(ids: Iterable[int]) -> str:
    return ",".join(map(str, ids))


def _unpacked(text: str) -> list[int]:
    found = (_number(word) for word in text[: MAX_BULK * (MAX_ID_DIGITS + 1)].split(","))
    return list(dict.fromkeys(pk for pk in found if pk))[:MAX_BULK]


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MAX_ID_DIGITS else 0


def _packed_left(left: dict[int, Refusal]) -> str:
    return ",".join(f"{pk}.{why.value}" for pk, why in list(left.items())[:MAX_LEFT])


def _left(text: str) -> dict[int, Refusal]:
    found: dict[int, Refusal] = {}
    for word in text.split(",")[:MAX_LEFT]:
        pk, _, why = word.partition(".")
        if _number(pk) and why in set(Refusal):
            found[_number(pk)] = Refusal(why)
    return found
