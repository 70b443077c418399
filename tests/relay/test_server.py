"""The relay as a process: one per DATA, its status, its end, its errors in one line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane.supervisor.relay import read_relay_status
from relay.__main__ import main
from relay.config import ConfigProblem
from relay.server import Relay
from tests.relay.conftest import Connect, StartRelay, make_config
from tests.relay.peer import PATIENCE, Peer, any_certificate

CHECKOUT = Path(__file__).resolve().parents[2]


async def test_status_is_what_the_supervisor_reads(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("status")
    await connect(to=relay)
    await connect(to=relay)
    status = await read_relay_status(relay.config.data)
    assert status is not None
    assert (status.pid, status.clients) == (os.getpid(), 2)
    assert stat.S_IMODE((relay.config.data / "relay.sock").stat().st_mode) == 0o600


async def test_the_status_socket_answers_nothing_else(relay: Relay) -> None:
    path = str(relay.config.data / "relay.sock")
    for request, expected in ((b"GET /other HTTP/1.1\r\n\r\n", b"HTTP/1.1 404 "), (b"nonsense\r\n\r\n", b"")):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(request)
        assert (await reader.read(-1)).startswith(expected)
        writer.close()


async def test_a_second_relay_on_the_same_data_is_refused(relay: Relay) -> None:
    second = Relay(make_config(relay.config.data))
    with pytest.raises(ConfigProblem, match="another relay runs on"):
        await second.start()
    assert (await read_relay_status(relay.config.data)) is not None


async def test_the_lock_names_its_process(relay: Relay) -> None:
    path = relay.config.data / "relay.lock"
    content = json.loads(path.read_text())
    assert content["pid"] == os.getpid()
    assert content["started"].endswith("+00:00")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_failed_start_leaves_nothing_held(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        from relay.config import Endpoint

        port = taken.getsockname()[1]
        with pytest.raises(ConfigProblem, match="TRENZA_RELAY_LISTEN"):
            await Relay(make_config(tmp_path, listen=Endpoint("127.0.0.1", port))).start()
    relay = Relay(make_config(tmp_path))
    await relay.start()
    await relay.stop()


async def test_the_relay_keeps_its_key(start_relay: StartRelay) -> None:
    first = await start_relay("same", tls=True, hosts=("a.example",))
    key, fingerprint = first.key, first.fingerprint
    await first.stop()
    second = await start_relay("same", tls=True, hosts=("a.example",))
    assert (second.key, second.fingerprint) == (key, fingerprint)


async def test_stopping_sends_what_waits(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("drained")
    port = relay.derp_port
    alice, bob = await connect(to=relay), await connect(to=relay)
    for number in range(100):
        alice.send_to(bob, bytes([number]) * 1000)
    await alice.settle()
    await relay.stop()
    for number in range(100):
        assert await bob.packet() == (alice.public, bytes([number]) * 1000)
    assert await bob.closed()
    with pytest.raises(OSError, match="Connect call failed"):
        await Peer(port).connect()
    assert not (relay.config.data / "relay.sock").exists()


async def test_stopping_does_not_wait_for_the_stalled(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("stuck")
    alice, stalled = await connect(to=relay), await connect(to=relay, read_limit=1024)
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(10_000):
        alice.send_to(stalled, bytes(1200))
    await alice.writer.drain()
    await alice.settle()
    async with asyncio.timeout(PATIENCE):
        await relay.stop()


# --- as a process ----------------------------------------------------------------------------------------


def environment(data: Path, **changes: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("TRENZA_")}
    return {
        **inherited,
        "PYTHONPATH": str(CHECKOUT),
        "TRENZA_RELAY_DATA": str(data),
        "TRENZA_RELAY_LISTEN": "127.0.0.1:0",
        "TRENZA_RELAY_STUN": "127.0.0.1:0",
        "TRENZA_RELAY_ADMISSION": "open",
        **changes,
    }


def run(data: Path, *arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        env=environment(data, **changes),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextlib.contextmanager
def running(data: Path, *arguments: str, **changes: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A relay process and its DERP port."""
    command = [sys.executable, "-m", "relay", *arguments]
    process = subprocess.Popen(command, env=environment(data, **changes), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while (status := _status(data)) is None:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert status["pid"] == process.pid
        yield process, status["derp_port"]
    finally:
        process.kill()
        process.wait()


def _status(data: Path) -> dict[str, int] | None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(str(data / "relay.sock"))
            sock.sendall(b"GET /status HTTP/1.1\r\n\r\n")
            answer = b""
            while data_read := sock.recv(65536):
                answer += data_read
        except OSError:
            return None
    status: dict[str, int] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return status


async def test_a_relay_process_serves_refuses_a_second_and_ends_on_sigterm(tmp_path: Path) -> None:
    with running(tmp_path) as (process, port):
        peers = [await Peer(port, tls=any_certificate()).connect() for _ in range(2)]
        await peers[0].reaches(peers[1])
        second = await asyncio.to_thread(run, tmp_path)
        assert second.returncode == 1
        assert second.stderr.count("\n") == 1
        assert "another relay runs on" in second.stderr
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 10) == 0
        for peer in peers:
            assert await peer.closed()
            peer.leave()
    assert not (tmp_path / "relay.sock").exists()


