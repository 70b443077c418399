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


async def test_what_paths_do_not_care_about_is_no_news() -> None:
    heard: asyncio.Queue[None] = asyncio.Queue()
    with in_namespace():
        ip("link", "add", "eth7", "type", "veth", "peer", "name", "far7")
        ip("addr", "add", "10.0.0.1/24", "dev", "eth7")
        ip("link", "set", "eth7", "up")
        ip("link", "set", "far7", "up")
        ip(
            "-6",
            "addr",
            "add",
            "2001:db8::7/64",
            "dev",
            "eth7",
            "nodad",
            "valid_lft",
            "900",
            "preferred_lft",
            "800",
        )
        await asyncio.sleep(0.5)
        watching = asyncio.create_task(Monitor(ignore="tz0", on_change=lambda: heard.put_nowait(None)).run())
        await asyncio.sleep(0.5)
        ip(
            "-6",
            "addr",
            "change",
            "2001:db8::7/64",
            "dev",
            "eth7",
            "valid_lft",
            "1900",
            "preferred_lft",
            "1800",
        )
        ip("link", "add", "c1", "type", "veth", "peer", "name", "c2")  # a container comes …
        ip("link", "set", "c1", "up")
        await asyncio.sleep(1.0)
        ip("link", "del", "c1")  # … and goes
        await asyncio.sleep(1.5)
        assert heard.empty()
        for change in (
            ("link", "set", "far7", "down"),  # the cable is out
            ("link", "set", "far7", "up"),
            ("route", "add", "default", "via", "10.0.0.9"),
            ("addr", "del", "10.0.0.1/24", "dev", "eth7"),
        ):
            ip(*change)
            async with asyncio.timeout(10):
                await heard.get()
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
