"""Tags of the device pages' templates."""

from __future__ import annotations

from typing import Any

from django import template
from django.template.loader import render_to_string
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

from nodes.rows import DeviceRow

register = template.Library()

ID, DOM_ID, NAME = "\ue000", "\ue001", "\ue002"  # of the private use area: in no template, in no id


@register.simple_tag(takes_context=True)
def device_menu(context: dict[str, Any], row: DeviceRow) -> SafeString:
    """The menu of what can be done to a device, for a row, with the button that opens it.

    The menus of a list differ by what the person may do and by the device's ids and name, so each kind
    is rendered once for a page (whose context has ``menus``): they would cost as much as the list's rest.
    """
    kinds: dict[Any, str] = context.get("menus", {})
    kind = (row.may, row.node.key_expiry_disabled)
    if kind not in kinds:
        values = {"may": row.may, "keeps_key": row.node.key_expiry_disabled}
        page = {name: context.get(name) for name in ("csrf_token", "tailnet")}
        theirs = {"id": ID, "dom_id": DOM_ID, "name": NAME}
        kinds[kind] = render_to_string("nodes/_menu.html", values | page | theirs)
    text = kinds[kind].replace(ID, conditional_escape(row.node.stable_id)).replace(DOM_ID, row.dom_id)
    # A template's text and escaped values; the name is put in last, so that whatever is in it stays as it is.
    return mark_safe(text.replace(NAME, conditional_escape(row.node.name)))  # noqa: S308
