"""What people add to a device: notes, and the tags that it belongs to."""

from __future__ import annotations

from typing import Any, cast

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from accounts.errors import ApplicationError, Conflict
from accounts.models import Membership
from accounts.pages import UNPROCESSABLE, actor_of, error_text, membership_of, panel_view, sheet
from nodes.access import NodeAction, node_for, visible_nodes
from nodes.forms import NotesForm, TagsForm
from nodes.listing import known_tags
from nodes.models import Node
from nodes.services import lifecycle
from nodes.views.devices import done


def _node(request: HttpRequest, node_id: str, action: NodeAction) -> Node:
    return node_for(membership=cast(Membership, membership_of(request)), node_id=node_id, action=action)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def notes(request: HttpRequest, node_id: str) -> HttpResponse:
    """Write something down about a device; only people of the tailnet read it."""
    node = _node(request, node_id, NodeAction.ANNOTATE)
    context: dict[str, Any] = {"node": node, "limit": lifecycle.MAX_NOTES, "section": "devices"}
    if request.method == "GET":
        return sheet(request, "nodes/notes.html", context | {"form": NotesForm({"notes": node.notes})})
    form = NotesForm(request.POST)
    if form.is_valid():
        node = lifecycle.set_notes(node=node, notes=form.cleaned_data["notes"], by=actor_of(request))
        return done(request, node, _("The notes of %(name)s are saved.") % {"name": node.name})
    return sheet(request, "nodes/notes.html", context | {"form": form}, status=UNPROCESSABLE)


@never_cache
@require_http_methods(["GET", "POST"])
@panel_view
def tags(request: HttpRequest, node_id: str) -> HttpResponse:
    """Give a device to tags, or to other ones; a person loses it by that."""
    membership = cast(Membership, membership_of(request))
    node = _node(request, node_id, NodeAction.TAG)
    context: dict[str, Any] = {
        "node": node,
        "known": known_tags(visible_nodes(membership)),
        "section": "devices",
    }
    if request.method == "GET":
        form = TagsForm({"tags": " ".join(node.tags)})
        return sheet(request, "nodes/tags.html", context | {"form": form, "untouched": True})
    form = TagsForm(request.POST)
    if form.is_valid():
        try:
            node = lifecycle.set_tags(node=node, tags=form.cleaned_data["tags"], by=actor_of(request))
            return done(request, node, _("The tags of %(name)s are set.") % {"name": node.name})
        except Conflict:
            form.add_error("tags", _("This machine has a tagged device already."))
        except ApplicationError as error:
            form.add_error("tags", error_text(error))
    return sheet(request, "nodes/tags.html", context | {"form": form}, status=UNPROCESSABLE)
