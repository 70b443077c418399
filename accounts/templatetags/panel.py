"""Small tags of the panel's templates."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from django import template
from django.core.files.storage import Storage, storages
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _

from accounts import words
from accounts.moments import ago_words, day_words, exact_words
from accounts.roles import Role

register = template.Library()


@lru_cache(maxsize=512)
def _icon(name: str, files: Storage) -> SafeString:
    sprite = files.url("icons.svg")
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"/></svg>', sprite, name)


@register.simple_tag
def icon(name: str) -> SafeString:
    """An icon of ``static/icons.svg``; always beside a word, so it is hidden from readers."""
    return _icon(name, storages["staticfiles"])


@register.simple_tag
def state(shown: Any) -> SafeString:
    """A state word (``key``, ``icon``, ``word``) with its shape, for rows: as ``<c-state>``, but faster."""
    return _state(shown.key, icon(shown.icon), str(shown.word))


@lru_cache(maxsize=512)
def _state(key: str, shape: SafeString, word: str) -> SafeString:
    return format_html('<span class="state state-{}">{}{}</span>', key, shape, word)


@register.simple_tag
def copyable(text: str) -> SafeString:
    """A text with a button that copies it, for rows: as ``<c-copy>``, but faster."""
    return format_html(
        '<span class="copy-line"><span class="mono">{0}</span><button class="copy-btn" type="button"'
        ' data-copy="{0}" aria-label="{1} {0}" title="{1}">{2}</button></span>',
        text,
        _("Copy"),
        icon("copy"),
    )


@register.simple_tag
def options(choices: Iterable[tuple[str, Any]], chosen: str) -> SafeString:
    """The options of a select: ``(value, word)`` each."""
    chosen_or_not = {True: " selected", False: ""}
    made = (
        f'<option value="{escape(value)}"{chosen_or_not[value == chosen]}>{escape(word)}</option>'
        for value, word in choices
    )
    return mark_safe("".join(made))  # noqa: S308 - of escaped texts; format_html would escape the rest as well


# Moments are printed in UTC; ``panel.js`` writes them in the reader's own time zone.


@register.filter
def exact(moment: datetime) -> SafeString:
    """When something happened or will, to the minute."""
    return format_html(
        '<time class="nowrap" datetime="{}" data-moment>{}</time>', moment.isoformat(), exact_words(moment)
    )


@register.filter
def day(moment: datetime) -> SafeString:
    """On which day."""
    return format_html(
        '<time class="nowrap" datetime="{}" data-moment="day">{}</time>',
        moment.isoformat(),
        day_words(moment),
    )


@register.filter
def ago(moment: datetime) -> SafeString:
    """How long it is from now; the exact time on hover."""
    return format_html(
        '<time class="nowrap" datetime="{}" data-moment title="{}">{}</time>',
        moment.isoformat(),
        exact_words(moment),
        ago_words(moment),
    )


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


@register.filter
def property_word(name: str) -> str:
    """What of a thing an event says to have changed."""
    return words.property_word(name)


@register.filter
def role_word(role: object) -> str:
    """What a role is called; anything else as it is."""
    return words.role_word(str(role)) if role in list(Role) else str(role)
