"""The supervisor at work: what dies comes back, nobody is refused meanwhile, nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.controlplane.devices import Device, devices
from tests.controlplane.serving import CHECKOUT, Serve, children_of, command_line, patience, serving

BACK_SECONDS = 3.0
PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


async def ask(server: Serve) -> bytes:
    """One request on a connection of its own; a refused or cut connection raises ``OSError``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        writer.write(PROBE)
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def knocking(server: Serve) -> AsyncIterator[list[BaseException]]:
    """Connect all the while; yields what went wrong with *connecting* (a cut answer is no refusal)."""
    refused: list[BaseException] = []

    async def knock() -> None:
        while True:
            try:
                async with asyncio.timeout(20):
                    await ask(server)
            except ConnectionRefusedError as error:
                refused.append(error)
            except ConnectionResetError:
                pass
            await asyncio.sleep(0.02)

    task = asyncio.create_task(knock())
    try:
        yield refused
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> float:
    """How long it took until ``condition`` held."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < seconds
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def test_a_killed_web_worker_is_back_and_nobody_was_refused(server: Serve) -> None:
    (worker,) = server.web_workers()
    async with knocking(server) as refused:
        os.kill(worker, signal.SIGKILL)
        started = time.monotonic()
        await asyncio.sleep(0.05)
        async with asyncio.timeout(20):
            assert (await ask(server)).startswith(b"HTTP/1.1 200 ")
        took = time.monotonic() - started
    assert refused == []
    (fresh,) = server.web_workers()
    assert fresh != worker
    assert took < patience(BACK_SECONDS)


async def test_sighup_replaces_the_workers_and_no_client_is_refused(server: Serve) -> None:
    key = await asyncio.to_thread(server.auth_key, "--reusable", "--preapproved")
    async with devices(server, "stays") as (device,), knocking(server) as refused:
        await device.join(key)
        (before,) = server.web_workers()
        assert server.process is not None
        server.process.send_signal(signal.SIGHUP)
        await wait_for(lambda: before not in server.web_workers() and len(server.web_workers()) == 1, 60)
        assert device.connection is not None
        async with asyncio.timeout(10):
            await device.connection.closed.wait()
        assert device.connection.goodbye, "the stream was ended with a word"
        await device.listen()
        assert (await device.report()).status == 200
        assert refused == []


async def test_two_sighups_leave_one_worker(server: Serve) -> None:
    (before,) = server.web_workers()
    assert server.process is not None
    for _ in range(2):
        server.process.send_signal(signal.SIGHUP)
        await asyncio.sleep(0.1)
    await wait_for(lambda: before not in server.web_workers(), 60)
    await asyncio.sleep(0.5)
    await wait_for(lambda: len(server.web_workers()) == 1, 60)
    assert (await ask(server)).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_everything(tmp_path: Path, number: signal.Signals) -> None:
    server = Serve(tmp_path / "data")
    await asyncio.to_thread(server.prepare)
    await asyncio.to_thread(server.start)
    assert server.process is not None
    ours = [server.process.pid, *children_of(server.process.pid)]
    assert len(ours) >= 2
    server.process.send_signal(number)
    assert await asyncio.to_thread(server.process.wait, 20) == 0
    server.process = None
    assert [pid for pid in ours if is_ours(pid)] == []
    with pytest.raises(ConnectionRefusedError):
        await ask(server)


async def test_a_server_that_cannot_start_says_why_and_ends(tmp_path: Path) -> None:
    server = Serve(tmp_path / "data", REDIS_URL="redis://127.0.0.1:1")
    await asyncio.to_thread(server.prepare)
    with contextlib.closing(sqlite3.connect(server.data / "db.sqlite3")) as database:
        database.execute("DELETE FROM controlplane_serverkey")
        database.execute(
            "INSERT INTO controlplane_serverkey (name, fingerprint, created) VALUES (?, ?, ?)",
            ("noise", "another", "2030-01-01"),
        )
        database.commit()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, str(CHECKOUT / "manage.py"), "serve"],
        env=server.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert "copy noise.key from the first host" in done.stderr
    assert "Traceback" not in done.stderr


async def test_a_stuck_relay_is_killed_at_the_end(tmp_path: Path) -> None:
    server = Serve(tmp_path / "data")
    await asyncio.to_thread(server.prepare)
    await asyncio.to_thread(server.start)
    assert server.process is not None
    (relay,) = [pid for pid in children_of(server.process.pid) if " -m relay" in command_line(pid)]
    os.kill(relay, signal.SIGSTOP)
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    server.process = None
    assert not is_ours(relay)


async def test_an_adopted_relay_that_hangs_is_stopped_too(tmp_path: Path) -> None:
    server = Serve(tmp_path / "data")
    await asyncio.to_thread(server.prepare)
    await asyncio.to_thread(server.start)
    assert server.process is not None
    (relay,) = [pid for pid in children_of(server.process.pid) if " -m relay" in command_line(pid)]
    (worker,) = server.web_workers()
    server.process.kill()
    await asyncio.to_thread(server.process.wait)
    await wait_for(lambda: not is_ours(worker), 30)
    os.kill(relay, signal.SIGSTOP)
    await asyncio.to_thread(server.start)
    await wait_for(lambda: f"the running relay (pid {relay}) does not answer" in server.log(), 60)
    server.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.process.wait, 30) == 0
    server.process = None
    await wait_for(lambda: not is_ours(relay), 20)


def is_ours(pid: int) -> bool:
    """Whether a process of this server still lives (its number may be another's by now)."""
    return "manage.py" in command_line(pid) or " -m relay" in command_line(pid)


async def test_the_worker_ends_with_a_killed_parent(tmp_path: Path) -> None:
    server = Serve(tmp_path / "data")
    await asyncio.to_thread(server.prepare)
    await asyncio.to_thread(server.start)
    assert server.process is not None
    workers = server.web_workers()
    others = [pid for pid in children_of(server.process.pid) if pid not in workers]
    server.process.kill()
    server.process.wait()
    server.process = None
    await wait_for(lambda: not any(is_ours(pid) for pid in workers))
    with pytest.raises(ConnectionRefusedError):
        await ask(server)
    for pid in others:  # the relay lives on by design
        if is_ours(pid):
            os.kill(pid, signal.SIGTERM)


async def test_streams_find_the_next_worker_after_a_crash(server: Serve) -> None:
    key = await asyncio.to_thread(server.auth_key, "--reusable", "--preapproved")
    async with devices(server, "watch", "other") as (watch, other):
        for device in (watch, other):
            await device.join(key)
        await watch.sees(other, online=True)
        (worker,) = server.web_workers()
        os.kill(worker, signal.SIGKILL)
        assert watch.connection is not None
        async with asyncio.timeout(10):
            await watch.connection.closed.wait()
        await asyncio.gather(*(come_back(device) for device in (watch, other)))
        await watch.sees(other, online=True)
        await other.report(endpoints=("203.0.113.77:7",))
        await watch.sees(other, endpoints=("203.0.113.77:7",))


async def come_back(device: Device) -> None:
    """Redial as a client does, until a worker answers."""
    for _ in range(50):
        try:
            await device.close()
            return await device.listen()
        except OSError:
            await asyncio.sleep(0.2)
    raise AssertionError("no worker came back")
