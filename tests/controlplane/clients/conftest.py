"""One server for all tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.controlplane.clients import live


@pytest.fixture(scope="module")
def harbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[live.Harbour]:
    with live.harbour(tmp_path_factory.mktemp("server") / "data") as running:
        yield running
