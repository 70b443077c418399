"""A tailnet's own relay, added on the page and run as a process: it is up, and its tailnet's alone."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import html
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.controlplane.devices import Device, devices
from tests.controlplane.serving import CHECKOUT, Person, Serve, free_port, serving
from tests.relay.peer import Peer, Refused, any_certificate
from wire.netmap import NetMap

PATIENCE_SECONDS = 60.0
MADRID = 910
STOP_SECONDS = 20.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        running.command("createtailnet", "elsewhere", "--owner", "eva@example.com", "--json")
        yield running


@pytest.fixture(scope="module")
def owner(server: Serve) -> Person:
    return Person(server)


def shown(page: str, name: str) -> str:
    """What a page has in the command with this id."""
    found = re.search(rf'<pre id="{name}"[^>]*>(.*?)</pre>', page, re.S)
    assert found is not None, page
    return html.unescape(found[1])


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


@contextlib.contextmanager
def running_relay(folder: Path, settings: str) -> Iterator[Path]:
    """``trenza-relay`` with the settings that the page has shown; gives its log."""
    folder.mkdir()
    config, log = folder / "relay.env", folder / "relay.log"
    config.write_text(f"{settings}TRENZA_RELAY_DATA={folder / 'data'}\n")
    with log.open("wb") as out:
        command = [sys.executable, "-m", "relay", "--config", str(config)]
        process = subprocess.Popen(command, cwd=CHECKOUT, stderr=out)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(STOP_SECONDS)


def add_relay(owner: Person, name: str, port: int) -> tuple[str, int]:
    """Add one on the page; its settings and its id."""
    stun = free_port(socket.SOCK_DGRAM)
    fields = {"name": name, "host": "127.0.0.1", "derp_port": str(port), "stun_port": str(stun)}
    status, page = owner.post("/relays/add", "/relays/add", **fields)
    assert status == 200, page
    _, relays = owner.get("/relays")
    ids = [int(found) for found in re.findall(r'id="open-relay-(\d+)"', relays)]
    return shown(page, "relay-settings"), ids[-1]


def row_of(owner: Person, name: str) -> str:
    rows = re.findall(r'<tr id="relay-.*?</tr>', owner.get("/relays")[1], re.S)
    return next((row for row in rows if name in row), "")


def has_madrid(netmap: NetMap) -> bool:
    return MADRID in netmap.derp_map.regions


async def test_a_relay_added_on_the_page_serves_its_tailnet_and_no_other(
    server: Serve, owner: Person, tmp_path: Path
) -> None:
    approved = server.auth_key("--reusable", "--preapproved")
    theirs = server.command("createauthkey", "elsewhere", "--preapproved", "--json")["key"]
    port = free_port()
    async with devices(server, "mine", "foreign") as (mine, foreign):
        await mine.join(approved)
        await foreign.join(theirs)
        settings, relay_id = await asyncio.to_thread(add_relay, owner, "Madrid", port)
        assert "Not connected yet" in row_of(owner, "Madrid")
        assert not has_madrid(await mine.until(lambda netmap: True))
        with running_relay(tmp_path / "relay", settings):
            await asyncio.to_thread(wait_for, lambda: "Up</span>" in row_of(owner, "Madrid"))
            await mine.until(has_madrid)
            await _serves(port, mine, foreign)
            assert not has_madrid(await foreign.until(lambda netmap: True))
            path = f"/relays/{relay_id}"
            await asyncio.to_thread(owner.post, f"{path}/enabled", f"{path}/enabled", on="0")
            await mine.until(lambda netmap: not has_madrid(netmap))
            assert "Switched off" in row_of(owner, "Madrid")


async def _serves(port: int, mine: Device, foreign: Device) -> None:
    """The relay has the certificate that the netmap pins, and admits the tailnet's devices alone."""
    assert mine.netmap is not None
    (node,) = mine.netmap.derp_map.regions[MADRID].nodes
    assert (node.host_name, node.effective_derp_port) == ("127.0.0.1", port)
    peer = await Peer(port, key=mine.node, tls=any_certificate()).connect()
    certificate = peer.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    assert hashlib.sha256(certificate).hexdigest() == node.pinned_sha256
    await peer.settle()
    peer.leave()
    stranger = Peer(port, key=foreign.node, tls=any_certificate())
    with pytest.raises(Refused):
        await stranger.connect()
    stranger.leave()


def test_a_removed_relay_is_known_no_more(server: Serve, owner: Person, tmp_path: Path) -> None:
    settings, relay_id = add_relay(owner, "Lisboa", free_port())
    with running_relay(tmp_path / "relay", settings) as log:
        wait_for(lambda: "Up</span>" in row_of(owner, "Lisboa"))
        path = f"/relays/{relay_id}/remove"
        owner.post(path, path)
        assert row_of(owner, "Lisboa") == ""
        wait_for(lambda: "does not know this relay's token" in log.read_text())
