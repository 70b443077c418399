"""How a person likes their pages. Nobody else sees it, so it is no event of the audit log."""

from __future__ import annotations

from django.conf import settings

from accounts.errors import Invalid
from accounts.models import User


def set_preferences(*, user: User, language: str | None = None, theme: str | None = None) -> User:
    """Keep a language (a code of ``settings.LANGUAGES``) and a theme (of :class:`User.Theme`)."""
    changed = []
    if language is not None:
        if language not in dict(settings.LANGUAGES):
            raise Invalid(f"there is no language {language!r}")
        user.language = language
        changed.append("language")
    if theme is not None:
        if theme not in User.Theme.values:
            raise Invalid(f"there is no theme {theme!r}")
        user.theme = theme
        changed.append("theme")
    if changed:
        user.save(update_fields=changed)
    return user
