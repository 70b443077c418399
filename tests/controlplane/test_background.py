"""Tasks in the background: one that fails goes on, and all of them end together."""

from __future__ import annotations

import asyncio
import logging

import pytest

from controlplane import background
from controlplane.background import Tasks


async def test_a_round_that_failed_is_logged_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "RETRY_SECONDS", 0.0)
    rounds, done = [0], asyncio.Event()

    async def step() -> None:
        rounds[0] += 1
        if rounds[0] < 3:
            raise OSError("away")
        done.set()
        await asyncio.Event().wait()

    tasks = Tasks()
    with caplog.at_level(logging.ERROR, "trenza.tasks"):
        tasks.repeat(step)
        async with asyncio.timeout(10):
            await done.wait()
    await tasks.stop()
    assert [record.getMessage() for record in caplog.records] == 2 * ["step failed; trying again"]
    assert rounds == [3]


async def test_nothing_outlives_a_stop() -> None:
    tasks, ended = Tasks(), []

    async def wait(number: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(number)

    spawned = [tasks.spawn(wait(number)) for number in range(3)]
    await asyncio.sleep(0)
    await tasks.stop()
    assert sorted(ended) == [0, 1, 2]
    assert all(task.cancelled() for task in spawned)
