"""The list of devices, a device's page, and what can be done to one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from django.conf import settings
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect, reswap, retarget, trigger_client_event

from accounts.access import NOT_HERE
from accounts.errors import ApplicationError, Conflict, NotFound
from accounts.models import Membership
from accounts.pages import (
    UNPROCESSABLE,
    actor_of,
    error_text,
    is_htmx,
    membership_of,
    panel_view,
    path_of_page,
    say,
    sheet,
)
from accounts.roles import Capability, can
from accounts.selectors import login_names
from nodes.access import NodeAction, node_for, visible_nodes, with_devices
from nodes.bulk_words import bulk_choices, may_delete_some
from nodes.connections import connections_of
from nodes.exit_choice import exit_choice
from nodes.forms import RenameForm
from nodes.history import History, history_of
from nodes.listing import (
    MAX_DIGITS,
    ORDERS,
    PAGE_SIZE,
    PEOPLE,
    STATES,
    SYSTEMS,
    TAGGED,
    UNSEEN_DAYS,
    DeviceQuery,
    count_states,
    known_tags,
)
from nodes.models import Node
from nodes.offers import subnets_of
from nodes.pathwords import Paths, paths_of
from nodes.rotation_row import rotation_row
from nodes.rows import DeviceRow, connectivity, device_row
from nodes.selectors import is_online, listed
from nodes.services import lifecycle

MAX_OWNERS = 200
LIST_ID = "device-list"
TABS_ID = "device-tabs"
DETAIL_ID = "device"
MY_DEVICES = "/my-devices"
OTHER_PAGES = ("add", "bulk", "clean-up")  # below /devices, and of no device


def _membership(request: HttpRequest) -> Membership:
    return cast(Membership, membership_of(request))


def _row(
    request: HttpRequest, node: Node, now: datetime | None = None, paths: Mapping[int, Paths] | None = None
) -> DeviceRow:
    now = now or timezone.now()
    paths = paths_of([node.pk], now) if paths is None else paths
    return device_row(
        node,
        membership=_membership(request),
        base_domain=settings.BASE_DOMAIN,
        now=now,
        paths=paths.get(node.pk),
    )


def _row_context(request: HttpRequest, node: Node) -> dict[str, Any]:
    return {"rows": [_row(request, node)], "bulk": bulk_choices(_membership(request))}


# --- the list --------------------------------------------------------------------------------------------


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def devices(request: HttpRequest) -> HttpResponse:
    """The devices that the URL asks for; only the list, or its tabs, when htmx fetches those again."""
    now = timezone.now()
    membership = with_devices(membership_of(request))
    query = DeviceQuery.parse(request.GET)
    visible = visible_nodes(membership)
    counts = count_states(visible, now)
    context: dict[str, Any] = {
        "query": query,
        "tabs": [
            (state, word, counts[state])
            for state, word in STATES.items()
            if counts[state] or not state or state == query.state
        ],
    }
    target = request.htmx.target if is_htmx(request) else None  # type: ignore[attr-defined]
    if target == TABS_ID:
        return render(request, "nodes/_tabs.html", context)
    page = _page(query, visible, counts, request.GET.get("page"), now)
    paths = paths_of([node.pk for node in page if is_online(node, now)], now)
    context |= {
        "page": page,
        "rows": [_row(request, node, now, paths) for node in page],
        "total": counts[""],
        "systems": SYSTEMS.items(),
        "tagged": TAGGED,
        "people": PEOPLE,
        "tags": known_tags(visible),
        "unseen_days": UNSEEN_DAYS,
        "orders": _orders(query),
        "owners": login_names(MAX_OWNERS) if can(membership, Capability.SEE_ALL) else [],
        "bulk": bulk_choices(membership),
        "may_clean_up": may_delete_some(membership),
        "filter_url": query.url,
        "section": "devices",
    }
    return render(request, "nodes/_list.html" if target == LIST_ID else "nodes/devices.html", context)


def _page(
    query: DeviceQuery, visible: QuerySet[Node], counts: dict[str, int], number: str | None, now: datetime
) -> Page[Node]:
    """One page of the list. Only its own devices are read whole: sorting is done on their ids."""
    ids = query.select(visible.prefetch_related(None).select_related(None), now).values_list("pk", flat=True)
    if query == DeviceQuery(state=query.state, sort=query.sort):
        paginator: Paginator[Any] = Paginator(ids, PAGE_SIZE)
        paginator.__dict__["count"] = counts[query.state]  # counted for the tabs already
    else:
        paginator = Paginator(list(ids), PAGE_SIZE)  # to count and to read would be to search twice
    page = paginator.get_page(number)
    wanted = list(page.object_list)
    found = {node.pk: node for node in listed(visible).filter(pk__in=wanted)}
    page.object_list = [found[pk] for pk in wanted if pk in found]
    return page


def _orders(query: DeviceQuery) -> list[tuple[str, str]]:
    """The orders to choose from; one that only a column head gives is kept as it is."""
    kept = {query.sort: ORDERS[query.sort.removeprefix("-")]} if query.sort not in ORDERS else {}
    return [(value, str(word)) for value, word in (ORDERS | kept).items()]


@never_cache
@require_safe
@panel_view
def row(request: HttpRequest, node_id: str) -> HttpResponse:
    """One row, fetched again after a change; empty when the device has gone."""
    try:
        node = node_for(membership=_membership(request), node_id=node_id)
    except NotFound:
        return HttpResponse()
    return render(request, "nodes/_rows.html", _row_context(request, node))


# --- one device ------------------------------------------------------------------------------------------


def _detail_context(request: HttpRequest, node: Node) -> dict[str, Any]:
    row = _row(request, node)
    return {
        "row": row,
        "node": node,
        "net": connectivity(node),
        "connections": connections_of(
            node, membership=_membership(request), online=row.online, now=timezone.now()
        ),
        "subnets": subnets_of(node, among=visible_nodes(_membership(request)), now=timezone.now()),
        "exit": exit_choice(node, membership=_membership(request), online=row.online),
        "history": _history(request, node),
        "rotation": rotation_row(node, membership=_membership(request)),
        "section": "devices",
    }


def _history(request: HttpRequest, node: Node) -> History | None:
    before = request.GET.get("before", "")
    number = int(before) if before.isascii() and before.isdigit() and len(before) <= MAX_DIGITS else None
    return history_of(node, membership=_membership(request), before=number)


@never_cache
@require_safe
@panel_view
def history(request: HttpRequest, node_id: str) -> HttpResponse:
    """The events before those that are shown."""
    node = node_for(membership=_membership(request), node_id=node_id)
    found = _history(request, node)
    if found is None:
        raise NotFound(NOT_HERE)
    return render(request, "nodes/_history.html", {"history": found, "node": node})


@never_cache
@require_safe
@panel_view
def device(request: HttpRequest, node_id: str) -> HttpResponse:
    """A device's page; only its inside when htmx fetches it again."""
    try:
        node = node_for(membership=_membership(request), node_id=node_id)
    except NotFound:
        if is_htmx(request):  # it was deleted while somebody looked at it
            return HttpResponseClientRedirect("/devices")
        raise
    template = "nodes/_device.html" if is_htmx(request) else "nodes/device.html"
    return render(request, template, _detail_context(request, node))


