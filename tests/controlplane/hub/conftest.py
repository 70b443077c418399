"""The hub's own world."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.controlplane.hub.world import World


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World()
    yield made
    await made.stop()
