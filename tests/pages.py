"""Visiting the panel's pages in tests: signed in as somebody, with a tailnet open, by htmx or without."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache
from django.test import Client, override_settings

from accounts.middleware import SESSION_KEY
from accounts.models import Membership, Tailnet, User
from accounts.tenancy import memberships_of

PLAIN_STATIC = {"staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"}}


@pytest.fixture(autouse=True)
def plain_static_files(tmp_path: Path) -> Iterator[None]:
    """Pages name static files as they are: no collected manifest is needed. Limits start at zero."""
    cache.clear()
    with override_settings(STORAGES=settings.STORAGES | PLAIN_STATIC, STATIC_ROOT=tmp_path):
        yield
    cache.clear()


class Visitor(Client):
    """A browser of one person with one tailnet open; forms bear its id, as the pages' forms do."""

    def __init__(self, user: User | None = None, tailnet: Tailnet | None = None, **options: Any) -> None:
        super().__init__(**options)
        if user is not None:
            self.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
            self.tailnet_id = (tailnet.pk if tailnet else memberships_of(user.pk)[0].tailnet_id) or 0
            session = self.session
            session[SESSION_KEY] = self.tailnet_id
            session.save()

    @classmethod
    def of(cls, membership: Membership) -> Visitor:
        return cls(membership.user, membership.tailnet)

    def submit(self, path: str, *, page: str = "", **values: Any) -> Any:
        """POST a form as the page without scripts does, or as htmx does from ``page``."""
        headers = {"HX-Request": "true", "HX-Current-URL": f"http://testserver{page}"} if page else {}
        return self.post(path, {"tailnet": self.tailnet_id} | values, headers=headers)

    def fragment(self, path: str, *, target: str = "", page: str = "/devices") -> Any:
        """GET as htmx does."""
        headers = {"HX-Request": "true", "HX-Current-URL": f"http://testserver{page}"}
        return self.get(path, headers=headers | ({"HX-Target": target} if target else {}))
