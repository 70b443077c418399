"""The map: devices and their links as a picture, as a table with the same facts, and one device's links."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any, cast

from django.core.paginator import Paginator
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers

from accounts.errors import NotFound
from accounts.models import Membership
from accounts.pages import is_htmx, membership_of, panel_view
from accounts.roles import Capability, can
from accounts.selectors import login_names
from controlplane.services.evaluations import evaluated
from controlplane.services.ownrelays import shown_relays
from nodes.access import node_for
from nodes.links import End, Kind, Link
from nodes.listing import TAGGED
from nodes.models import Node
from nodes.offers import Offers, offers_of
from nodes.picture import MAX_DRAWN, MapQuery, Picture, largest_owners, links_of, load_picture
from nodes.rows import Shown, os_of, shown_state
from nodes.selectors import is_online
from wire.paths import Reason as Reached

SECTION = "map"
PAGE_SIZE = 50
MAX_OWNERS = 200
TABLE_ID = "map-table"
MAX_ALONE = 100
MAX_ALLOWED = 1000  # pairs that rules let talk, in one picture
SHOWN_SUBNETS = 2

PATHS = {
    Kind.DIRECT: Shown("direct", "arrows-exchange", gettext_lazy("Direct")),
    Kind.RELAYED: Shown("relayed", "cloud", gettext_lazy("Relayed")),
    Kind.IDLE: Shown("idle", "clock-pause", gettext_lazy("Idle")),
}
ABOUT_BOTH = (Reached.HARD_NAT_BOTH, Reached.IDLE, Reached.LOOKING)  # what means the same from either end
SORTS = ("name", "path", "latency")
Regions = Mapping[int, str]


def _membership(request: HttpRequest) -> Membership:
    """Whoever sees any device sees the map of those."""
    membership = cast(Membership, membership_of(request))
    if not (can(membership, Capability.SEE_ALL) or can(membership, Capability.SEE_OWN_DEVICES)):
        raise NotFound("this role sees no devices")
    return membership


def _regions(membership: Membership) -> Regions:
    return {relay.region_id: relay.region_name for relay in shown_relays(membership.tailnet_id)}


def _region_name(region: int, regions: Regions) -> str:
    return regions.get(region) or _("Region %(number)s") % {"number": region}


# --- the picture's data ----------------------------------------------------------------------------------


@never_cache
@require_safe
@panel_view
def data(request: HttpRequest) -> HttpResponse:
    """What the picture is drawn from: at most ``MAX_DRAWN`` devices, and their links."""
    membership, now = _membership(request), timezone.now()
    query = MapQuery.parse(request.GET)
    picture = load_picture(membership, query, now)
    regions = _regions(membership)
    content: dict[str, Any] = {
        "nodes": [_node_json(node, picture) for node in picture.nodes.values()],
        "links": [_link_json(link, regions) for link in picture.links],
        "summary": _summary(picture),
    }
    if query.rules and can(membership, Capability.SEE_ALL):
        content["allowed"], left_out = _allowed(membership, picture)
        content["allowed_notice"] = _too_much_allowed(left_out) if left_out else ""
    if picture.total > MAX_DRAWN:
        content |= {"notice": _too_many(picture), "groups": _groups(membership)}
    return JsonResponse(content)


def _node_json(node: Node, picture: Picture) -> dict[str, Any]:
    online = is_online(node, timezone.now())
    state, offers = shown_state(node, online=online, now=timezone.now()), offers_of(node)
    return {
        "id": str(node.pk),
        "key": node.stable_id,
        "name": node.name,
        "role": _role(offers),
        "marks": _marks(offers),
        "state": state.key,
        "word": str(state.word),
        "icon": os_of(node)[1],
        "beside": node.pk in picture.beside,
    }


def _role(offers: Offers) -> str:
    """Which shape a device has."""
    routes = bool(offers.subnets_approved)
    if offers.exit_approved:
        return "both" if routes else "exit"
    return "router" if routes else "plain"


def _marks(offers: Offers) -> str:
    """What a device does for others, in words for under its name."""
    words = [_("exit node")] if offers.exit_approved else []
    subnets = [route.prefix for route in offers.subnets if route.approved_at is not None]
    words += subnets[:SHOWN_SUBNETS]
    if len(subnets) > SHOWN_SUBNETS:
        words.append(f"+{len(subnets) - SHOWN_SUBNETS}")
    return ", ".join(words)


def _link_json(link: Link, regions: Regions) -> dict[str, Any]:
    user, peer = link.pair if link.exit_node != link.pair[0] else reversed(link.pair)
    label = latency_text(link)
    if link.regions:
        via = ", ".join(_region_name(region, regions) for region in link.regions)
        label = f"{via} · {label}" if label else via
    return {
        "id": "{}-{}".format(*link.pair),
        "source": str(user),
        "target": str(peer),
        "kind": link.kind.value,
        "label": label,
        "exit": bool(link.exit_node),
    }


def latency_text(link: Link) -> str:
    """How long there and back takes; "" when nobody knows."""
    if not link.latency_ms:
        return ""
    return f"≈ {link.latency_ms} ms" if link.is_estimate else f"{link.latency_ms} ms"


def _allowed(membership: Membership, picture: Picture) -> tuple[list[dict[str, Any]], int]:
    """Which of the drawn devices rules let reach which, pair by pair, and how many pairs are left out."""
    place = evaluated(membership.tailnet)
    world, drawn = place.evaluation.world, sorted(picture.nodes)
    reached = {pk: place.reach.of(bit) for pk in drawn if (bit := world.bit(pk))}
    pairs = []
    for one, other in combinations(reached, 2):
        there = bool(reached[one] & world.bit(other))
        back = bool(reached[other] & world.bit(one))
        if there or back:
            pairs.append(_allowed_json(one, other, there=there, back=back))
    return pairs[:MAX_ALLOWED], max(0, len(pairs) - MAX_ALLOWED)


def _allowed_json(one: int, other: int, *, there: bool, back: bool) -> dict[str, Any]:
    source, target = (one, other) if there else (other, one)
    return {"id": f"rule-{one}-{other}", "source": str(source), "target": str(target), "kind": "allowed",
            "both": there and back, "label": ""}  # fmt: skip


def _too_much_allowed(left_out: int) -> str:
    words = ngettext(
        "%(n)d more pair may talk by the rules than is drawn. Filter to see it.",
        "%(n)d more pairs may talk by the rules than are drawn. Filter to see them.",
        left_out,
    )
    return words % {"n": left_out}


def _summary(picture: Picture) -> str:
    """One sentence for those who hear the page."""
    devices = ngettext("%(n)d device", "%(n)d devices", len(picture.nodes)) % {"n": len(picture.nodes)}
    links = ngettext("%(n)d link", "%(n)d links", len(picture.links)) % {"n": len(picture.links)}
    return _("%(devices)s, %(links)s") % {"devices": devices, "links": links}


def _too_many(picture: Picture) -> str:
    words = _("Of %(total)s devices %(drawn)s are drawn, connected ones first. Filter to see the others.")
    return words % {"total": picture.total, "drawn": MAX_DRAWN}


def _groups(membership: Membership) -> list[dict[str, Any]]:
    """What to look at instead of everything."""
    return [
        {"owner": TAGGED if user is None else str(user), "name": name or _("Tagged devices"), "n": number}
        for user, name, number in largest_owners(membership)
    ]


# --- the page and its table ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a pair does not talk directly, and which end says so ("" = both)."""

    name: str
    text: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """One pair, for the table and the card. ``via``: relays by name; ``addresses``: who is reached where."""

    link: Link
    one: Node
    other: Node
    path: Shown
    via: list[str]
    addresses: list[tuple[str, str]]
    latency: str
    reasons: list[Reason]

    @property
    def dom_id(self) -> str:
        return "{}-{}".format(*self.link.pair)

    @property
    def exit_node(self) -> Node | None:
        """The end through which the other reaches the internet."""
        return next((node for node in (self.one, self.other) if node.pk == self.link.exit_node), None)


