"""What tests on nodes share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from asgiref.sync import SyncToAsync
from django.db import connections


@pytest.fixture(scope="session", autouse=True)
def _close_other_threads_connections(django_db_setup: None) -> Iterator[None]:
    """The thread that async tests reach the database through keeps its connection: PostgreSQL's would keep
    the test database from being dropped."""
    for settings in connections.settings.values():
        settings["CONN_MAX_AGE"] = 0  # pool threads end with their test's loop, and so must their connections
    yield
    SyncToAsync.single_thread_executor.submit(connections.close_all).result()
