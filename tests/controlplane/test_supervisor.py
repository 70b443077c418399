"""The small parent: ports, tokens, and no Django inside."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controlplane.env import UNUSABLE, EnvironmentProblem, HostPort, parse_environment
from controlplane.supervisor import backoff, workers
from controlplane.supervisor.backoff import BACKOFF_FIRST, BACKOFF_MAX, STEADY_SECONDS, Backoff
from controlplane.supervisor.parent import Supervisor
from controlplane.supervisor.relay import running_relay
from controlplane.supervisor.relaysetup import (
    control_url_for_relay,
    relay_addresses,
    relay_environment,
    relay_token,
)
from controlplane.supervisor.sockets import bind_web_socket
from controlplane.supervisor.workers import Slot
from relay.files import Lock

PATIENCE_SECONDS = 20.0


def test_the_parent_loads_no_django() -> None:
    code = "import controlplane.supervisor, sys; sys.exit('django' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_taken_port_is_said_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(EnvironmentProblem, match="TRENZA_LISTEN"):
            bind_web_socket(HostPort("127.0.0.1", port))


def test_relay_ports_are_kept(tmp_path: Path) -> None:
    env = parse_environment({"TRENZA_DATA": str(tmp_path)})
    first = relay_addresses(env)
    assert relay_addresses(env) == first
    assert first[0].host == "127.0.0.1"


def test_relay_ports_as_set_win(tmp_path: Path) -> None:
    env = parse_environment({"TRENZA_DATA": str(tmp_path), "TRENZA_RELAY_LISTEN": "127.0.0.1:4443"})
    assert relay_addresses(env)[0] == HostPort("127.0.0.1", 4443)


def test_relay_token_is_private_and_kept(tmp_path: Path) -> None:
    env = parse_environment({"TRENZA_DATA": str(tmp_path)})
    assert relay_token(env) == relay_token(env)
    assert stat.S_IMODE((tmp_path / "relay.token").stat().st_mode) == 0o600


def test_the_relay_finds_the_server_by_loopback() -> None:
    env = parse_environment({"TRENZA_LISTEN": "0.0.0.0:8080", "TRENZA_URL": "http://10.77.0.1:8080"})
    assert control_url_for_relay(env) == "http://127.0.0.1:8080"
    secure = dataclasses.replace(env, url="https://v.example", tls_cert=Path("c"), tls_key=Path("k"))
    assert control_url_for_relay(secure) == "https://v.example"


def test_the_relay_is_given_no_password_of_the_servers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "TRENZA_SECRET_KEY"):
        monkeypatch.setenv(name, "canary")
    env = parse_environment({"TRENZA_DATA": str(tmp_path)})
    assert "canary" not in relay_environment(env).values()


def test_short_lives_wait_longer_and_longer_and_a_long_one_starts_anew() -> None:
    waits = Backoff()
    assert [waits.after(0.0) for _ in range(3)] == [2 * BACKOFF_FIRST, 4 * BACKOFF_FIRST, 8 * BACKOFF_FIRST]
    assert max(waits.after(STEADY_SECONDS) for _ in range(20)) == BACKOFF_MAX
    assert waits.after(STEADY_SECONDS + 1) == BACKOFF_FIRST


# --- the relay that runs ---------------------------------------------------------------------------------


async def test_a_relay_that_does_not_answer_is_found_by_its_lock(tmp_path: Path) -> None:
    assert await running_relay(tmp_path) is None
    lock = Lock(tmp_path)
    assert await running_relay(tmp_path) == os.getpid()
    lock.release()
    assert await running_relay(tmp_path) is None


# --- slots -----------------------------------------------------------------------------------------------

# A worker that accepts, or (once the file "broken" is there) one that dies at once, with the status in it.
WORKER = """
import os, pathlib, signal, sys
given = dict(option.removeprefix("--").split("=") for option in sys.argv[2:])
with open(pathlib.Path(__file__).with_name("started"), "a") as log:
    log.write(f"{os.getpid()}\\n")
if (broken := pathlib.Path(__file__).with_name("broken")).exists():
    sys.exit(int(broken.read_text() or 1))
os.write(int(given["ready"]), b"1")
signal.pause()
"""


@pytest.fixture
async def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    (tmp_path / "manage.py").write_text(WORKER)
    monkeypatch.setattr(workers, "CHECKOUT", tmp_path)
    env = parse_environment({"TRENZA_DATA": str(tmp_path), "TRENZA_LISTEN": "127.0.0.1:0"})
    made = Supervisor(env, workers=1)
    yield made
    await made.stop()
    made.sock.close()


async def ready(slot: Slot) -> Slot:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await slot.ready.wait()
    return slot


async def only_slot(supervisor: Supervisor, wanted: Slot) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while supervisor.workers.slots != [wanted]:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def test_after_a_failed_replacement_no_new_slot_is_left(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = await ready(await supervisor.workers.add())
    (tmp_path / "broken").touch()
    monkeypatch.setattr(workers, "READY_SECONDS", 0.5)
    monkeypatch.setattr(backoff, "BACKOFF_FIRST", 30.0)
    monkeypatch.setattr(backoff, "BACKOFF_MAX", 60.0)
    await supervisor.workers.replace()  # the new one sleeps before its next start by now
    await only_slot(supervisor, old)
    assert old.process is not None
    assert old.process.returncode is None


async def test_a_replacement_retires_an_old_slot_that_waits_for_its_next_start(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").touch()
    monkeypatch.setattr(backoff, "BACKOFF_FIRST", 30.0)
    monkeypatch.setattr(backoff, "BACKOFF_MAX", 60.0)
    old = await supervisor.workers.add()
    await old.ended()
    (tmp_path / "broken").unlink()
    await supervisor.workers.replace()
    (fresh,) = [slot for slot in supervisor.workers.slots if slot is not old]
    await only_slot(supervisor, fresh)


async def test_a_worker_that_died_in_its_start_is_started_again(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    (tmp_path / "broken").touch()
    slot = await supervisor.workers.add()
    await slot.ended()
    (tmp_path / "broken").unlink()
    await ready(slot)
    assert len(set((tmp_path / "started").read_text().split())) >= 2


async def test_a_worker_that_cannot_run_at_all_ends_the_server(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    (tmp_path / "broken").write_text(str(UNUSABLE))
    await supervisor.workers.add()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await supervisor.stopping.wait()
    assert supervisor.status == 1
    assert len((tmp_path / "started").read_text().split()) == 1
