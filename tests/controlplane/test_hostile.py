"""A server under strangers that open, dribble and never finish keeps serving a good client."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import statistics
import time
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from controlplane.bounded_http import HEAD_SECONDS, MAX_BODIES_BYTES
from controlplane.control.driver import MAX_REQUESTS
from controlplane.control.register import MAX_WAITING_PER_LOGIN
from tests.controlplane.devices import CAPABILITY, Device, devices, read_head, server_key, upgrade_head
from tests.controlplane.serving import Serve, patience, serving
from wire.codec import encode_json
from wire.keys import MachinePrivate, MachinePublic
from wire.session import ClientSession

FEW, MANY = 60, 2000
HALF_A_BODY = 200_000
ROUNDS = 40
LATENCY_FACTOR = 3.0
MEMORY_GROWTH_BYTES = 300 * 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def auth_key(server: Serve) -> str:
    return server.auth_key("--reusable", "--preapproved")


@pytest.fixture(scope="module")
def key(server: Serve) -> MachinePublic:
    return server_key(server)


def initiation(key: MachinePublic) -> bytes:
    machine = MachinePrivate.generate(secrets.token_bytes(32))
    return ClientSession(machine, key, CAPABILITY, secrets.token_bytes(32)).initiation()


Stranger = Callable[[asyncio.StreamWriter, MachinePublic], Awaitable[None]]


async def says_nothing(writer: asyncio.StreamWriter, key: MachinePublic) -> None:
    """A connection and not a byte on it."""


async def half_a_head(writer: asyncio.StreamWriter, key: MachinePublic) -> None:
    writer.write(upgrade_head(initiation(key))[:-30])


async def handshake_and_silence(writer: asyncio.StreamWriter, key: MachinePublic) -> None:
    """The Noise handshake is half open: the server has answered, the client never speaks."""
    writer.write(upgrade_head(initiation(key)))


async def half_a_record(writer: asyncio.StreamWriter, key: MachinePublic) -> None:
    writer.write(upgrade_head(initiation(key)))
    await asyncio.sleep(0.05)
    writer.write(b"\x04\x0f\xfd" + bytes(500))


async def websocket_and_silence(writer: asyncio.StreamWriter, key: MachinePublic) -> None:
    text = urllib.parse.quote(base64.b64encode(initiation(key)).decode(), safe="")
    writer.write(
        f"GET /ts2021?X-Tailscale-Handshake={text} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
        "Sec-WebSocket-Version: 13\r\n\r\n".encode()
    )


async def body_without_end(writer: asyncio.StreamWriter, key: MachinePublic) -> None:
    writer.write(b"POST /sign-in HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + bytes(HALF_A_BODY))


STRANGERS = [
    says_nothing,
    half_a_head,
    handshake_and_silence,
    half_a_record,
    websocket_and_silence,
    body_without_end,
]


@contextlib.asynccontextmanager
async def crowd(
    server: Serve, key: MachinePublic, kind: Stranger, count: int
) -> AsyncIterator[list[asyncio.StreamReader]]:
    """``count`` strangers of a kind, all connected at once."""
    readers, writers = [], []
    try:
        for number in range(count):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            readers.append(reader)
            writers.append(writer)
            await kind(writer, key)
            if number % 20 == 0:
                await asyncio.sleep(0)
        yield readers
    finally:
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0)


async def is_served(one: Device, two: Device, number: int) -> float:
    """How long a report of one took to reach the other."""
    endpoint = f"203.0.113.{number % 250 + 1}:{number + 1}"
    started = time.perf_counter()
    assert (await one.report(endpoints=(endpoint,))).status == 200
    await two.sees(one, endpoints=(endpoint,))
    return time.perf_counter() - started


@pytest.mark.parametrize("kind", STRANGERS)
async def test_a_crowd_of_strangers_leaves_a_good_client_served(
    server: Serve, key: MachinePublic, auth_key: str, kind: Stranger
) -> None:
    async with devices(server, f"one-{kind.__name__}", f"two-{kind.__name__}") as (one, two):
        await one.join(auth_key)
        async with crowd(server, key, kind, FEW):
            await two.join(auth_key)  # also a newcomer gets in
            for number in range(5):
                await is_served(one, two, number)


async def shown_the_door(server: Serve, key: MachinePublic, kind: Stranger) -> None:
    """Wait until a few strangers' connections have ended."""
    async with crowd(server, key, kind, 5) as readers:
        for reader in readers:
            with contextlib.suppress(OSError):
                while await reader.read(65536):
                    pass


