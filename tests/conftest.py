"""Every test says by markers what it needs (:mod:`tests.needs`); pages are tested in Spanish, too."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.examples import use_profile
from tests.needs import names_of, need

use_profile()


@pytest.fixture(scope="session", autouse=True)
def _translations() -> None:
    """A fresh checkout has no compiled catalogues, which ``manage.py prepare`` makes."""
    from django.conf import settings

    from controlplane.management.commands.prepare import compile_messages

    for root in settings.LOCALE_PATHS:
        compile_messages(Path(root))


@pytest.fixture(scope="session")
def django_db_modify_db_settings(tmp_path_factory: pytest.TempPathFactory) -> None:
    """SQLite on a file, as a server has it: threads that share one in memory are refused a table that another
    reads, at once, where a file lets the writer go on."""
    from django.db import connection

    if connection.vendor == "sqlite":
        connection.settings_dict["TEST"]["NAME"] = str(tmp_path_factory.mktemp("database") / "test.sqlite3")


@pytest.fixture(scope="session", autouse=True)
def _no_permissions() -> None:
    """Django's own permissions and content types, which nothing here uses, are not made anew after every test
    that commits: that takes longer than most of these tests."""
    from django.contrib.contenttypes.management import create_contenttypes
    from django.db.models.signals import post_migrate

    assert post_migrate.disconnect(dispatch_uid="django.contrib.auth.management.create_permissions")
    assert post_migrate.disconnect(create_contenttypes)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    need(*names_of(item))
