"""Small tags of the panel's templates."""

from __future__ import annotations

from functools import lru_cache

from django import template
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@lru_cache(maxsize=256)
def _icon(name: str, sprite: str) -> SafeString:
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>', sprite, name)


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon of ``static/icons.svg``; always beside a word, so it is hidden from readers."""
    return _icon(name, static("icons.svg"))


@register.filter
def bytes_short(value: object) -> str:
    """A number of bytes as people read it: ``1.4 GB`` (decimal units)."""
    try:
        amount = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        amount = 0.0
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" or amount >= 100 else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} PB"


@register.filter
def fingerprint(key: str) -> str:
    """The start of a key in groups of four, short enough to compare by eye: ``1f3a 9c02 77ab 04de``."""
    text = key.partition(":")[2] or key
    return " ".join(text[start : start + 4] for start in range(0, 16, 4))