async def test_after_kill_9_the_next_relay_takes_over(tmp_path: Path) -> None:
    with running(tmp_path) as (process, _):
        process.kill()
        process.wait()
        assert (tmp_path / "relay.sock").exists()
        with running(tmp_path) as (_, port):
            peer = await Peer(port, tls=any_certificate()).connect()
            peer.leave()


async def test_a_config_file(tmp_path: Path) -> None:
    file = tmp_path / "relay.env"
    file.write_text(
        "# a relay\n\nTRENZA_RELAY_LISTEN=127.0.0.1:0\nTRENZA_RELAY_STUN=off\nTRENZA_RELAY_TLS=off\n"
        f"TRENZA_RELAY_ADMISSION=open\nTRENZA_RELAY_DATA='{tmp_path / 'data'}'\n"
    )
    with running(tmp_path / "data", "--config", str(file)) as (_, port):
        peer = await Peer(port).connect()
        peer.leave()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TRENZA_RELAY_ADMISSION": ""}, "set TRENZA_RELAY_CONTROL_URL"),
        ({"TRENZA_RELAY_LISTEN": "nowhere"}, "TRENZA_RELAY_LISTEN='nowhere' is not HOST:PORT"),
        ({"TRENZA_RELAY_LISTEN": "192.0.2.1:1"}, "cannot listen on 192.0.2.1:1"),
        ({"TRENZA_RELAY_STUN": "192.0.2.1:1"}, "cannot listen on UDP 192.0.2.1:1"),
        ({"TRENZA_RELAY_HOSTS": "relay.exämple"}, "TRENZA_RELAY_HOSTS="),
        ({"TRENZA_RELAY_TLS_CERT": "/nowhere", "TRENZA_RELAY_TLS_KEY": "/nowhere"}, "cannot be used"),
        ({"TRENZA_RELAY_DATA": "/proc/nowhere"}, "cannot make /proc/nowhere"),
        ({"TRENZA_RELAY_DATA": "/tmp/" + "x" * 120}, "at most 90 characters"),
    ],
)
def test_errors_are_one_line(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    if changes.get("TRENZA_RELAY_DATA", "").startswith("/tmp/"):
        changes = {"TRENZA_RELAY_DATA": str(tmp_path / ("x" * 120))}
    result = run(tmp_path, **changes)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1, result.stderr


def test_a_damaged_key_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "derp.key").write_text("privkey:damaged\n")
    result = run(tmp_path)
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "is damaged; restore it" in result.stderr
    assert (tmp_path / "derp.key").read_text() == "privkey:damaged\n"


def test_a_missing_config_file_is_one_line(tmp_path: Path) -> None:
    result = run(tmp_path, "--config", str(tmp_path / "none"))
    assert (result.returncode, result.stderr.count("\n")) == (1, 1)
    assert "cannot read" in result.stderr


def test_the_console_script_refuses_a_shared_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/trenza-relay"])
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)
    assert main([]) == 1
    assert capsys.readouterr().err.startswith("trenza-relay needs an environment of its own")
