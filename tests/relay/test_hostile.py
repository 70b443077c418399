"""A relay that is given hostile and truncated streams keeps serving a good client."""

from __future__ import annotations

import asyncio
import statistics
import sys
from pathlib import Path

import pytest

from relay.server import Relay
from tests.relay.conftest import Connect, StartRelay
from tests.relay.hostile import RAW, after_handshake, attack, storm
from tests.relay.peer import Peer, any_certificate
from tests.relay.test_server import CHECKOUT, running


@pytest.mark.parametrize("secure", [False, True])
async def test_every_hostile_stream_leaves_a_good_pair_served(
    start_relay: StartRelay, connect: Connect, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    monkeypatch.setattr("tests.relay.hostile.HELD_SECONDS", 0.1)
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    relay = await start_relay("target", tls=secure)
    tls = any_certificate() if secure else None
    alice, bob = await connect(to=relay, tls=tls), await connect(to=relay, tls=tls)
    kinds = 3 * max(len(RAW), len(after_handshake(alice)))
    attacks = [asyncio.create_task(attack(relay.derp_port, number, tls)) for number in range(2 * kinds)]
    served = 0
    while not all(task.done() for task in attacks):
        await alice.reaches(bob, str(served).encode())
        await bob.reaches(alice)
        served += 1
    await asyncio.gather(*attacks)
    assert served > 0
    await alice.reaches(bob)
    assert not failures


async def test_what_attackers_held_is_given_back(relay: Relay, connect: Connect) -> None:
    alice = await connect()
    assert await storm(relay.derp_port, 0.5, 200) > 10
    await alice.settle()
    async with asyncio.timeout(10):
        while len(relay.switch.connections()) > 1 or relay._greetings:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def latencies(alice: Peer, bob: Peer, count: int) -> list[float]:
    """Seconds from alice to bob through the relay, one at a time."""
    clock = asyncio.get_running_loop().time
    taken = []
    for _ in range(count):
        started = clock()
        await alice.reaches(bob)
        taken.append(clock() - started)
        await asyncio.sleep(0.01)
    return taken


@pytest.mark.long
@pytest.mark.parametrize("secure", [False, True])
async def test_latency_under_attack_is_within_3_times_idle(tmp_path: Path, secure: bool) -> None:
    """The figure itself: medians, and p99 said. Attackers are a process of their own."""
    with running(tmp_path, TRENZA_RELAY_TLS="on" if secure else "off") as (_, port):
        tls = any_certificate() if secure else None
        alice, bob = [await Peer(port, tls=tls).connect() for _ in range(2)]
        idle = await latencies(alice, bob, 300)
        mode = ["tls"] if secure else []
        attackers = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.relay.hostile", str(port), "8", "40", *mode, cwd=CHECKOUT
        )
        try:
            await asyncio.sleep(1)
            attacked = await latencies(alice, bob, 300)
            assert attackers.returncode is None
        finally:
            attackers.kill()
            await attackers.wait()
        for peer in (alice, bob):
            peer.leave()
    medians = [statistics.median(one) * 1e6 for one in (idle, attacked)]
    tails = [statistics.quantiles(one, n=100)[98] * 1e6 for one in (idle, attacked)]
    print(f"\n{'TLS' if secure else 'plain'}: idle p50 {medians[0]:.0f} µs p99 {tails[0]:.0f} µs", end="; ")
    print(f"attacked p50 {medians[1]:.0f} µs p99 {tails[1]:.0f} µs")
    assert medians[1] <= 3 * medians[0]
