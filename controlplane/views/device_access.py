"""Which rules concern one device: what it may reach, and who may reach it."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import ngettext
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe
from django.views.decorators.vary import vary_on_headers
from django_htmx.http import HttpResponseClientRedirect

from accounts.errors import NotFound
from accounts.pages import is_htmx, member_with, panel_view
from accounts.roles import Capability
from controlplane.netmap.policy.concerns import concerns_of
from controlplane.rules.listing import Group, list_rules
from controlplane.services.evaluations import Evaluated, evaluated
from nodes.access import node_for
from nodes.models import Node

MAX_NAMED = 12  # devices that it reaches, or that reach it


@never_cache
@require_safe
@vary_on_headers("HX-Request")
@panel_view
def page(request: HttpRequest, node_id: str) -> HttpResponse:
    """The rules of both directions, and how many devices they let through."""
    membership = member_with(request, Capability.SEE_ALL)
    try:
        node = node_for(membership=membership, node_id=node_id)
    except NotFound:
        if is_htmx(request):  # it was deleted while somebody looked at it
            return HttpResponseClientRedirect("/devices")
        raise
    context = {"node": node, "sides": _sides(node, evaluated(membership.tailnet)), "section": "devices"}
    template = "controlplane/_device_access.html" if is_htmx(request) else "controlplane/device_access.html"
    return render(request, template, context)


def _sides(node: Node, place: Evaluated) -> list[dict[str, Any]]:
    """What it reaches, and who reaches it; nothing while it takes no part."""
    world = place.evaluation.world
    if node.pk not in place.snapshot.nodes or not world.bit(node.pk):
        return []
    own = world.bit(node.pk)
    concerns = concerns_of(place.evaluation, node.pk)
    return [
        _side("out", place, place.reach.of(own) & ~own, concerns.outwards),
        _side("in", place, place.reach.reaching(node.pk), concerns.inwards),
    ]


def _side(key: str, place: Evaluated, mask: int, offsets: tuple[int, ...]) -> dict[str, Any]:
    names = sorted(
        place.snapshot.nodes[one].name.partition(".")[0] for one in place.evaluation.world.ids(mask)
    )
    return {
        "key": key,
        "count": ngettext("%(n)d device", "%(n)d devices", len(names)) % {"n": len(names)},
        "names": names[:MAX_NAMED],
        "more": max(0, len(names) - MAX_NAMED),
        "groups": _rules(place.evaluation.policy.text, offsets),
    }


def _rules(text: str, offsets: tuple[int, ...]) -> list[Group]:
    """These rules in words; none where the text has none of its own (then everybody reaches everybody)."""
    return list_rules(text, frozenset(offsets)) if text else []