def link_row(link: Link, nodes: Mapping[int, Node], regions: Regions, *, first: int = 0) -> LinkRow:
    """``first``: the end that comes first; otherwise the one whose name does."""
    one, other = sorted((nodes[pk] for pk in link.pair), key=lambda node: (node.pk != first, node.name))
    told = [end for end in link.ends if end.kind is Kind.DIRECT]
    return LinkRow(
        link=link,
        one=one,
        other=other,
        path=PATHS[link.kind],
        via=[_region_name(region, regions) for region in link.regions],
        addresses=sorted((nodes[end.peer].name, end.endpoint) for end in told),
        latency=latency_text(link),
        reasons=_reasons(link.ends, nodes),
    )


def _reasons(ends: tuple[End, ...], nodes: Mapping[int, Node]) -> list[Reason]:
    told = [Reason(nodes[end.node].name, end.why) for end in ends if end.why]
    alike = len(told) > 1 and len({end.reason for end in ends}) == 1
    return [Reason("", told[0].text)] if alike and ends[0].reason in ABOUT_BOTH else told


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def page(request: HttpRequest) -> HttpResponse:
    """The picture, or with ``view=table`` the same as a table."""
    membership = _membership(request)
    query = MapQuery.parse(request.GET)
    context: dict[str, Any] = {
        "query": query,
        "paths": PATHS.values(),
        "tagged": TAGGED,
        "owners": login_names(MAX_OWNERS) if can(membership, Capability.SEE_ALL) else [],
        "section": SECTION,
    }
    if request.GET.get("view") != "table":
        return render(request, "controlplane/map.html", context)
    context |= _table(request, membership, query)
    target = request.htmx.target if is_htmx(request) else None  # type: ignore[attr-defined]
    template = "controlplane/_map_table.html" if target == TABLE_ID else "controlplane/map_table.html"
    return render(request, template, context)


