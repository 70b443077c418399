"""What holds an interface, and lets go by itself."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import Iterator

import pytest

from client.net.hold import Hold
from client.net.nft import list_nft
from tests.client.net.namespace import in_namespace

pytestmark = pytest.mark.root


@pytest.fixture(autouse=True)
def _alone() -> Iterator[None]:
    with in_namespace():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield


def passes() -> bool:
    """Whether a datagram on loopback arrives."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
    ):
        one.bind(("127.0.0.1", 0))
        one.setblocking(False)
        try:
            other.sendto(b"x", one.getsockname())
            return one.recv(1) == b"x"
        except (PermissionError, BlockingIOError):
            return False


async def test_it_closes_and_opens_one_interface() -> None:
    hold = Hold("lo")
    await hold.open()  # there may be nothing
    assert passes()
    for _ in range(2):
        await hold.close(60)
        assert not passes()
    await Hold("trenza0").close(60)  # the table is one daemon's: the newest holds
    assert passes()
    await hold.close(60)
    await hold.open()
    assert passes()
    assert not [one for one in await list_nft("tables") if "table" in one]


async def test_the_kernel_opens_it_when_nobody_does() -> None:
    await Hold("lo").close(0.2)  # whole seconds: one
    assert not passes()
    async with asyncio.timeout(20):
        while not passes():  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.05)
