"""The network monitor: a burst of changes is one call, and the tunnel's own changes are none."""

from __future__ import annotations

import asyncio
import subprocess

import pytest

from client.net.exitroutes import TABLE
from client.net.monitor import Monitor
from tests.client.net.namespace import in_namespace

pytestmark = pytest.mark.root


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


async def test_changes_of_the_host_are_heard_once_and_the_tunnels_not() -> None:
    heard: asyncio.Queue[None] = asyncio.Queue()
    with in_namespace():
        watching = asyncio.create_task(Monitor(ignore="tz0", on_change=lambda: heard.put_nowait(None)).run())
        await asyncio.sleep(0.2)
        ip("link", "add", "tz0", "type", "bridge")
        ip("addr", "add", "100.64.0.1/32", "dev", "tz0")
        ip("route", "add", "unreachable", "default", "table", str(TABLE))
        ip("-6", "route", "add", "throw", "fe80::/10", "table", str(TABLE))
        await asyncio.sleep(1.0)
        assert heard.empty()
        ip("link", "add", "eth7", "type", "bridge")
        ip("addr", "add", "10.0.0.1/24", "dev", "eth7")
        async with asyncio.timeout(10):
            await heard.get()
        await asyncio.sleep(1.0)
        assert heard.empty()
        ip("link", "del", "tz0")  # but that it is gone is news
        async with asyncio.timeout(10):
            await heard.get()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
