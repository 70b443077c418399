"""A node whose server is away: what its last netmap still says, and what time has done to it since."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from client.backend import Backend
from client.control.dial import Dialer, Server
from client.errors import ControlError
from client.servertime import ServerTime
from client.state import State
from client.store import Store
from tests.client.fakes import FakeHost, key, netmap, node
from wire.keys import MachinePrivate

WAIT_SECONDS = 10.0
URL = "https://vpn.example.com"
NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


class NoNetwork(Dialer):
    async def open(self, server: Server) -> None:  # type: ignore[override]
        raise ControlError("no network")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path)
    store.open()
    store.set_identity(
        node=key(1), control_url=URL, control_key=MachinePrivate.generate(bytes([7]) * 32).public()
    )
    store.set_prefs(store.prefs.edited({"ControlURL": URL, "WantRunning": True}))
    return store


async def test_keys_run_out_while_the_server_is_away(store: Store) -> None:
    store.save_netmap(netmap(node(2, key_expiry=NOW + HOUR), node(3), own=node(1, key_expiry=NOW + 3 * HOUR)))
    steady, host = [0.0], FakeHost()
    time = ServerTime(host=lambda: NOW, steady=lambda: steady[0])
    time.tell(NOW)
    backend = Backend(store=store, make_tunnel=host.make_tunnel, dialer=NoNetwork(), time=time)
    running = asyncio.create_task(backend.run())

    def expired() -> set[int]:
        assert host.sock is not None
        assert host.sock.netmap is not None
        return {peer.id for peer in host.sock.netmap.peers.values() if peer.expired}

    async with asyncio.timeout(WAIT_SECONDS):
        while backend.state is not State.RUNNING:  # noqa: ASYNC110 - the state is computed, not announced
            await asyncio.sleep(0.01)
        assert expired() == set()
        steady[0] = 2 * HOUR.total_seconds()
        await backend.settle()
        assert expired() == {2}
        assert backend.state is State.RUNNING
        steady[0] = 4 * HOUR.total_seconds()
        await backend.settle()
        assert backend.state is State.NEEDS_LOGIN
        assert not backend.tunnel.is_up
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await backend.close()
    store.close()


async def test_the_policy_has_the_port_chosen_anew_and_gives_the_old_one_back(store: Store) -> None:
    store.save_netmap(netmap(node(2)))
    host = FakeHost()
    backend = Backend(store=store, make_tunnel=host.make_tunnel, dialer=NoNetwork())
    running = asyncio.create_task(backend.run())

    async def port_with(**capabilities: None) -> int:
        shown = netmap(node(2), own=node(1, cap_map=capabilities))
        backend.follower._netmaps.newest = shown
        await backend.settle()
        assert backend.tunnel.is_up
        return backend.tunnel.listen_port

    async with asyncio.timeout(WAIT_SECONDS):
        while backend.state is not State.RUNNING:  # noqa: ASYNC110 - the state is computed, not announced
            await asyncio.sleep(0.01)
        await backend.settle()
        kept = backend.tunnel.listen_port
        assert store.identity.listen_port == kept
        changed = await port_with(**{"randomize-client-port": None})
        assert changed != kept
        assert await port_with(**{"randomize-client-port": None, "other": None}) == changed
        assert store.identity.listen_port == kept
        assert await port_with() == kept
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await backend.close()
    store.close()
