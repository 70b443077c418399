"""One control connection's driver with a client's session beside it, and a carrier that can go silent."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field

import pytest

from controlplane.control import driver as driver_module
from controlplane.control.driver import ControlDriver
from wire.control import CAPABILITY_VERSION
from wire.keys import MachinePrivate
from wire.noise import INITIATION_BYTES, RESPONSE_BYTES
from wire.session import ClientSession, ServerSession

PATIENCE = 10.0


@dataclass
class Wire:
    """Both ends of a connection; ``cut`` swallows all that either side sends."""

    client: ClientSession
    driver: ControlDriver | None = None
    name: str = "wire"
    cut: bool = False
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    shaken: bool = False

    def write(self, data: bytes) -> None:
        if self.cut:
            return
        if not self.shaken:
            self.shaken = True
            self.client.receive_handshake(data[:RESPONSE_BYTES])
            data = data[RESPONSE_BYTES:]
        if data:
            self.client.receive_data(data)
        asyncio.get_running_loop().call_soon(self.answer)

    def answer(self) -> None:
        assert self.driver is not None
        if not self.cut and (data := self.client.data_to_send()):
            self.driver.feed(data)

    def buffered(self) -> int:
        return 0

    def close(self) -> None:
        self.gone.set()

    abort = close


@pytest.fixture
async def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr(driver_module, "CHECK_SECONDS", 0.05)
    monkeypatch.setattr(driver_module, "SILENT_SECONDS", 0.5)
    keys = [MachinePrivate.generate(os.urandom(32)) for _ in range(2)]
    session = ServerSession(keys[0], ephemeral=os.urandom(32), challenge=None, max_body=1 << 20)
    client = ClientSession(keys[1], keys[0].public(), CAPABILITY_VERSION, os.urandom(32))
    session.receive_handshake(client.initiation()[:INITIATION_BYTES])
    made = Wire(client)
    made.driver = ControlDriver(session, made, "192.0.2.1")
    made.driver.start()
    return made


async def test_a_client_that_says_nothing_but_answers_pings_is_kept(wire: Wire) -> None:
    await asyncio.sleep(1.5)
    assert not wire.gone.is_set()
    assert wire.driver is not None
    wire.driver.lost()


async def test_a_client_that_went_without_a_word_is_given_up(wire: Wire) -> None:
    wire.cut = True
    async with asyncio.timeout(PATIENCE):
        await wire.gone.wait()
