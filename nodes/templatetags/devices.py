"""Tags of the device pages' templates."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from nodes.rows import DeviceRow

register = template.Library()

ID, DOM_ID = "\ue000", "\ue001"  # of the private use area: no device's own text reaches this menu


@register.simple_tag(takes_context=True)
def device_menu(context: dict[str, Any], row: DeviceRow, on_page: bool = False) -> SafeString:
    """What can be done to a device, as the inside of its menu.

    The menus of a list differ by what the person may do and by the device's ids alone, so each kind is
    rendered once for a page (whose context has ``menus``): they would cost as much as the rest of the list.
    """
    kinds: dict[Any, str] = context.get("menus", {})
    kind = (row.may, row.node.key_expiry_disabled, on_page)
    if kind not in kinds:
        values = {"may": row.may, "keeps_key": row.node.key_expiry_disabled, "id": ID, "dom_id": DOM_ID}
        page = {name: context.get(name) for name in ("csrf_token", "tailnet")}
        kinds[kind] = render_to_string("nodes/_actions.html", values | page | {"on_page": on_page})
    text = kinds[kind].replace(ID, conditional_escape(row.node.stable_id))
    return mark_safe(text.replace(DOM_ID, row.dom_id))  # noqa: S308 - a template's text, and escaped ids