async def test_strangers_are_shown_the_door_in_time(server: Serve, key: MachinePublic) -> None:
    kinds = (says_nothing, half_a_head, handshake_and_silence, half_a_record, websocket_and_silence)
    async with asyncio.timeout(
        patience(2 * HEAD_SECONDS + 5)
    ):  # a WebSocket may also take long to say goodbye
        await asyncio.gather(*(shown_the_door(server, key, kind) for kind in kinds))


async def test_of_bodies_that_are_too_much_together_the_oldest_is_refused(
    server: Serve, key: MachinePublic
) -> None:
    count = MAX_BODIES_BYTES // HALF_A_BODY + 10
    async with asyncio.timeout(patience(30)), crowd(server, key, body_without_end, count) as readers:
        assert (await readers[0].read()).startswith(b"HTTP/1.1 503 ")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await readers[-1].read(1)


async def test_more_requests_at_once_than_allowed_are_told_to_wait(server: Serve, auth_key: str) -> None:
    async with devices(server, "greedy") as (greedy,):
        connection = await greedy.connected()
        logins = [await greedy.register() for _ in range(-(-MAX_REQUESTS // MAX_WAITING_PER_LOGIN))]
        bodies = [
            encode_json(greedy.register_request(followup=login.auth_url).to_json())
            for login in logins * MAX_WAITING_PER_LOGIN
        ]
        waiting = [
            await connection.request("POST", "/machine/register", body) for body in bodies[:MAX_REQUESTS]
        ]
        refused = await connection.ask("/machine/register", {})
        assert refused.status == 429
        assert all(answer.status == 0 for answer in waiting)


async def test_an_oversized_request_body_is_413_and_the_connection_lives(server: Serve) -> None:
    async with devices(server, "big") as (big,):
        answer = await big.ask("/machine/register", b'{"x":"' + bytes(2 * 1024 * 1024) + b'"}')
        assert answer.status == 413
        assert (await big.ask("/nothing", {})).status == 404


async def test_rapid_resets_cost_the_connection_and_nobody_else(server: Serve, auth_key: str) -> None:
    async with devices(server, "rude", "calm") as (rude, calm):
        await calm.join(auth_key)
        connection = await rude.connected()
        for _ in range(400):
            stream_id = connection.session.request("POST", "/machine/register", b"{}")
            connection.session.reset(stream_id)
        with contextlib.suppress(OSError):
            await connection.flush()
        async with asyncio.timeout(20):
            await connection.closed.wait()
        assert (await calm.report()).status == 200


async def test_a_peer_that_takes_nothing_loses_its_connection_and_nobody_waits(
    server: Serve, key: MachinePublic, auth_key: str
) -> None:
    """A client that never reads: what the server holds for it is bounded, and others are served."""
    async with devices(server, "reads", "talks") as (reads, talks):
        await reads.join(auth_key)
        await talks.join(auth_key)
        session = ClientSession(talks.machine, key, CAPABILITY, secrets.token_bytes(32))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)
        writer.write(upgrade_head(session.initiation()))
        await read_head(reader)
        session.receive_handshake(await reader.readexactly(51))
        pings = b"".join(number.to_bytes(8, "big") for number in range(2000))
        with contextlib.suppress(OSError):
            async with asyncio.timeout(5):
                while True:
                    for at in range(0, len(pings), 8):
                        session.ping(pings[at : at + 8])
                    writer.write(session.data_to_send())
                    await writer.drain()
                    await is_served(talks, reads, secrets.randbelow(60_000))
        writer.transport.abort()
        await is_served(talks, reads, 1)


# --- in full ---------------------------------------------------------------------------------------------


def memory_of(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no such process")


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", STRANGERS)
async def test_two_thousand_strangers_cost_a_good_client_little(
    server: Serve, key: MachinePublic, auth_key: str, kind: Stranger
) -> None:
    later = range(ROUNDS, 2 * ROUNDS)
    names = (f"long-one-{kind.__name__}", f"long-two-{kind.__name__}")
    (worker,) = server.web_workers()
    async with devices(server, *names) as (one, two):
        await one.join(auth_key)
        await two.join(auth_key)
        await is_served(one, two, 0)
        idle = statistics.median([await is_served(one, two, number) for number in range(1, ROUNDS)])
        memory = memory_of(worker)
        async with crowd(server, key, kind, MANY):
            busy = statistics.median([await is_served(one, two, number) for number in later])
            grown = memory_of(worker) - memory
    print(f"{kind.__name__}: idle {idle * 1000:.1f} ms, with {MANY} strangers {busy * 1000:.1f} ms")
    assert busy <= LATENCY_FACTOR * idle
    assert grown < MEMORY_GROWTH_BYTES
