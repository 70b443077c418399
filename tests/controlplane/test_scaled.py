"""Two web workers on PostgreSQL and Redis: the same promises, whichever worker holds a stream."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.controlplane.devices import Device, devices
from tests.controlplane.serving import Person, Serve, free_port, patience, serving
from tests.needs import need, program
from tests.nodes import postgres

WORKERS = 2
CROWD = 12
WITHIN_SECONDS = 2.0
LEASE_SECONDS = 45.0

pytestmark = pytest.mark.needs("postgres", "redis")


@contextlib.contextmanager
def running_redis(folder: Path) -> Iterator[tuple[str, int]]:
    """A Redis that keeps nothing; its URL and process."""
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(
        [str(program("redis-server")), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0", process.pid
    finally:
        process.terminate()
        process.wait(10)


@dataclass
class World:
    server: Serve
    redis_pid: int
    approved: str
    waiting: str
    owner: Person


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    need("postgres", "redis")
    folder = tmp_path_factory.mktemp("scaled")
    with postgres.server(folder) as database, running_redis(folder) as (redis, redis_pid):
        url = postgres.new_database(database, "scaled")
        settings = {"DATABASE_URL": url, "REDIS_URL": redis}
        with serving(folder / "data", workers=WORKERS, **settings) as server:
            yield World(
                server=server,
                redis_pid=redis_pid,
                approved=server.auth_key("--reusable", "--preapproved"),
                waiting=server.auth_key("--reusable"),
                owner=Person(server),
            )


def names(count: int) -> list[str]:
    return [f"box-{secrets.token_hex(4)}" for _ in range(count)]


async def spread(world: World, crowd: list[Device]) -> None:
    """Join all; each worker holds a stream at least."""
    for device in crowd:
        await device.join(world.approved)
    for pid, streams in held(world).items():
        if not streams:
            await move_to(pid, world, crowd[0])
    assert min(held(world).values()) > 0


def held(world: World) -> dict[int, int]:
    """How many connections each worker holds."""
    workers = world.server.web_workers()
    assert len(workers) == WORKERS
    return {pid: connections_of(pid, world.server.port) for pid in workers}


async def move_to(worker: int, world: World, device: Device) -> None:
    """The kernel chooses who accepts: leave it no choice."""
    others = [pid for pid in world.server.web_workers() if pid != worker]
    for pid in others:
        os.kill(pid, signal.SIGSTOP)
    try:
        await device.close()
        await device.listen()
    finally:
        for pid in others:
            os.kill(pid, signal.SIGCONT)


def connections_of(pid: int, port: int) -> int:
    """How many connections to ``port`` a process holds."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            if (target := os.readlink(link)).startswith("socket:["):
                inodes.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(
        int(row[1].rpartition(":")[2], 16) == port and row[3] == "01" and row[9] in inodes for row in rows
    )


async def test_everyone_sees_everyone_and_each_change(world: World) -> None:
    async with devices(world.server, *names(CROWD)) as crowd:
        await spread(world, crowd)
        for one in crowd:
            for other in crowd:
                if one is not other:
                    await one.sees(other, online=True)
        for number, device in enumerate(crowd):
            await device.report(endpoints=(f"203.0.113.1:{number + 1}",))
        for one in crowd:
            for number, other in enumerate(crowd):
                if one is not other:
                    await one.sees(other, endpoints=(f"203.0.113.1:{number + 1}",))


async def test_a_burst_of_registrations_reaches_every_worker(world: World) -> None:
    async with devices(world.server, *names(6)) as watch, devices(world.server, *names(CROWD)) as crowd:
        await spread(world, watch)
        await asyncio.gather(*(device.join(world.approved) for device in crowd))
        for one in (*watch, *crowd):
            for other in crowd:
                if one is not other:
                    peer = await one.sees(other, online=True)
                    assert peer.disco_key == other.disco.public()


async def test_approvals_are_pushed_across_workers(world: World) -> None:
    async with devices(world.server, *names(6)) as watch, devices(world.server, *names(2)) as (first, second):
        await spread(world, watch)
        for device in (first, second):
            await device.join(world.waiting)
        assert first.netmap is not None
        path = f"/devices/{first.netmap.node.id}"
        await asyncio.to_thread(world.owner.post, f"{path}/approve", path)
        for one in watch:
            await one.sees(first, patience(WITHIN_SECONDS), online=True)
        await asyncio.to_thread(world.server.command, "approvenode", "default", second.hostname)
        for one in watch:
            await one.sees(second, patience(WITHIN_SECONDS), online=True)
        await second.until(lambda netmap: len(netmap.peers) > len(watch))


async def test_a_login_that_waits_in_one_worker_is_confirmed_in_any(world: World) -> None:
    async with devices(world.server, *names(4)) as crowd:
        told = [await device.register() for device in crowd]
        waiting = [
            asyncio.create_task(device.register(followup=one.auth_url))
            for device, one in zip(crowd, told, strict=True)
        ]
        for one in told:
            await asyncio.to_thread(world.owner.post, one.auth_url, one.auth_url, answer="confirm")
        async with asyncio.timeout(20):
            responses = await asyncio.gather(*waiting)
        for response in responses:
            assert (response.error, response.auth_url) == ("", "")


async def test_a_newer_stream_ends_the_older_wherever_it_is(world: World) -> None:
    async with devices(world.server, *names(1)) as (watch,), devices(world.server, *names(1)) as (box,):
        await watch.join(world.approved)
        await box.join(world.approved)
        await watch.sees(box, online=True)
        told = len(watch.messages)
        twins = []
        for _ in range(6):
            twin = Device(world.server, box.hostname)
            twin.machine, twin.node, twin.disco = box.machine, box.node, box.disco
            await twin.listen()
            twins.append(twin)
            await asyncio.sleep(0.1)
        *older, newest = [box, *twins]
        for one in older:
            assert one.poll is not None
            poll = one.poll
            await poll.until(lambda poll=poll: poll.ended)
        assert newest.poll is not None
        assert not newest.poll.ended
        peer = watch.peer(box)
        offline = [
            patch
            for message in watch.messages[told:]
            for patch in message.peers_changed_patch
            if patch.online is False and patch.node_id == peer.id
        ]
        assert offline == []
        for twin in twins:
            await twin.close()


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_a_dead_workers_devices_go_offline_when_their_leases_end(world: World) -> None:
    async with devices(world.server, *names(CROWD)) as crowd:
        await spread(world, crowd)
        dead = world.server.web_workers()[0]
        os.kill(dead, signal.SIGKILL)
        await asyncio.sleep(1)
        gone = [one for one in crowd if one.connection is None or one.connection.closed.is_set()]
        stay = [one for one in crowd if one not in gone]
        assert gone
        assert stay
        for one in stay:
            for other in gone:
                await one.sees(other, patience(LEASE_SECONDS), online=False)


@pytest.mark.long
@pytest.mark.timeout(300)
async def test_changes_arrive_without_redis(world: World) -> None:
    """Redis stops for a while: the once-a-second look at versions carries durable changes."""
    async with devices(world.server, *names(6)) as watch, devices(world.server, *names(1)) as (waits,):
        await spread(world, watch)
        await waits.join(world.waiting)
        os.kill(world.redis_pid, signal.SIGSTOP)
        try:
            await asyncio.to_thread(world.server.command, "approvenode", "default", waits.hostname)
            for one in watch:
                await one.sees(waits, patience(10))
        finally:
            os.kill(world.redis_pid, signal.SIGCONT)
