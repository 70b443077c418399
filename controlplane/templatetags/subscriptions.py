"""What a webhook tells of, in words."""

from __future__ import annotations

from collections.abc import Iterable

from django import template

from controlplane.notices.occasions import subscription_words

register = template.Library()


@register.filter
def in_words(subscriptions: Iterable[str]) -> str:
    """The events of a webhook as a list to read."""
    return ", ".join(subscription_words(subscriptions))
