"""``{% stamp %}``: a piece of a list's row that differs by names only, rendered once for its kind.

What can be done to a thing depends on few facts, and the buttons for it hold the thing's name and address:
rendered for each row they cost as much as the rest of the page.
"""

from __future__ import annotations

import re
from typing import Any

from django import template
from django.template.base import FilterExpression, NodeList, Parser, Token, token_kwargs
from django.utils.html import conditional_escape
from django.utils.safestring import SafeString, mark_safe

register = template.Library()

FIRST_MARK = 0xE000  # of the private use area: no template has these characters
MAX_MARKS = 16
MARKS = re.compile(f"([{chr(FIRST_MARK)}-{chr(FIRST_MARK + MAX_MARKS - 1)}])")


class StampNode(template.Node):
    """Renders its inside once for each kind, with a mark for each of the names, and puts the values there."""

    def __init__(
        self, kinds: list[FilterExpression], given: dict[str, FilterExpression], nodelist: NodeList
    ) -> None:
        self.kinds, self.given, self.nodelist = kinds, given, nodelist
        self.marks = {name: chr(FIRST_MARK + place) for place, name in enumerate(given)}

    def render(self, context: template.Context) -> SafeString:
        page: Any = context.render_context
        stamps: dict[Any, list[str]] = page.setdefault(self, {})
        kind = tuple(expression.resolve(context) for expression in self.kinds)
        if kind not in stamps:
            with context.push(**self.marks):  # text and marks by turns
                stamps[kind] = MARKS.split(self.nodelist.render(context))
        values = [conditional_escape(expression.resolve(context)) for expression in self.given.values()]
        parts = stamps[kind].copy()
        parts[1::2] = [values[ord(mark) - FIRST_MARK] for mark in parts[1::2]]
        return mark_safe("".join(parts))  # noqa: S308 - a template's own text, and escaped values


@register.tag
def stamp(parser: Parser, token: Token) -> StampNode:
    """``{% stamp KIND… by NAME=VALUE… %}…{% endstamp %}``.

    The inside may depend on the kinds (hashable values, the same for many rows), on what all rows share, and
    on the names: these it may print or add to other texts, but neither test nor shorten nor put in capitals.
    """
    name, *words = token.split_contents()
    if words.count("by") != 1:
        raise template.TemplateSyntaxError(f"{name}: KIND… by NAME=VALUE… is wanted")
    kinds, rest = words[: words.index("by")], words[words.index("by") + 1 :]
    given = token_kwargs(rest, parser)
    if rest or not 0 < len(given) <= MAX_MARKS:
        raise template.TemplateSyntaxError(f"{name}: 1 to {MAX_MARKS} NAME=VALUE are wanted after 'by'")
    nodelist = parser.parse(("endstamp",))
    parser.delete_first_token()
    return StampNode([parser.compile_filter(kind) for kind in kinds], given, nodelist)
