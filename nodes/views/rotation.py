"""The button that has a device replace its node key."""

from __future__ import annotations

from typing import cast

from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from accounts.errors import Conflict
from accounts.models import Membership
from accounts.pages import actor_of, membership_of, panel_view
from nodes.access import NodeAction, node_for
from nodes.services.asking import NodeSilent, Why, understands_us
from nodes.services.rotation import rotate_on_demand
from nodes.views.devices import done


@never_cache
@require_POST
@panel_view
def rotate_key(request: HttpRequest, node_id: str) -> HttpResponse:
    """Ask the device for a new key, and say what came of it."""
    membership = cast(Membership, membership_of(request))
    node = node_for(membership=membership, node_id=node_id, action=NodeAction.ROTATE)
    if not understands_us(node):
        raise Conflict("only Trenza's own client replaces its key when it is asked")
    try:
        rotate_on_demand(node=node, by=actor_of(request))
    except NodeSilent as error:
        return done(request, node, _reason(error) % {"name": node.name}, dialog=False)
    return done(request, node, _("%(name)s has a new key.") % {"name": node.name}, dialog=False)


def _reason(error: NodeSilent) -> str:
    if error.why is Why.AWAY:
        return _("%(name)s is not connected, so it keeps its key. Try again when it is back.")
    if error.why is Why.SILENT:
        return _("%(name)s did not answer. Reload the page in a minute to see whether it has a new key.")
    words = str(error).replace("%", "%%")
    return _("%(name)s keeps its key:") + f" {words}"
