"""Who wakes after long waits for the server's word, and not for ever."""

from __future__ import annotations

import asyncio

import pytest

from client import waking as waking_module
from client.errors import SetupError
from client.waking import LONG_SECONDS, Waking


class Scene:
    """A tunnel of the memory; ``said`` is set when the server has spoken."""

    def __init__(self) -> None:
        self.is_up = self.connected = True
        self.steps: list[str] = []
        self.said = asyncio.Event()
        self.failure: SetupError | None = None
        self.waking = Waking(self, is_connected=lambda: self.connected, heard=self.heard)

    async def hold(self, seconds: float, /) -> None:
        if self.failure is not None:
            raise self.failure
        self.steps.append("held")

    async def release(self) -> None:
        self.steps.append("released")

    async def heard(self) -> None:
        self.steps.append("asked")
        await self.said.wait()

    async def until(self, *steps: str) -> None:
        async with asyncio.timeout(10):
            while self.steps != list(steps):  # noqa: ASYNC110 - steps have no event
                await asyncio.sleep(0.001)


async def test_nothing_passes_until_the_server_has_spoken() -> None:
    scene = Scene()
    scene.waking.wake_up(LONG_SECONDS)
    await scene.until("held", "asked")
    await asyncio.sleep(0.01)
    assert scene.steps == ["held", "asked"]
    scene.said.set()
    await scene.until("held", "asked", "released")


async def test_a_silent_server_is_not_waited_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking_module, "PATIENCE_SECONDS", 0.01)
    scene = Scene()
    scene.waking.wake_up(LONG_SECONDS)
    await scene.until("held", "asked", "released")


@pytest.mark.parametrize("why", ["short", "no server before", "down"])
async def test_nothing_is_held_up_without_reason(why: str) -> None:
    scene = Scene()
    scene.connected, scene.is_up = why != "no server before", why != "down"
    scene.waking.wake_up(LONG_SECONDS - 1 if why == "short" else LONG_SECONDS)
    if why != "short":
        await scene.waking.fall_asleep()
    await asyncio.sleep(0.01)
    assert scene.steps == []


async def test_an_announced_sleep_is_begun_closed_and_ended_by_the_servers_word() -> None:
    scene = Scene()
    await scene.waking.fall_asleep()
    assert scene.steps == ["held"]
    scene.waking.wake_up()
    await scene.until("held", "held", "asked")
    scene.said.set()
    await scene.until("held", "held", "asked", "released")
    scene.waking.wake_up()  # nobody slept since
    await asyncio.sleep(0.01)
    assert len(scene.steps) == 4


async def test_a_sleep_that_was_called_off_ends_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking_module, "CALLED_OFF_SECONDS", 0.01)
    scene = Scene()
    scene.said.set()
    await scene.waking.fall_asleep()
    await scene.until("held", "held", "asked", "released")


async def test_what_was_heard_before_another_sleep_is_worth_nothing() -> None:
    scene = Scene()
    scene.waking.wake_up(LONG_SECONDS)
    await scene.until("held", "asked")
    scene.waking.wake_up(LONG_SECONDS)
    scene.said.set()
    await scene.until("held", "asked", "held", "asked", "released")


async def test_a_host_that_cannot_hold_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.failure = SetupError("nft is missing")
    scene.waking.wake_up(LONG_SECONDS)
    async with asyncio.timeout(10):
        while "nft is missing" not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.001)
    assert scene.steps == []
