"""Files between devices, Trenza's and official ones, through real tunnels: whole, resumed, IPv4 and IPv6."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import subprocess
from pathlib import Path

import pytest

from tests.lab.conftest import World
from tests.lab.net import LabError
from tests.lab.node import Node
from tests.lab.official import OfficialNode
from tests.lab.processes import wait_for
from tests.lab.test_paths import introduce
from tests.lab.trenza import TRENZA, TrenzaNode

pytestmark = pytest.mark.root
official = pytest.mark.needs("tailscaled", "tailscale")

BIG = 20_000_000
HALF = BIG // 2
TIMEOUT_SECONDS = 20.0
NO_TCP = """
table ip own {{
  chain out {{
    type filter hook output priority 0
    ip daddr {address} meta l4proto tcp reject with tcp reset
  }}
}}
"""


@pytest.fixture(scope="module")
def content() -> bytes:
    """What no two blocks of are alike."""
    return random.Random(7).randbytes(BIG)


@pytest.fixture
def big(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "big file é.bin"
    path.write_bytes(content)
    return path


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_target(sender: Node, receiver: Node) -> None:
    """Wait until the sender knows where the receiver takes files."""
    wait_for(
        f"{sender.name} can send files to {receiver.name}",
        lambda: receiver.name in sender.cli("file", "cp", "--targets").stdout,
    )


def fetch(node: Node, folder: Path) -> dict[str, str]:
    """Move what came into ``folder``; the files' hashes by name."""
    folder.mkdir(exist_ok=True)
    node.cli("file", "get", "--wait", str(folder))
    return {path.name: digest(path.read_bytes()) for path in folder.iterdir()}


