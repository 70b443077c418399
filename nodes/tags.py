"""What a tag looks like: ``tag:``, a letter, then letters, digits and hyphens. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

TAG = re.compile(r"tag:[A-Za-z][A-Za-z0-9-]{0,62}")
MAX_TAGS = 50


def invalid_tags(tags: Iterable[str]) -> list[str]:
    """Those of ``tags`` that are not well formed."""
    return [tag for tag in tags if TAG.fullmatch(tag) is None]


def normalise_tags(tags: Iterable[str]) -> list[str]:
    """Each tag once, sorted."""
    return sorted(set(tags))
