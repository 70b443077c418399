"""Relay regions by their names: devices say numbers."""

from __future__ import annotations

from typing import Any

from django import template
from django.db.models import Q
from django.utils.translation import gettext as _

from controlplane.models import Relay

register = template.Library()


@register.simple_tag(takes_context=True)
def region(context: dict[str, Any], region_id: int | str) -> str:
    """The name that the tailnet knows a region by, else its number; one query for a page."""
    tailnet = context.get("tailnet")
    names = context.render_context.get("regions")  # type: ignore[attr-defined]
    if names is None:
        mine = Q(tailnet__isnull=True) | Q(tailnet=tailnet)
        names = dict(Relay.objects.filter(mine).values_list("region_id", "region_name"))
        context.render_context["regions"] = names  # type: ignore[attr-defined]
    number = int(region_id) if str(region_id).isascii() and str(region_id).isdigit() else 0
    return names.get(number) or _("Region %(region)s") % {"region": region_id}
