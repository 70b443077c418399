"""Every test says by markers what it needs (:mod:`tests.needs`); pages are tested in Spanish, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.needs import names_of, need


@pytest.fixture(scope="session", autouse=True)
def _translations() -> None:
    """A fresh checkout has no compiled catalogues, which ``manage.py prepare`` makes."""
    from django.conf import settings

    from controlplane.management.commands.prepare import compile_messages

    for root in settings.LOCALE_PATHS:
        compile_messages(Path(root))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    need(*names_of(item))
