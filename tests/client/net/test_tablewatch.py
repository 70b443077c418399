"""What another program of the host removes of ours is put back."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.net.firewall import Firewall
from client.net.tablewatch import TABLE_GONE, TableWatch, lost_tables
from tests.client.fakes import netmap, node
from tests.client.net.namespace import in_namespace
from tests.client.net.test_firewall import flush, listing

PATIENCE_SECONDS = 20.0


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def message(kind: int, name: bytes) -> bytes:
    attribute = (4 + len(name)).to_bytes(2, "little") + (1).to_bytes(2, "little") + name
    body = bytes(4) + attribute + bytes(-len(attribute) % 4)
    return (16 + len(body)).to_bytes(4, "little") + kind.to_bytes(2, "little") + bytes(10) + body


def test_the_names_of_lost_tables_are_read_and_nothing_else() -> None:
    told = message(TABLE_GONE - 2, b"made\0") + message(TABLE_GONE, b"trenza\0") + message(TABLE_GONE, b"x\0")
    assert list(lost_tables(told)) == ["trenza", "x"]


@given(st.binary(max_size=200), st.integers(0, 60))
def test_what_is_cut_off_or_nonsense_says_nothing(noise: bytes, end: int) -> None:
    list(lost_tables(noise))
    assert list(lost_tables(message(TABLE_GONE, b"trenza\0")[:end])) in ([], ["trenza"])


@pytest.mark.root
class TestInTheKernel:
    async def test_the_filter_is_back_after_every_flush_and_made_once(self) -> None:
        restored: list[str] = []
        back = asyncio.Event()

        async def gone(name: str) -> None:
            if await firewall.restore():
                restored.append(name)
                back.set()

        with in_namespace():
            firewall = Firewall("trenza0")
            await firewall.apply(netmap(node(2)), shields_up=False)
            before = listing()
            watching = asyncio.create_task(TableWatch(gone).run())
            try:
                await asyncio.sleep(0.1)
                for _ in range(3):
                    back.clear()
                    flush()
                    async with asyncio.timeout(PATIENCE_SECONDS):
                        await back.wait()
                    assert listing() == before
                assert restored == ["trenza"] * 3
                await firewall.remove()
                await asyncio.sleep(0.2)
                assert listing() == ""
            finally:
                await ended(watching)

    async def test_what_went_before_it_watched_is_noticed(self) -> None:
        with in_namespace():
            firewall = Firewall("trenza0")
            await firewall.apply(netmap(node(2)), shields_up=False)
            flush()
            looked = asyncio.Event()

            async def gone(name: str) -> None:
                if await firewall.restore():
                    looked.set()

            watching = asyncio.create_task(TableWatch(gone).run())
            async with asyncio.timeout(PATIENCE_SECONDS):
                await looked.wait()
            await ended(watching)
            assert "jump from_tunnel" in listing()