# --- doing something -------------------------------------------------------------------------------------


def _on_page_of(request: HttpRequest) -> bool:
    """Whether the device's own page (not the list) asked."""
    parts = path_of_page(request).strip("/").split("/")
    return len(parts) == 2 and parts[0] == "devices" and parts[1] not in OTHER_PAGES


def done(request: HttpRequest, node: Node | None, message: str, *, dialog: bool = True) -> HttpResponse:
    """The answer after a change: the row or the page as it is now, and a word about it.

    ``dialog`` says whether it was asked for in one, which is then closed.
    """
    if not is_htmx(request):
        return redirect("/devices" if node is None else f"/devices/{node.stable_id}")
    if path_of_page(request) == MY_DEVICES:
        return trigger_client_event(say(reswap(HttpResponse(), "none"), message, close=dialog), "showChanges")
    if _on_page_of(request):
        if node is None:
            return HttpResponseClientRedirect("/devices")
        fresh = node_for(membership=_membership(request), node_id=node.stable_id)
        response = render(request, "nodes/_device.html", _detail_context(request, fresh))
        return say(reswap(retarget(response, f"#{DETAIL_ID}"), "outerHTML"), message, close=dialog)
    if node is None:
        return say(HttpResponse(), message)
    fresh = node_for(membership=_membership(request), node_id=node.stable_id)
    return say(render(request, "nodes/_rows.html", _row_context(request, fresh)), message, close=dialog)


