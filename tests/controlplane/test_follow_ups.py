"""Follow-ups of logins: bounded, and answered also while the channel layer is away."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisGone

from accounts.errors import LimitExceeded
from controlplane.control import register, waiting
from controlplane.control.register import MAX_WAITING_PER_LOGIN, RegisterResponse
from nodes.services.enrolment import Machine
from nodes.services.registration import RegistrationRequest

REQUEST = RegistrationRequest(machine=Machine(machine_key="m", node_key="n"), followup="f")


class Away:
    """A channel layer whose Redis refuses or hangs."""

    def __init__(self, hangs: bool) -> None:
        self.hangs = hangs

    async def new_channel(self) -> str:
        if self.hangs:
            await asyncio.Event().wait()
        raise RedisGone("refused")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the database says, one look after another; then the login still waits."""
    queue: list[Any] = []

    async def respond(request: RegistrationRequest) -> Any:
        await asyncio.sleep(0)
        return queue.pop(0) if queue else 1

    monkeypatch.setattr(register, "_respond", respond)
    for name in ("POLL_SECONDS", "LAYERLESS_SECONDS"):
        monkeypatch.setattr(waiting, name, 0.01)
    return queue


@pytest.mark.parametrize("hangs", [False, True])
async def test_a_login_is_answered_without_a_channel_layer(
    monkeypatch: pytest.MonkeyPatch, answers: list[Any], hangs: bool
) -> None:
    monkeypatch.setattr(waiting, "get_channel_layer", lambda: Away(hangs))
    done = RegisterResponse(login_name="ana")
    answers += [1, 1, done]
    async with asyncio.timeout(20):
        assert await register._wait(REQUEST, 1) is done
    assert not register._waiting


async def test_one_login_cannot_fill_every_place(answers: list[Any]) -> None:
    waiting = [asyncio.create_task(register._wait(REQUEST, 1)) for _ in range(MAX_WAITING_PER_LOGIN)]
    await asyncio.sleep(0)
    with pytest.raises(LimitExceeded):
        await register._wait(REQUEST, 1)
    other = asyncio.create_task(register._wait(REQUEST, 2))
    await asyncio.sleep(0.02)
    assert not other.done()
    for task in [*waiting, other]:
        task.cancel()
    await asyncio.gather(*waiting, other, return_exceptions=True)
    assert not register._waiting
