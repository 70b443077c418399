"""Sleep is noticed by a clock that goes on; a busy loop is no sleep."""

from __future__ import annotations

import asyncio

import pytest

from client import sleep as sleep_module
from client.sleep import SLEPT_SECONDS, SleepWatch


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sleep_module, "LOOK_SECONDS", 0.0)


async def wakes(*looks: float) -> list[float]:
    """How long it has slept, each time that it wakes, when the clock shows these times."""
    woken: list[float] = []
    clock = iter(looks)

    def steady() -> float:
        try:
            return next(clock)
        except StopIteration:
            raise asyncio.CancelledError from None

    with pytest.raises(asyncio.CancelledError):
        await SleepWatch(on_wake=woken.append, steady=steady).run()
    return woken


async def test_a_host_that_slept_is_noticed_once() -> None:
    assert await wakes(0, 1, 601, 602, 603) == [600]


async def test_a_busy_host_has_not_slept() -> None:
    assert await wakes(0, 1, 2 + SLEPT_SECONDS / 2, 4 + SLEPT_SECONDS / 2) == []
