"""The relay pool against real relays: identities, batches, bounds, and every way a connection can end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from client.magicsock.derp import DerpPool, Timing, backoff
from client.magicsock.dial import (
    RelayError,
    Resolver,
    after_upgrade,
    connect,
    dial,
    literal_addresses,
    node_order,
    upgrade_request,
)
from client.magicsock.link import QUEUE_BYTES, Allowance, FrameQueue
from client.magicsock.tls import check_pin
from tests.client.magicsock.relays import (
    REGION,
    RelayProcess,
    derper,
    free_port,
    map_of,
    trenza_relay,
)
from tests.needs import need, official
from wire.derpmap import DERPMap, DERPNode, DERPRegion
from wire.keys import NodePrivate, NodePublic

WAIT_SECONDS = 20.0
QUICK = Timing(
    tick=0.05, ping=0.2, dead=0.6, dead_after_change=0.3, idle=0.5, first_retry=0.1, last_retry=0.3
)
NODE = DERPNode(name="1a", region_id=1, host_name="relay.example")


class Client:
    """A node's pool, and everything it reported."""

    def __init__(self, *, timing: Timing | None = None) -> None:
        self.key = NodePrivate.generate(os.urandom(32))
        self.packets: list[tuple[NodePublic, bytes]] = []
        self.gone: list[tuple[NodePublic, int]] = []
        self.changes: list[bool] = []
        self._news = asyncio.Event()
        self.pool = DerpPool(
            node_key=self.key,
            mark=0,
            on_packets=self._on_packets,
            on_gone=self._on_gone,
            on_change=self._on_change,
            timing=timing,
        )

    def _on_packets(self, region: int, sender: NodePublic, packets: list[bytes]) -> None:
        assert region == REGION
        self.packets += [(sender, packet) for packet in packets]
        self._news.set()

    def _on_gone(self, region: int, peer: NodePublic, reason: int) -> None:
        assert region == REGION
        self.gone.append((peer, reason))
        self._news.set()

    def _on_change(self, region: int, connected: bool) -> None:
        assert region == REGION
        self.changes.append(connected)
        self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def up(self, derp_map: DERPMap) -> Client:
        self.pool.set_map(derp_map)
        self.pool.set_home(REGION)
        await self.until(lambda: self.pool.answers(REGION))
        return self


Spawn = Callable[..., Client]


@pytest.fixture
async def client() -> AsyncIterator[Spawn]:
    made: list[Client] = []

    def make(**options: Timing) -> Client:
        made.append(Client(**options))
        return made[-1]

    yield make
    for one in made:
        await one.pool.close()