def _table(request: HttpRequest, membership: Membership, query: MapQuery) -> dict[str, Any]:
    now = timezone.now()
    picture, regions = load_picture(membership, query, now), _regions(membership)
    rows = [link_row(link, picture.nodes, regions) for link in picture.links]
    sort = request.GET.get("sort", "")
    linked = {pk for link in picture.links for pk in link.pair}
    alone = sorted((n for pk, n in picture.nodes.items() if pk not in linked), key=lambda node: node.name)
    return {
        "page": Paginator(_sorted(rows, sort), PAGE_SIZE).get_page(request.GET.get("page")),
        "sort": sort if sort.removeprefix("-") in SORTS else "name",
        "alone": [
            (node, shown_state(node, online=is_online(node, now), now=now), _marks(offers_of(node)))
            for node in alone[:MAX_ALONE]
        ],
        "alone_count": len(alone),
        "alone_more": max(0, len(alone) - MAX_ALONE),
        "total": picture.total,
        "notice": _too_many(picture) if picture.total > MAX_DRAWN else "",
    }


def _sorted(rows: list[LinkRow], sort: str) -> list[LinkRow]:
    """By the chosen column, then by names; what has no latency comes last either way."""
    down = sort.startswith("-")
    column = sort.removeprefix("-")
    rows = sorted(rows, key=lambda row: (row.one.name, row.other.name))
    if column == "path":
        return sorted(rows, key=lambda row: list(Kind).index(row.link.kind), reverse=down)
    if column == "latency":
        known = sorted((r for r in rows if r.latency), key=lambda row: row.link.latency_ms, reverse=down)
        return known + [row for row in rows if not row.latency]
    return rows[::-1] if down else rows


# --- one device ------------------------------------------------------------------------------------------


@never_cache
@require_safe
@panel_view
def device(request: HttpRequest, node_id: str) -> HttpResponse:
    """The card of a device that was picked; empty when it has gone."""
    membership, now = _membership(request), timezone.now()
    try:
        node = node_for(membership=membership, node_id=node_id)
    except NotFound:
        if is_htmx(request):
            return HttpResponse()
        raise
    links, peers, hidden = links_of(node, membership=membership, now=now)
    nodes, regions = peers | {node.pk: node}, _regions(membership)
    rows = [link_row(link, nodes, regions, first=node.pk) for link in links]
    context = {
        "node": node,
        "state": shown_state(node, online=is_online(node, now), now=now),
        "os": os_of(node),
        "marks": _marks(offers_of(node)),
        "home": _region_name(node.home_derp, regions) if node.home_derp else "",
        "rows": sorted(rows, key=lambda row: row.other.name),
        "hidden": hidden,
    }
    return render(request, "controlplane/_map_device.html", context)
