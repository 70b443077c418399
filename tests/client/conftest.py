"""Fixtures of the client's tests: one real server for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.server import Server, running_server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """``manage.py serve`` in a process of its own."""
    with running_server(tmp_path_factory.mktemp("server") / "data") as running:
        yield running
