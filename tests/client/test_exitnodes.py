"""The exit node: suggested, set by the server, and the switch that closes while there is none."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from client.backend import Backend
from client.control.dial import Dialer, Server
from client.errors import ClientError, ControlError, PeerNotFound
from client.exitnodes import SUGGESTED, ExitNodes, region_latencies, suggestion
from client.prefs import Prefs
from client.servertime import ServerTime
from client.store import Store
from tests.client.fakes import FakeHost, key, netmap, node
from wire.keys import MachinePrivate
from wire.netmap import NetMap, Node

WAIT_SECONDS = 10.0
NOW = datetime(2026, 1, 1, tzinfo=UTC)
URL = "https://vpn.example.com"
EXITS = ("0.0.0.0/0", "::/0")


def way_out(number: int, **members: Any) -> Node:
    own = (f"100.64.0.{number}/32", f"fd7a:115c:a1e0::{number:x}/128")
    return node(number, allowed_ips=(*own, *EXITS), **({"online": True} | members))


class TestSuggestion:
    def test_the_one_with_the_nearest_relay_is_suggested(self) -> None:
        shown = netmap(way_out(2, home_derp=1), way_out(3, home_derp=2), way_out(4, home_derp=7), node(5))
        latencies = region_latencies({"1-v4": 0.05, "2-v4": 0.09, "2-v6": 0.01, "nonsense": 0.001})
        assert latencies == {1: 0.05, 2: 0.01}
        found = suggestion(shown, latencies)
        assert found is not None
        assert found.id == 3

    def test_a_recommended_one_comes_before_a_nearer_one(self) -> None:
        shown = netmap(way_out(2, home_derp=1), way_out(3, home_derp=2, cap_map={SUGGESTED: None}))
        found = suggestion(shown, {1: 0.01, 2: 0.5})
        assert found is not None
        assert found.id == 3

    @pytest.mark.parametrize("peer", [node(2), way_out(2, online=False), way_out(2, expired=True)])
    def test_only_one_that_is_there_is_suggested(self, peer: Node) -> None:
        assert suggestion(netmap(peer), {}) is None


class NoNetwork(Dialer):
    async def open(self, server: Server) -> None:  # type: ignore[override]
        raise ControlError("no network")


class Running:
    """A backend on a host of the memory, with the netmap of its last run."""

    def __init__(self, folder: Path, shown: NetMap, **prefs: Any) -> None:
        self.host = FakeHost()
        self.steady = [0.0]
        time = ServerTime(host=lambda: NOW, steady=lambda: self.steady[0])
        time.tell(NOW)
        self.store = Store(folder)
        self.store.open()
        control_key = MachinePrivate.generate(bytes([7]) * 32).public()
        self.store.set_identity(node=key(1), control_url=URL, control_key=control_key)
        self.store.set_prefs(Prefs(control_url=URL, want_running=True).edited(prefs))
        self.store.save_netmap(shown)
        self.backend = Backend(
            store=self.store, make_tunnel=self.host.make_tunnel, dialer=NoNetwork(), time=time
        )
        self.nodes = ExitNodes(self.backend)

    @property
    def prefs(self) -> Prefs:
        return self.store.prefs

    @property
    def switch(self) -> str:
        wish = self.host.exits.wish
        if wish is None or not wish.exit:
            return "off"
        return "open" if wish.open else "closed"

    def allowed(self, number: int) -> set[str]:
        assert self.host.sock is not None
        assert self.host.sock.netmap is not None
        return set(self.host.sock.netmap.peers[number].routed_prefixes)


@contextlib.asynccontextmanager
async def running(folder: Path, shown: NetMap, **prefs: Any) -> AsyncIterator[Running]:
    made = Running(folder, shown, **prefs)
    task = asyncio.create_task(made.backend.run())
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not made.backend.tunnel.is_up:  # noqa: ASYNC110 - the state is computed, not announced
                await asyncio.sleep(0.01)
            await made.backend.settle()
            yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await made.backend.close()
        assert made.host.exits.wish is None
        made.store.close()


async def test_the_switch_is_closed_before_the_interface_is_made_and_opened_after(tmp_path: Path) -> None:
    async with running(tmp_path, netmap(way_out(2)), ExitNodeID="n2") as node1:
        steps = node1.host.journal.steps
        assert steps.index("exit closed") < steps.index("interface") < steps.index("exit open")
        assert set(EXITS) <= node1.allowed(2)
        assert not any("blocked" in text for text in node1.backend.health())


async def test_an_exit_node_that_is_not_there_leaves_it_closed(tmp_path: Path) -> None:
    async with running(tmp_path, netmap(node(2)), ExitNodeID="n9") as node1:
        assert node1.switch == "closed"
        assert any("n9 is not in this tailnet" in text for text in node1.backend.health())


async def test_down_opens_everything_and_an_ended_key_nothing(tmp_path: Path) -> None:
    own = node(1, key_expiry=NOW + timedelta(hours=1))
    async with running(tmp_path, netmap(way_out(2), own=own), ExitNodeID="n2") as node1:
        node1.steady[0] = timedelta(hours=2).total_seconds()
        await node1.backend.settle()
        assert not node1.backend.tunnel.is_up
        assert node1.switch == "closed"
        assert any("traffic to the internet is blocked" in text for text in node1.backend.health())
        node1.backend.set_prefs(node1.prefs.edited({"WantRunning": False}))
        await node1.backend.settle()
        assert node1.switch == "off"


async def test_the_server_sets_and_takes_back_an_exit_node(tmp_path: Path) -> None:
    async with running(tmp_path, netmap(way_out(2), node(3))) as node1:
        await node1.nodes.set_by_admin(b'{"ExitNodeID": "n2"}')
        await node1.backend.settle()
        assert node1.prefs.exit_node_id == "n2"
        assert node1.prefs.exit_node_by_admin
        assert node1.switch == "open"
        assert node1.backend.hostinfo().to_json()["ExitNodeID"] == "n2"
        await node1.nodes.set_by_admin(b'{"ExitNodeID": ""}')
        await node1.backend.settle()
        assert node1.switch == "off"
        assert not node1.prefs.exit_node_by_admin
        assert "ExitNodeID" not in node1.backend.hostinfo().to_json()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"ExitNodeID": "n3"}', "no approved exit node"),
        (b'{"ExitNodeID": "n9"}', "knows no node n9"),
        (b'{"ExitNodeID": "a b"}', "no node's stable ID"),
        (b"{}", "ExitNodeID is missing"),
        (b"[]", "is expected"),
        (b"nonsense", "is expected"),
        (json.dumps({"ExitNodeID": 7}).encode(), "is expected"),
        (json.dumps({"ExitNodeID": "n" * 99}).encode(), "is expected"),
    ],
)
async def test_what_the_server_cannot_set_is_refused_in_words(
    tmp_path: Path, body: bytes, words: str
) -> None:
    async with running(tmp_path, netmap(way_out(2), node(3)), ExitNodeID="n2") as node1:
        with pytest.raises(ClientError, match=words):
            await node1.nodes.set_by_admin(body)
        assert node1.prefs.exit_node_id == "n2"


async def test_routes_that_are_offered_are_told_and_served_once_approved(tmp_path: Path) -> None:
    own = node(1, allowed_ips=("100.64.0.1/32", "10.9.0.0/16"))
    offers = ["10.9.0.0/16", "10.8.0.0/16"]
    async with running(tmp_path, netmap(node(2), own=own), AdvertiseRoutes=offers) as node1:
        assert node1.backend.hostinfo().to_json()["RoutableIPs"] == sorted(offers)
        assert {str(route) for route in node1.host.firewall.gateway.routes} == {"10.9.0.0/16"}
        assert node1.host.forwarded == {4}
        assert any(text.endswith("by an administrator: 10.8.0.0/16") for text in node1.backend.health())


async def test_nobody_there_is_said(tmp_path: Path) -> None:
    async with running(tmp_path, netmap(node(2))) as node1:
        with pytest.raises(PeerNotFound, match="no exit node is there"):
            node1.nodes.suggest()