def send_half(sender: Node, receiver: Node, name: str, half: bytes, arrived: Path) -> None:
    """Begin to send, and break off when at least half of it has ``arrived`` (the partial file)."""
    process = sender.spawn(
        "file", "cp", f"--name={name}", "-", f"{receiver.name}:",
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdin is not None
    try:
        process.stdin.write(half)
        process.stdin.flush()
        wait_for("half of the file is there", lambda: arrived.exists() and arrived.stat().st_size > HALF // 2)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()


def trenza_partial(node: TrenzaNode, sender: Node, name: str) -> Path:
    return node.state_folder / "files" / f"{name}.{node.peer(sender.name)['ID']}.partial"


def put(source: Node, address: str, port: int, name: str, data: bytes) -> int:
    """A file by hand, from a node's own address; the status."""
    with source.namespace.entered():
        connection = http.client.HTTPConnection(address, port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request("PUT", f"/v0/put/{name}", data)
            return connection.getresponse().status
        except OSError as error:
            raise LabError(f"{address}: {error}") from error
        finally:
            connection.close()


def peerapi(node: TrenzaNode, version: int) -> int:
    """The port of its own PeerAPI, as the server gave it back."""
    own = json.loads(node.cli("debug", "netmap").stdout)["Node"]
    for service in own["Hostinfo"].get("Services", []):
        if service["Proto"] == f"peerapi{version}":
            return int(service["Port"])
    raise LabError(f"{node.name} has no PeerAPI")


def test_between_trenza_nodes(world: World, big: Path, content: bytes, tmp_path: Path) -> None:
    """A large file, broken off and resumed; IPv6; a stranger's page is refused."""
    nora, otto = world.trenza("nora", world.easy1), world.trenza("otto", world.easy2)
    for node in (nora, otto):
        world.join(node)
    introduce(nora, otto)
    is_target(nora, otto)
    partial = trenza_partial(otto, nora, big.name)
    send_half(nora, otto, big.name, content[:HALF], partial)
    assert not fetch_now(otto, tmp_path / "early")
    nora.cli("file", "cp", str(big), "otto:")
    assert "going on with a file at byte" in nora.daemon.tail()
    assert fetch(otto, tmp_path / "got") == {big.name: digest(content)}
    assert not partial.exists()
    six = otto.address(6)
    assert put(nora, six, peerapi(otto, 6), "six", b"over IPv6") == 200
    assert (otto.state_folder / "files" / "six").read_bytes() == b"over IPv6"


def fetch_now(node: Node, folder: Path) -> list[str]:
    folder.mkdir()
    node.cli("file", "get", str(folder))
    return [path.name for path in folder.iterdir()]


@official
def test_from_official_to_trenza(world: World, big: Path, content: bytes, tmp_path: Path) -> None:
    paul, rosa = world.official("paul", world.easy1), world.trenza("rosa", world.easy2)
    for node in (paul, rosa):
        world.join(node)
    paul.sees("rosa")
    rosa.sees("paul")
    is_target(paul, rosa)
    assert "hit peerapi of" in paul.cli("ping", "--peerapi", "-c", "1", "rosa").stdout
    send_half(paul, rosa, big.name, content[:HALF], trenza_partial(rosa, paul, big.name))
    paul.cli("file", "cp", str(big), "rosa:")
    assert "resuming put at offset" in paul.daemon.log.read_text(errors="replace")
    assert fetch(rosa, tmp_path / "got") == {big.name: digest(content)}
    paul.cli("file", "cp", str(big), "rosa:")
    paul.cli("file", "cp", f"--name={big.name}", __file__, "rosa:")
    assert sorted(path.name for path in (rosa.state_folder / "files").iterdir()) == sorted(
        [big.name, "big file é (1).bin"]
    )
    assert put(paul, rosa.address(6), peerapi(rosa, 6), "six", b"over IPv6") == 200


@official
def test_from_trenza_to_official(world: World, big: Path, content: bytes, tmp_path: Path) -> None:
    sven, tina = world.trenza("sven", world.easy1), world.official("tina", world.easy2)
    for node in (sven, tina):
        world.join(node)
    sven.sees("tina")
    tina.sees("sven")
    is_target(sven, tina)
    partial = official_inbox(tina) / f"{big.name}.{tina.peer('sven')['ID']}.partial"
    send_half(sven, tina, big.name, content[:HALF], partial)
    sven.cli("file", "cp", str(big), "tina:")
    assert "going on with a file at byte" in sven.daemon.tail()
    assert fetch(tina, tmp_path / "got") == {big.name: digest(content)}
    # Where IPv4 does not get through the tunnel, IPv6 does.
    sven.namespace.rules(NO_TCP.format(address=tina.address(4)))
    sven.cli("file", "cp", "--name=six", __file__, "tina:")
    assert fetch(tina, tmp_path / "six") == {"six": digest(Path(__file__).read_bytes())}


def official_inbox(node: OfficialNode) -> Path:
    state = node.namespace.folder / "tailscale" / "files"
    (folder,) = wait_for("the inbox's folder", lambda: list(state.iterdir()) if state.exists() else [])
    return folder


@pytest.mark.needs("wireguard-go")
def test_without_root(world: World, big: Path, content: bytes, tmp_path: Path) -> None:
    """Where nobody runs the daemon, files come and go as well, and the daemon reaches ports of peers."""
    ulla, vito = world.rootless("ulla", world.easy1), world.trenza("vito", world.easy2)
    for node in (ulla, vito):
        world.join(node)
    introduce(ulla, vito)
    for sender, receiver in ((ulla, vito), (vito, ulla)):
        is_target(sender, receiver)
        sender.cli("file", "cp", str(big), f"{receiver.name}:")
        assert fetch(receiver, tmp_path / receiver.name) == {big.name: digest(content)}
    port = str(peerapi(vito, 4))
    command = [*TRENZA, f"--socket={ulla.socket}", "nc", "vito", port]
    said = ulla.namespace.run(*command, private=ulla.private, stdin="GET / HTTP/1.0\r\nHost: peer\r\n\r\n")
    assert "Hello, ulla" in said.stdout
