"""Switches for what devices offer (exit nodes, subnets), and the choice of the exit node that one uses."""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST
from django_htmx.http import trigger_client_event

from accounts.errors import Conflict
from accounts.models import Membership
from accounts.pages import actor_of, is_htmx, membership_of, panel_view
from nodes.access import NodeAction, node_for
from nodes.models import Node
from nodes.services import routes
from nodes.services.asking import NodeSilent, Why
from nodes.services.exitnodes import use_exit_node
from nodes.views.devices import done


def _node(request: HttpRequest, node_id: str, action: NodeAction) -> Node:
    return node_for(membership=cast(Membership, membership_of(request)), node_id=node_id, action=action)


def _is_on(request: HttpRequest) -> bool:
    """Whether the switch that was sent is on; one that is off sends nothing."""
    return request.POST.get("approved") == "1"


@never_cache
@require_POST
@panel_view
def approve_exit_node(request: HttpRequest, node_id: str) -> HttpResponse:
    """Approve a device as an exit node, or withdraw that."""
    node = _node(request, node_id, NodeAction.APPROVE_ROUTES)
    enabled = _is_on(request)
    routes.set_exit_node(node=node, enabled=enabled, by=actor_of(request))
    words = _("Others may use %(name)s as exit node.") if enabled else _("%(name)s is no exit node any more.")
    return done(request, node, words % {"name": node.name}, dialog=False)


@never_cache
@require_POST
@panel_view
def approve_route(request: HttpRequest, node_id: str) -> HttpResponse:
    """Approve one prefix that a device offers, or withdraw that."""
    node = _node(request, node_id, NodeAction.APPROVE_ROUTES)
    prefix, approved = request.POST.get("prefix", "")[: routes.MAX_PREFIX], _is_on(request)
    routes.set_route(node=node, prefix=prefix, approved=approved, by=actor_of(request))
    words = _("Others reach %(prefix)s.") if approved else _("%(prefix)s is withdrawn.")
    return done(request, node, words % {"prefix": prefix}, dialog=False)


@never_cache
@require_POST
@panel_view
def choose_exit_node(request: HttpRequest, node_id: str) -> HttpResponse:
    """Ask the device to use an exit node, or none, and say what came of it."""
    node = _node(request, node_id, NodeAction.SET_EXIT_NODE)
    wanted = request.POST.get("exit_node", "")
    chosen = _node(request, wanted, NodeAction.SEE) if wanted else None
    try:
        use_exit_node(node=node, exit_node=chosen, by=actor_of(request))
    except NodeSilent as error:
        return _failed(request, node, _reason(error, node))
    words = _("%(name)s uses no exit node.") if chosen is None else _("%(name)s uses %(exit)s as exit node.")
    values = {"name": node.name, "exit": chosen.name if chosen else ""}
    return done(request, node, words % values, dialog=False)


def _reason(error: NodeSilent, node: Node) -> str:
    """Why nothing was changed, in the reader's language; a client's own words are as it said them."""
    if error.why is Why.AWAY:
        return _("%(name)s is not connected. Choose again when it is back.") % {"name": node.name}
    if error.why is Why.SILENT:
        return _("%(name)s did not answer. Reload the page in a minute to see what it uses.") % {
            "name": node.name
        }
    return _("%(name)s refused: %(words)s") % {"name": node.name, "words": str(error)}


def _failed(request: HttpRequest, node: Node, words: str) -> HttpResponse:
    """The page as it is, and why it did not change; without scripts a page that says so."""
    if not is_htmx(request):
        return render(request, "409.html", {"message": words, "code": Conflict.code}, status=Conflict.status)
    response = done(request, node, words, dialog=False)
    return trigger_client_event(response, "toast", {"message": words, "failed": True})