@pytest.fixture(params=["trenza", "derper"])
async def relay(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[RelayProcess]:
    if request.param == "trenza":
        async with trenza_relay(tmp_path) as running:
            yield running
        return
    need("derper")
    async with derper(tmp_path, official("derper") or "") as running:
        yield running


@pytest.fixture
async def own_relay(tmp_path: Path) -> AsyncIterator[RelayProcess]:
    async with trenza_relay(tmp_path) as running:
        yield running


# --- talking ---------------------------------------------------------------------------------------------


async def test_packets_arrive_in_order_with_their_sender(relay: RelayProcess, client: Spawn) -> None:
    alice, bob = await client().up(relay.map), await client().up(relay.map)
    sent = [bytes([n]) * (n + 1) for n in range(30)]
    assert alice.pool.send(REGION, bob.key.public(), sent)
    await bob.until(lambda: len(bob.packets) == len(sent))
    assert bob.packets == [(alice.key.public(), packet) for packet in sent]


async def test_a_connection_is_made_on_demand_and_what_was_sent_before_it_arrives(
    relay: RelayProcess, client: Spawn
) -> None:
    bob, alice = await client().up(relay.map), client()
    alice.pool.set_map(relay.map)
    assert not alice.pool.answers(REGION)
    assert alice.pool.send(REGION, bob.key.public(), [b"first"])
    await bob.until(lambda: bob.packets == [(alice.key.public(), b"first")])


async def test_the_relay_says_who_is_gone(relay: RelayProcess, client: Spawn) -> None:
    alice, bob = await client().up(relay.map), await client().up(relay.map)
    alice.pool.send(REGION, bob.key.public(), [b"x"])
    await bob.until(lambda: bool(bob.packets))
    bob.pool.send(REGION, alice.key.public(), [b"y"])
    await alice.until(lambda: bool(alice.packets))
    await bob.pool.close()
    await alice.until(lambda: (bob.key.public(), 0) in alice.gone)


async def test_a_new_key_is_a_new_identity_at_once(relay: RelayProcess, client: Spawn) -> None:
    alice, bob = await client().up(relay.map), await client().up(relay.map)
    new = NodePrivate.generate(os.urandom(32))
    bob.pool.set_node_key(new)
    await bob.until(lambda: bob.changes == [True, False, True])
    alice.pool.send(REGION, new.public(), [b"to the new one"])
    await bob.until(lambda: bool(bob.packets))
    bob.pool.send(REGION, alice.key.public(), [b"from the new one"])
    await alice.until(lambda: alice.packets == [(new.public(), b"from the new one")])


async def test_no_region_no_delivery(client: Spawn) -> None:
    assert not client().pool.send(77, NodePrivate.generate(os.urandom(32)).public(), [b"x"])


async def test_a_bulk_transfer_is_bounded_and_drops_the_oldest(
    own_relay: RelayProcess, client: Spawn
) -> None:
    alice, bob = await client().up(own_relay.map), await client().up(own_relay.map)
    packets = [n.to_bytes(4, "big") + bytes(1300) for n in range(400)]
    assert not alice.pool.send(REGION, bob.key.public(), packets)  # half a megabyte at once
    await bob.until(lambda: bool(bob.packets) and bob.packets[-1][1] == packets[-1])
    numbers = [int.from_bytes(packet[:4], "big") for _, packet in bob.packets]
    assert numbers == sorted(numbers)
    assert sum(len(packet) for _, packet in bob.packets) <= QUEUE_BYTES


# --- ends and beginnings ---------------------------------------------------------------------------------


async def test_the_home_relay_is_dialled_again_after_its_restart(tmp_path: Path, client: Spawn) -> None:
    port, alice = free_port(), client(timing=QUICK)
    async with trenza_relay(tmp_path, port=port) as first:
        await alice.up(first.map)
        await first.kill()
        await alice.until(lambda: alice.changes == [True, False])
    async with trenza_relay(tmp_path, port=port) as second:
        assert second.certificate == first.certificate
        await alice.until(lambda: alice.changes == [True, False, True])


async def test_a_frozen_relay_is_noticed_though_its_tcp_lives(own_relay: RelayProcess, client: Spawn) -> None:
    alice = await client(timing=QUICK).up(own_relay.map)
    own_relay.signal(signal.SIGSTOP)
    await alice.until(lambda: alice.changes == [True, False])
    own_relay.signal(signal.SIGCONT)
    await alice.until(lambda: alice.changes == [True, False, True])


async def test_a_silent_relay_is_doubted_long_before_it_is_given_up(
    own_relay: RelayProcess, client: Spawn
) -> None:
    alice = await client(timing=replace(QUICK, doubt=0.3, dead=3600.0)).up(own_relay.map)
    own_relay.signal(signal.SIGSTOP)
    await alice.until(lambda: alice.changes == [True, False])
    assert not alice.pool.answers(REGION)
    own_relay.signal(signal.SIGCONT)
    await alice.until(lambda: alice.changes == [True, False, True])
    assert alice.pool.answers(REGION)


async def test_after_a_network_change_a_dead_link_is_found_without_waiting_for_the_ping(
    own_relay: RelayProcess, client: Spawn
) -> None:
    slow = replace(QUICK, ping=3600.0, dead=3600.0)
    alice = await client(timing=slow).up(own_relay.map)
    alice.pool.link_changed()
    await asyncio.sleep(4 * slow.dead_after_change)
    assert alice.changes == [True]  # alive: it answered
    own_relay.signal(signal.SIGSTOP)
    alice.pool.link_changed()
    await alice.until(lambda: alice.changes == [True, False])
    own_relay.signal(signal.SIGCONT)
    await alice.until(lambda: alice.pool.answers(REGION))


async def test_only_the_home_link_outlives_idleness(own_relay: RelayProcess, client: Spawn) -> None:
    alice = await client(timing=QUICK).up(own_relay.map)
    bob = client(timing=QUICK)
    bob.pool.set_map(own_relay.map)
    bob.pool.send(REGION, alice.key.public(), [b"x"])
    await bob.until(lambda: bob.changes == [True, False])
    assert alice.changes == [True]
    alice.pool.set_home(0)
    await alice.until(lambda: alice.changes == [True, False])


async def test_regions_that_leave_the_map_or_change_lose_their_link(
    own_relay: RelayProcess, client: Spawn
) -> None:
    alice = await client().up(own_relay.map)
    alice.pool.set_map(own_relay.map)
    assert alice.changes == [True]  # the same map disturbs nothing
    region = own_relay.map.regions[REGION]
    alice.pool.set_map(DERPMap(regions={REGION: replace(region, region_name="Renamed")}))
    await alice.until(lambda: alice.changes == [True, False, True])
    alice.pool.set_map(DERPMap())
    await alice.until(lambda: alice.changes == [True, False, True, False])
    assert not alice.pool.answers(REGION)


async def test_another_certificate_than_the_named_one_is_refused(
    own_relay: RelayProcess, client: Spawn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    alice = client(timing=QUICK)
    alice.pool.set_map(map_of(replace(own_relay.node, cert_name="sha256-raw:" + "00" * 32)))
    alice.pool.set_home(REGION)
    await _until_logged(caplog, "another certificate than the control server named")
    assert not alice.changes


async def test_without_a_pin_the_certificate_must_be_signed_by_an_authority(
    own_relay: RelayProcess, client: Spawn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    alice = client(timing=QUICK)
    alice.pool.set_map(map_of(replace(own_relay.node, cert_name="")))
    alice.pool.set_home(REGION)
    await _until_logged(caplog, "CERTIFICATE_VERIFY_FAILED")
    assert not alice.changes


async def test_insecure_for_tests_means_tls_without_verification_and_without_fast_start(
    relay: RelayProcess, client: Spawn
) -> None:
    await client().up(map_of(replace(relay.node, cert_name="", insecure_for_tests=True)))


async def test_the_next_relay_of_a_region_serves_when_the_first_is_down(
    own_relay: RelayProcess, client: Spawn
) -> None:
    down = replace(own_relay.node, name="900b", derp_port=free_port())
    await client().up(map_of(down, own_relay.node))


async def test_a_listener_that_speaks_no_tls_costs_a_try_and_nothing_else(
    client: Spawn, caplog: pytest.LogCaptureFixture
) -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        await writer.drain()
        writer.close()

    caplog.set_level("INFO")
    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        node = replace(NODE, region_id=REGION, ipv4="127.0.0.1", ipv6="none", derp_port=port)
        alice = client(timing=QUICK)
        alice.pool.set_map(map_of(replace(node, insecure_for_tests=True)))
        alice.pool.set_home(REGION)
        await _until_logged(caplog, f"relay region {REGION}: ")
        assert not alice.changes


async def _until_logged(caplog: pytest.LogCaptureFixture, text: str) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while text not in caplog.text:  # noqa: ASYNC110 - a log has no event
            await asyncio.sleep(0.02)


# --- addresses -------------------------------------------------------------------------------------------


def test_nodes_are_tried_in_the_maps_order_without_stun_only_hosts() -> None:
    nodes = (
        replace(NODE, name="1a", stun_only=True),
        replace(NODE, name="1b"),
        replace(NODE, name="1c", derp_port=70_000),
        replace(NODE, name="1d", derp_port=8443),
    )
    region = DERPRegion(region_id=1, region_code="x", region_name="X", nodes=nodes)
    assert [node.name for node in node_order(region)] == ["1b", "1d"]


def test_addresses_in_the_map_come_before_dns() -> None:
    assert literal_addresses(NODE) == []
    assert literal_addresses(replace(NODE, ipv4="192.0.2.1", ipv6="2001:db8::1")) == [
        "2001:db8::1",
        "192.0.2.1",
    ]
    assert literal_addresses(replace(NODE, ipv4="none", ipv6="none")) == []
    assert literal_addresses(replace(NODE, host_name="192.0.2.7")) == ["192.0.2.7"]


@pytest.mark.parametrize(
    "odd",
    [{"host_name": "relay\r\nX-Forged: 1"}, {"name": "1a\r\n\r\nGET / HTTP/1.1"}, {"derp_port": 70_000}],
)
def test_what_would_forge_a_request_is_never_asked(odd: dict[str, Any]) -> None:
    region = DERPRegion(region_id=1, region_code="t", region_name="T", nodes=(replace(NODE, **odd), NODE))
    assert node_order(region) == [NODE]


@pytest.mark.parametrize("text", ["slow.example.com", "2001:db8::1%eth0", "192.0.2.1 "])
def test_only_addresses_count_as_addresses(text: str) -> None:
    assert literal_addresses(replace(NODE, ipv4=text, ipv6=text)) == []


async def test_a_name_that_dns_cannot_have_costs_the_next_relay_nothing() -> None:
    odd = replace(NODE, host_name="a..b", ipv4="", ipv6="")
    region = DERPRegion(region_id=1, region_code="t", region_name="T", nodes=(odd,))
    with pytest.raises(RelayError):
        await dial(region, NodePrivate.generate(bytes(32)), resolver=Resolver(), mark=0)


async def test_an_address_is_remembered_while_dns_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver, loop = Resolver(), asyncio.get_running_loop()
    with pytest.raises(RelayError, match=r"no address for the relay relay\.example\.invalid"):
        await resolver.addresses(replace(NODE, host_name="relay.example.invalid"))
    local = replace(NODE, host_name="localhost", ipv6="none", derp_port=5)
    assert await resolver.addresses(local) == [("127.0.0.1", 5)]

    async def down(*_: object, **__: object) -> list[object]:
        raise socket.gaierror("Temporary failure in name resolution")

    monkeypatch.setattr(loop, "getaddrinfo", down)
    assert await resolver.addresses(local) == [("127.0.0.1", 5)]


async def test_the_first_address_that_answers_is_taken() -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        sock = await connect([("127.0.0.1", free_port()), ("127.0.0.1", port)], 0)
        assert sock.getpeername() == ("127.0.0.1", port)
        sock.close()
        with pytest.raises(ConnectionRefusedError):
            await connect([("127.0.0.1", free_port())], 0)
        with pytest.raises(RelayError):
            await connect([], 0)


# --- pure parts ------------------------------------------------------------------------------------------


def test_the_upgrade_names_host_and_ideal_node() -> None:
    lines = upgrade_request(replace(NODE, derp_port=8443), "1b", fast_start=True).decode().split("\r\n")
    assert lines[0] == "GET /derp HTTP/1.1"
    assert {"Host: relay.example:8443", "Upgrade: DERP", "Ideal-Node: 1b", "Derp-Fast-Start: 1"} <= set(lines)
    assert b"Fast" not in upgrade_request(NODE, "1a", fast_start=False)
    assert b"Host: [2001:db8::1]\r\n" in upgrade_request(
        replace(NODE, host_name="2001:db8::1"), "1a", fast_start=False
    )


def test_the_answer_to_the_upgrade_may_be_http_or_frames() -> None:
    answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n"
    assert after_upgrade(b"\x01\0\0\0") == b"\x01\0\0\0"
    assert after_upgrade(answer + b"\x01") == b"\x01"
    for cut in range(1, len(answer)):
        assert after_upgrade(answer[:cut]) is None
    with pytest.raises(RelayError, match="HTTP 404"):
        after_upgrade(b"HTTP/1.1 404 Not Found\r\n\r\n")
    with pytest.raises(RelayError, match="does not end"):
        after_upgrade(b"HTTP/1.1 101 " + b"x" * 20_000)


def test_a_pin_is_the_sha256_of_the_certificate() -> None:
    check_pin(b"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    with pytest.raises(RelayError):
        check_pin(b"x", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


def test_the_queue_keeps_the_newest_frames_and_never_cuts_one() -> None:
    queue = FrameQueue(limit=10)
    assert queue.push(b"aaaa")
    assert queue.push(b"bbbb")
    assert not queue.push(b"cccc")
    assert queue.dropped == 1
    assert queue.take(6) == b"bbbb"
    assert queue.take(1) == b"cccc"
    assert queue.take(1) == b""
    assert not queue.push(bytes(100))
    assert len(queue) == 1  # larger than the bound, but the only one


def test_an_allowance_refills_with_time_and_no_rate_allows_all() -> None:
    bucket = Allowance(100, 50, now=0.0)
    assert bucket.take(50, 0.0)
    assert not bucket.take(10, 0.05)
    assert bucket.take(10, 0.1)
    assert not bucket.take(60, 1000.0)
    assert Allowance(0, 0, now=0.0).take(10**9, 0.0)


def test_backoff_doubles_up_to_its_bound_and_is_spread() -> None:
    timing = Timing()
    assert backoff(1, timing, 0.0) == 0.25
    assert backoff(2, timing, 0.0) == 0.5
    assert backoff(10**6, timing, 0.999) <= timing.last_retry
    assert backoff(10**6, timing, 0.0) == timing.last_retry / 2
