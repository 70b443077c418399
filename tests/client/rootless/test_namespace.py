"""A namespace of our own: its sockets, the programs in it, and its end."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from client.errors import EngineError
from client.rootless.namespace import Namespace

pytestmark = pytest.mark.root


@pytest.fixture
async def namespace() -> AsyncIterator[Namespace]:
    made = Namespace()
    yield made
    await made.close()


async def test_its_network_is_another(namespace: Namespace) -> None:
    with await namespace.open_socket(socket.AF_INET, socket.SOCK_STREAM) as inside:
        inside.bind(("127.0.0.1", 0))
        inside.listen()
        with socket.socket() as outside, pytest.raises(ConnectionRefusedError):
            outside.connect(inside.getsockname())
        with await namespace.open_socket(socket.AF_INET, socket.SOCK_STREAM) as beside:
            await asyncio.get_running_loop().sock_connect(beside, inside.getsockname())
    async with namespace.netlink() as netlink:
        names = [link.get_attr("IFLA_IFNAME") async for link in await netlink.get_links()]
    assert "lo" in names
    assert not {"eth0", "ens3"} & set(names)


async def test_programs_run_in_it_with_what_they_are_given(namespace: Namespace) -> None:
    script = 'read word; test "$word" = hello && touch /var/run/heard || { echo "no: $word" >&2; exit 3; }'
    assert await namespace.run("sh", "-c", script, stdin=b"hello\n") == (0, "")
    assert namespace.path("heard").exists()
    assert await namespace.run("sh", "-c", script, stdin=b"else\n") == (3, "no: else")
    with pytest.raises(EngineError, match="cannot run /nonexistent"):
        await namespace.run("/nonexistent")


async def test_sockets_do_not_wait_for_programs(namespace: Namespace) -> None:
    slow = asyncio.create_task(namespace.run("sh", "-c", "while ! test -e /var/run/go; do sleep 0.05; done"))
    await asyncio.sleep(0)
    (await namespace.open_socket(socket.AF_INET6, socket.SOCK_DGRAM)).close()
    assert not slow.done()
    namespace.path("go").touch()
    assert await slow == (0, "")


async def test_other_families_are_refused(namespace: Namespace) -> None:
    with pytest.raises(OSError, match="not supported"):
        await namespace.open_socket(socket.AF_PACKET, socket.SOCK_RAW)


async def test_it_ends_with_the_program_that_it_keeps_and_can_be_made_anew(namespace: Namespace) -> None:
    ended = asyncio.Event()
    namespace.on_end = ended.set
    handle = await namespace.keep("sh", "-c", "while ! test -e /var/run/go; do sleep 0.05; done")
    os.close(handle)
    assert not ended.is_set()
    namespace.path("go").touch()
    async with asyncio.timeout(20):
        await ended.wait()
    assert not namespace.is_open
    assert await namespace.run("true") == (0, "")


async def test_closing_ends_everything_in_it(namespace: Namespace) -> None:
    handle = await namespace.keep("sh", "-c", "echo $$ > /dev/null; exec sleep 1000")
    os.close(handle)
    waits = asyncio.create_task(namespace.run("sleep", "1000"))
    await asyncio.sleep(0.1)
    run = os.stat(namespace.path("."))
    await namespace.close()
    with pytest.raises(EngineError):
        await waits
    assert run.st_uid == os.geteuid()
    await namespace.close()