@never_cache
@require_POST
@panel_view
def approve(request: HttpRequest, node_id: str) -> HttpResponse:
    """Let a pending device in."""
    node = node_for(membership=_membership(request), node_id=node_id, action=NodeAction.APPROVE)
    node = lifecycle.approve_node(node=node, by=actor_of(request))
    return done(request, node, _("%(name)s is approved.") % {"name": node.name}, dialog=False)


def _confirmed(
    template: str, action: NodeAction, act: Callable[[HttpRequest, Node], tuple[Node | None, str]]
) -> Callable[..., HttpResponse]:
    """A view with a dialog on GET that says the consequences, and the deed on POST."""

    @never_cache
    @require_http_methods(["GET", "POST"])
    @panel_view
    def view(request: HttpRequest, node_id: str) -> HttpResponse:
        node = node_for(membership=_membership(request), node_id=node_id, action=action)
        if request.method == "GET":
            return sheet(request, template, {"row": _row(request, node), "section": "devices"})
        return done(request, *act(request, node))

    return view


def _reject(request: HttpRequest, node: Node) -> tuple[Node | None, str]:
    lifecycle.reject_node(node=node, by=actor_of(request))
    return None, _("%(name)s was turned away.") % {"name": node.name}


def _expire(request: HttpRequest, node: Node) -> tuple[Node | None, str]:
    changed = lifecycle.expire_node(node=node, by=actor_of(request))
    return changed, _("The key of %(name)s has expired.") % {"name": node.name}


def _delete(request: HttpRequest, node: Node) -> tuple[Node | None, str]:
    lifecycle.delete_node(node=node, by=actor_of(request))
    return None, _("%(name)s was deleted.") % {"name": node.name}


reject = _confirmed("nodes/reject.html", NodeAction.APPROVE, _reject)
expire = _confirmed("nodes/expire.html", NodeAction.EXPIRE, _expire)
delete = _confirmed("nodes/delete.html", NodeAction.DELETE, _delete)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def rename(request: HttpRequest, node_id: str) -> HttpResponse:
    """Give a device another name."""
    node = node_for(membership=_membership(request), node_id=node_id, action=NodeAction.RENAME)
    context: dict[str, Any] = {"row": _row(request, node), "section": "devices"}
    if request.method == "GET":
        return sheet(request, "nodes/rename.html", context | {"form": RenameForm({"name": node.name})})
    form = RenameForm(request.POST)
    if form.is_valid():
        try:
            node = lifecycle.rename_node(node=node, name=form.cleaned_data["name"], by=actor_of(request))
            return done(request, node, _("It is now called %(name)s.") % {"name": node.name})
        except Conflict:
            form.add_error("name", _("Another device has this name."))
        except ApplicationError as error:
            form.add_error("name", error_text(error))
    return sheet(request, "nodes/rename.html", context | {"form": form}, status=UNPROCESSABLE)


@never_cache
@require_POST
@panel_view
def key_expiry(request: HttpRequest, node_id: str) -> HttpResponse:
    """Switch a device's key expiry off or on."""
    node = node_for(membership=_membership(request), node_id=node_id, action=NodeAction.SET_EXPIRY)
    disabled = request.POST.get("disabled") == "1"
    node = lifecycle.set_expiry(node=node, by=actor_of(request), disabled=disabled)
    words = (
        _("The key of %(name)s no longer expires.") if disabled else _("The key of %(name)s expires again.")
    )
    return done(request, node, words % {"name": node.name}, dialog=False)
