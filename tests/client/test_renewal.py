"""A key is renewed when it is near its end and the server says that this helps; else it is left be."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from client import renewal
from client.errors import ControlError
from client.renewal import CAPABILITY, Renewal, is_due
from tests.client.fakes import netmap, node
from wire.netmap import NetMap

NOW = datetime(2030, 6, 1, tzinfo=UTC)


def own(left: timedelta | None, terms: Any = None) -> NetMap:
    cap_map = {CAPABILITY: terms} if terms is not None else {}
    expiry = NOW + left if left is not None else None
    return netmap(own=node(1, key_expiry=expiry, cap_map=cap_map))


DAY = [{"WithinSeconds": 86400}]


@pytest.mark.parametrize(
    ("left", "terms", "due"),
    [
        (timedelta(hours=23), DAY, True),
        (timedelta(hours=25), DAY, False),
        (timedelta(hours=1), None, False),  # a server that has no such thing
        (None, DAY, False),  # it never ends
        (timedelta(hours=1), [], False),
        (timedelta(hours=1), ["soon"], False),
        (timedelta(hours=1), [{"WithinSeconds": True}], False),
        (timedelta(hours=1), [{"WithinSeconds": 1e300}], True),
    ],
)
def test_when_a_key_is_renewed(left: timedelta | None, terms: Any, due: bool) -> None:
    assert is_due(own(left, terms), NOW) is due


@pytest.mark.parametrize("fails", [False, True])
async def test_it_rotates_once_and_then_waits(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    monkeypatch.setattr(renewal, "LOOK_SECONDS", 0.0)
    rotations = asyncio.Queue[None]()

    async def rotate() -> None:
        rotations.put_nowait(None)
        if fails:
            raise ControlError("not now")

    due = own(timedelta(hours=1), DAY)
    work = asyncio.create_task(Renewal(netmap=lambda: due, now=lambda: NOW, rotate=rotate).run())
    async with asyncio.timeout(10):
        await rotations.get()
    await asyncio.sleep(0.1)
    assert rotations.empty()
    assert not work.done()
    work.cancel()
