"""The facade with a fake engine and everything else real: raw sockets, a relay process, STUN, disco.

Two nodes live in one network namespace of the test's own. What stands for WireGuard is a plain UDP socket on
its port, and a :class:`FakeEngine` that is told what WireGuard would have noticed.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from client.engine.fake import FakeEngine
from client.errors import EngineError, PeerNotFound, PingTimeout
from client.magicsock import sock as magicsock
from client.magicsock import surroundings
from client.magicsock.endpoints import Endpoint, EndpointType
from client.magicsock.handshakes import INITIATION, INITIATION_BYTES
from client.magicsock.sock import Magicsock
from client.net.portmap.mapper import PortMapper
from client.wireguard import Address, PeerConfig
from tests.client.magicsock.relays import REGION, RelayProcess, trenza_relay
from wire import stun
from wire.control import NetInfo
from wire.derpmap import DERPMap, DERPNode, DERPRegion
from wire.disco import CallMeMaybe
from wire.keys import DiscoPrivate, NodePrivate, NodePublic
from wire.netmap import NetMap, Node
from wire.paths import Reason

pytestmark = pytest.mark.root

HOST = "192.0.2.1"
CLONE_NEWNET = 0x40000000
WAIT_SECONDS = 20.0
WALL = 1_800_000_000.0
DATA = b"\4\0\0\0 what WireGuard would have encrypted"


def run_ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True)


@pytest.fixture
def namespace() -> Iterator[None]:
    """This thread, and what it starts, in a network of its own: loopback, and one address that is not."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open("/proc/thread-self/ns/net") as outside:
        assert libc.unshare(CLONE_NEWNET) == 0
        try:
            run_ip("link set lo up")
            run_ip(f"addr add {HOST}/32 dev lo")
            yield
        finally:
            assert libc.setns(outside.fileno(), CLONE_NEWNET) == 0


@pytest.fixture
async def relay(namespace: None, tmp_path: Path) -> AsyncIterator[RelayProcess]:
    async with trenza_relay(tmp_path) as running:
        yield running


class StunServer(asyncio.DatagramProtocol):
    """Answers binding requests, unless it is ``silent``."""

    def __init__(self) -> None:
        self.silent = False
        self.requests = 0

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.requests += 1
        if not self.silent and (txid := stun.parse_binding_request(data)):
            self._transport.sendto(stun.binding_response(txid, addr), addr)


@pytest.fixture
async def stun_server(namespace: None) -> AsyncIterator[tuple[StunServer, int]]:
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(StunServer, (HOST, 0))
    with closing(transport):
        yield server, transport.get_extra_info("sockname")[1]


@pytest.fixture
def derp_map(relay: RelayProcess, stun_server: tuple[StunServer, int]) -> DERPMap:
    by_udp = DERPNode(
        name="900s",
        region_id=REGION,
        host_name=HOST,
        ipv4=HOST,
        ipv6="none",
        stun_port=stun_server[1],
        stun_only=True,
    )
    region = DERPRegion(region_id=REGION, region_code="test", region_name="Test", nodes=(relay.node, by_udp))
    return DERPMap(regions={REGION: region})


class WatchingEngine(FakeEngine):
    """Tells the test of each endpoint just before it is set."""

    before_move: Callable[[NodePublic, Address], Awaitable[None]] | None = None

    async def set_endpoint(self, peer: NodePublic, endpoint: Address) -> None:
        if self.before_move is not None:
            await self.before_move(peer, endpoint)
        await super().set_endpoint(peer, endpoint)


def no_mapper(port: int, mark: int, key: NodePrivate, on_change: Callable[[], None]) -> PortMapper:
    """No router is asked for anything."""
    return PortMapper((), on_change=on_change, gateway=no_gateway)


async def no_gateway() -> str | None:
    return None


@dataclass
class Host:
    """One node. ``wireguard`` is the socket on WireGuard's port."""

    number: int
    derp_map: DERPMap
    key: NodePrivate = field(default_factory=lambda: NodePrivate.generate(os.urandom(32)))
    disco: DiscoPrivate = field(default_factory=lambda: DiscoPrivate.generate(os.urandom(32)))
    engine: WatchingEngine = field(default_factory=WatchingEngine)
    endpoints: list[tuple[Endpoint, ...]] = field(default_factory=list)
    net_infos: list[NetInfo] = field(default_factory=list)
    greeted: list[Node] = field(default_factory=list)
    endpoints_are_known: bool = True

    async def start(self) -> None:
        self.wireguard = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.wireguard.setblocking(False)
        self.wireguard.bind(("0.0.0.0", 0))
        self.port = int(self.wireguard.getsockname()[1])
        await self.engine.start()
        await self.engine.set_key(self.key, listen_port=self.port, fwmark=0)
        self.open()
        await self.sock.start()

    def open(self) -> None:
        self.sock = Magicsock(
            engine=self.engine,
            node_key=self.key,
            disco_key=self.disco,
            listen_port=self.port,
            mark=0,
            on_endpoints=self.endpoints.append,
            on_net_info=self.net_infos.append,
            greet=self.greeted.append,
            wall=lambda: WALL,
            make_mapper=no_mapper,
        )

    async def close(self) -> None:
        await self.sock.close()
        self.wireguard.close()

    @property
    def public(self) -> NodePublic:
        return self.key.public()

    @property
    def address(self) -> Address:
        return HOST, self.port

    @property
    def node(self) -> Node:
        return Node(
            id=self.number,
            stable_id=f"n{self.number}",
            name=f"host{self.number}.example.",
            key=self.public,
            disco_key=self.disco.public(),
            addresses=(f"100.64.0.{self.number}/32",),
            endpoints=(f"{HOST}:{self.port}",) if self.endpoints_are_known else (),
            home_derp=REGION,
        )

    def netmap(self, *peers: Node) -> NetMap:
        return NetMap(node=self.node, peers={peer.id: peer for peer in peers}, derp_map=self.derp_map)

    async def learn(self, *others: Host) -> None:
        await self.sock.set_netmap(self.netmap(*(other.node for other in others)))

    async def endpoint_of(self, other: Host) -> Address | None:
        return (await self.engine.status()).peers[other.public].endpoint

    async def send(self, other: Host, data: bytes = DATA) -> None:
        """WireGuard sends to where it believes the peer is."""
        endpoint = await self.endpoint_of(other)
        assert endpoint is not None
        self.wireguard.sendto(data, endpoint)
        self.engine.observe(other.public, sent=len(data))

    async def receive(self, kind: bytes = DATA[:4]) -> tuple[bytes, Address]:
        """What WireGuard gets, and from where. Disco and STUN arrive there too; WireGuard ignores them."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(WAIT_SECONDS):
            while True:
                data, source = await loop.sock_recvfrom(self.wireguard, 65535)
                if data.startswith(kind):
                    return data, source

    @property
    def is_connected(self) -> bool:
        """To the relay, and measured."""
        return bool(self.endpoints) and self.sock._pool.answers(REGION)

    def is_direct(self, other: Host) -> bool:
        return self.sock.path_status(other.number).current == other.address


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_SECONDS):
        while not condition():  # noqa: ASYNC110 - what is waited for is in real sockets
            await asyncio.sleep(0.01)


@asynccontextmanager
async def running(hosts: Sequence[Host]) -> AsyncIterator[None]:
    for host in hosts:
        await host.start()
    try:
        yield
    finally:
        for host in hosts:
            await host.close()


@pytest.fixture
async def pair(derp_map: DERPMap) -> AsyncIterator[tuple[Host, Host]]:
    """Two nodes that know each other, and the relay."""
    a, b = Host(1, derp_map), Host(2, derp_map)
    async with running([a, b]):
        await a.learn(b)
        await b.learn(a)
        await until(lambda: a.is_connected and b.is_connected)
        yield a, b


# --- paths -----------------------------------------------------------------------------------------------


async def test_the_first_packet_goes_by_relay_and_then_the_path_is_direct(pair: tuple[Host, Host]) -> None:
    a, b = pair
    assert (await a.endpoint_of(b) or ("",))[0] == "127.0.0.1"
    assert a.sock.path_status(2).reason is Reason.IDLE
    await a.send(b)
    data, source = await b.receive()
    assert data == DATA
    assert source[0] in ("127.0.0.1", HOST)
    await until(lambda: a.is_direct(b))
    await a.send(b, DATA + b"2")
    assert await b.receive() == (DATA + b"2", a.address)
    status = a.sock.path_status(2)
    assert status.active
    assert status.reason is None
    assert status.relay_code == "test"


async def test_injection_is_switched_before_the_endpoint(pair: tuple[Host, Host]) -> None:
    """At the very moment a direct endpoint is set, what comes by relay must bear it as its source already."""
    a, b = pair
    seen: list[tuple[Address, Address]] = []

    async def inject_now(peer: NodePublic, endpoint: Address) -> None:
        b.sock._pool.send(REGION, a.public, [DATA + b"now"])  # what a peer that is still on the relay does
        data, source = await a.receive()
        assert data == DATA + b"now"
        seen.append((endpoint, source))

    a.engine.before_move = inject_now
    await a.send(b)
    await until(lambda: bool(seen))
    a.engine.before_move = None
    assert seen[0] == (b.address, b.address)


async def test_a_snap_back_to_the_relay_is_put_right(pair: tuple[Host, Host]) -> None:
    a, b = pair
    lane = await a.endpoint_of(b)
    await a.send(b)
    await until(lambda: a.is_direct(b))
    assert lane is not None
    await until(lambda: bool(a.engine.endpoint_changes))
    a.engine.observe(b.public, endpoint=lane, received=100)
    moves = len(a.engine.endpoint_changes)
    await until(lambda: len(a.engine.endpoint_changes) > moves)
    assert await a.endpoint_of(b) == b.address


async def test_the_tunnel_is_never_carried_by_itself(pair: tuple[Host, Host]) -> None:
    """A peer's packets, or its call, may come from an address inside the tunnel: there is no way to it."""
    a, b = pair
    inside = ("100.64.0.2", 41641)
    relayed = await a.endpoint_of(b)
    moves = len(a.engine.endpoint_changes)
    a.engine.observe(b.public, endpoint=inside, received=1)
    await until(lambda: len(a.engine.endpoint_changes) > moves)
    assert await a.endpoint_of(b) in (relayed, b.address)
    call = b.sock._deeds.seal(next(iter(b.sock._peers)), CallMeMaybe((inside, ("198.51.100.7", 7))))
    assert call is not None
    a.sock._on_derp(REGION, b.public, [call])
    known = {candidate.address for candidate in next(iter(a.sock._peers)).path.candidates}
    assert ("198.51.100.7", 7) in known
    assert inside not in known


async def test_a_peer_that_nobody_named_is_found_by_its_call(derp_map: DERPMap) -> None:
    """The netmap knows no endpoints: each side learns the other's from the call-me-maybe."""
    a = Host(1, derp_map, endpoints_are_known=False)
    b = Host(2, derp_map, endpoints_are_known=False)
    async with running([a, b]):
        await a.learn(b)
        await b.learn(a)
        await until(lambda: a.is_connected and b.is_connected)
        await a.send(b)
        await until(lambda: a.is_direct(b))


async def test_a_handshake_that_found_no_relay_is_sent_again(derp_map: DERPMap) -> None:
    """WireGuard itself would try again five seconds later."""
    a, b = Host(1, derp_map, endpoints_are_known=False), Host(2, derp_map, endpoints_are_known=False)
    initiation = INITIATION.ljust(INITIATION_BYTES, b"x")
    async with running([a, b]):
        b.sock._raw.close()
        await b.learn(a)
        await a.sock.set_netmap(a.netmap(replace(b.node, home_derp=0)))
        await until(lambda: a.is_connected and b.is_connected)
        await a.send(b, initiation)
        await until(lambda: a.sock.path_status(2).active)
        await a.learn(b)
        assert (await b.receive(initiation[:4]))[0] == initiation


async def test_a_session_from_before_our_wireguard_is_begun_anew(derp_map: DERPMap) -> None:
    """By what comes through the relay, by a ping, or by what the port's owner shows of the direct way."""
    for sign in ("relay", "ping", "port"):
        a, b = Host(1, derp_map, endpoints_are_known=False), Host(2, derp_map)
        async with running([a, b]):
            await a.learn(b)
            await b.learn(a)
            await until(lambda one=a, other=b: one.is_connected and other.is_connected)
            if sign == "relay":
                await a.send(b)
            elif sign == "ping":
                await a.sock.ping(2, WAIT_SECONDS)
            else:
                a.sock._on_udp(DATA, b.address)
            stranger, greeter = (b, a) if sign == "port" else (a, b)
            await until(lambda one=greeter: bool(one.greeted))
            assert [node.key for node in greeter.greeted] == [stranger.public]


async def test_who_has_a_session_is_not_greeted(pair: tuple[Host, Host]) -> None:
    a, b = pair
    b.engine.observe(a.public, last_handshake=WALL)
    await b.sock._look_at_engine()
    await a.send(b)
    await until(lambda: a.is_direct(b))
    assert not b.sock._strangers.expects
    assert not b.greeted


# --- pings -----------------------------------------------------------------------------------------------


async def test_a_ping_is_answered_and_says_by_which_way(pair: tuple[Host, Host]) -> None:
    a, b = pair
    result = await a.sock.ping(2, WAIT_SECONDS)
    assert 0 <= result.latency < WAIT_SECONDS
    await until(lambda: a.is_direct(b))
    result = await a.sock.ping(2, WAIT_SECONDS)
    assert result.endpoint == b.address
    assert result.derp_region == 0


async def test_without_udp_a_ping_goes_by_relay(derp_map: DERPMap) -> None:
    a, b = Host(1, derp_map, endpoints_are_known=False), Host(2, derp_map, endpoints_are_known=False)
    async with running([a]):
        await b.start()
        await a.learn(b)
        b.sock._raw.close()
        await b.learn(a)
        await until(lambda: a.is_connected and b.is_connected)
        result = await a.sock.ping(2, WAIT_SECONDS)
        assert result.endpoint is None
        assert (result.derp_region, result.derp_code) == (REGION, "test")
        await b.close()


async def test_a_ping_that_nobody_answers_ends(pair: tuple[Host, Host]) -> None:
    a, b = pair
    await b.sock.close()
    with pytest.raises(PingTimeout, match=r"host2\.example"):
        await a.sock.ping(2, 0.3)
    with pytest.raises(PeerNotFound):
        await a.sock.ping(77, 0.3)


async def test_a_ping_ends_when_the_peer_leaves(pair: tuple[Host, Host]) -> None:
    a, b = pair
    await b.sock.close()
    pinging = asyncio.create_task(a.sock.ping(2, WAIT_SECONDS))
    await asyncio.sleep(0)
    await a.learn()
    with pytest.raises(PeerNotFound):
        await pinging


# --- netmaps ---------------------------------------------------------------------------------------------


async def test_wireguard_gets_the_peers_of_the_netmap(pair: tuple[Host, Host]) -> None:
    a, b = pair
    status = await a.engine.status()
    assert status.peers[b.public].allowed_ips == {"100.64.0.2/32"}
    routed = replace(b.node, allowed_ips=("100.64.0.2/32", "10.5.0.0/16", "bad", "10.5.0.1/16"))
    await a.sock.set_netmap(a.netmap(routed))
    status = await a.engine.status()
    assert status.peers[b.public].allowed_ips == {"100.64.0.2/32", "10.5.0.0/16"}
    await a.learn()
    assert not (await a.engine.status()).peers
    with pytest.raises(PeerNotFound):
        a.sock.path_status(2)


async def test_a_netmap_that_changes_nothing_of_wireguard_leaves_it_alone(pair: tuple[Host, Host]) -> None:
    a, b = pair
    await a.engine.set_peers([])  # what only a netmap with other peers would put right
    await a.sock.set_netmap(a.netmap(replace(b.node, online=True)))
    assert not (await a.engine.status()).peers
    await a.sock.set_netmap(a.netmap(replace(b.node, allowed_ips=("100.64.0.9/32",))))
    assert (await a.engine.status()).peers[b.public].allowed_ips == {"100.64.0.9/32"}


async def test_a_netmap_that_the_engine_refused_is_set_with_the_next(pair: tuple[Host, Host]) -> None:
    a, b = pair
    routed = replace(b.node, allowed_ips=("100.64.9.0/24",))
    a.engine.running = False
    with pytest.raises(EngineError):
        await a.sock.set_netmap(a.netmap(routed))
    a.engine.running = True
    await a.sock.set_netmap(a.netmap(routed))
    assert (await a.engine.status()).peers[b.public].allowed_ips == {"100.64.9.0/24"}


async def test_an_expired_peer_is_no_peer_of_wireguards(pair: tuple[Host, Host]) -> None:
    a, b = pair
    await a.sock.set_netmap(a.netmap(replace(b.node, expired=True)))
    assert not (await a.engine.status()).peers
    assert a.sock.path_status(2).reason is Reason.KEY_EXPIRED


async def test_a_rotated_key_keeps_the_direct_path(pair: tuple[Host, Host]) -> None:
    a, b = pair
    await a.send(b)
    await until(lambda: a.is_direct(b))
    b.key = NodePrivate.generate(os.urandom(32))
    await a.learn(b)
    assert await a.endpoint_of(b) == b.address
    assert a.is_direct(b)
    assert set((await a.engine.status()).peers) == {b.public}


async def test_a_rotated_key_of_our_own_reconnects_the_relay(derp_map: DERPMap) -> None:
    a = Host(1, derp_map, endpoints_are_known=False)
    b = Host(2, derp_map, endpoints_are_known=False)
    async with running([a, b]):
        b.sock._raw.close()
        await a.learn(b)
        await b.learn(a)
        await until(lambda: a.is_connected and b.is_connected)
        await a.sock.ping(2, WAIT_SECONDS)
        b.key = NodePrivate.generate(os.urandom(32))
        await b.sock.set_node_key(b.key)
        await a.learn(b)
        await b.learn(a)

        async def answered() -> bool:
            try:
                return (await a.sock.ping(2, 1.0)).derp_region == REGION
            except PingTimeout:
                return False

        async with asyncio.timeout(WAIT_SECONDS):
            while not await answered():
                pass


# --- restarts --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "handshake_age", "kept"),
    [
        (("203.0.113.9", 4000), 10.0, True),
        (("203.0.113.9", 4000), 500.0, False),
        (("127.0.0.1", 4000), 10.0, False),
    ],
)
async def test_a_running_tunnel_is_taken_over(
    derp_map: DERPMap, endpoint: Address, handshake_age: float, kept: bool
) -> None:
    """A live direct endpoint is not touched; a stale one, or a dead daemon's loopback one, becomes ours."""
    a, b = Host(1, derp_map), Host(2, derp_map)
    async with running([a]):
        b.port = 1
        peer = PeerConfig(key=b.public, allowed_ips=b.node.addresses, endpoint=endpoint)
        await a.engine.set_peers([peer])
        a.engine.observe(b.public, last_handshake=WALL - handshake_age)
        await a.learn(b)
        if kept:
            assert a.sock.path_status(2).current == endpoint
            assert await a.endpoint_of(b) == endpoint
        else:
            await until(lambda: bool(a.engine.endpoint_changes))
            moved = await a.endpoint_of(b)
            assert moved is not None
            assert moved != endpoint
            assert moved[0] == "127.0.0.1"


async def test_closing_leaves_wireguard_as_it_is(pair: tuple[Host, Host]) -> None:
    a, b = pair
    await a.send(b)
    await until(lambda: a.is_direct(b))
    await until(lambda: bool(a.engine.endpoint_changes))
    await a.sock.close()
    assert await a.endpoint_of(b) == b.address
    a.open()
    await a.sock.start()
    a.engine.observe(b.public, last_handshake=WALL - 5)
    await a.learn(b)
    assert a.is_direct(b)


async def test_an_engine_that_fails_for_a_moment_ends_nothing(
    pair: tuple[Host, Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = pair
    monkeypatch.setattr(magicsock, "RETRY_SECONDS", 0.05)
    monkeypatch.setattr(magicsock, "POLL_IDLE", 0.05)
    a.engine.running = False
    await asyncio.sleep(0.3)
    a.engine.running = True
    await a.send(b)
    await until(lambda: a.is_direct(b))
    await until(lambda: (b.public, b.address) in a.engine.endpoint_changes)


# --- surroundings ----------------------------------------------------------------------------------------


async def test_the_server_is_told_endpoints_and_home(pair: tuple[Host, Host]) -> None:
    a, _ = pair
    await until(lambda: a.net_infos[-1].working_udp is not None)
    info = a.net_infos[-1]
    assert info.preferred_derp == REGION
    assert info.working_udp is True
    assert info.derp_latency.keys() == {f"{REGION}-v4"}
    assert a.endpoints == [(Endpoint(a.address, EndpointType.STUN),)]
    report = await a.sock.netcheck()
    assert report.global_v4 == (a.address,)
    assert a.net_infos[-1].pcp is False  # a person's netcheck also asks the router
    told = len(a.net_infos)
    await a.sock.netcheck()
    assert len(a.net_infos) == told  # nothing new: the server is not told again
    assert len(a.endpoints) == 1


async def test_the_only_relay_is_home_at_once(derp_map: DERPMap) -> None:
    """Before anything is measured: who has just joined must be reachable."""
    a = Host(1, derp_map)
    async with running([a]):
        await a.sock.set_netmap(replace(a.netmap(), node=replace(a.node, home_derp=0)))
        assert a.net_infos == [NetInfo(preferred_derp=REGION)]


async def test_without_udp_the_relay_is_measured_over_tls(
    derp_map: DERPMap, stun_server: tuple[StunServer, int]
) -> None:
    stun_server[0].silent = True
    a, b = Host(1, derp_map), Host(2, derp_map)
    async with running([a]):
        b.port = 1
        await a.learn(b)
        report = await a.sock.netcheck()
        assert not report.udp
        assert report.preferred_derp == REGION
        assert report.region_latency.keys() == {REGION}
        assert a.net_infos[-1].working_udp is False
        await a.send(b)
        await until(lambda: a.sock.path_status(2).active)
        assert a.sock.path_status(2).reason is Reason.UDP_BLOCKED_HERE


async def test_udp_that_is_no_longer_blocked_is_noticed_by_the_next_call(
    derp_map: DERPMap, stun_server: tuple[StunServer, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Long before STUN of a working network would be old: a call is worth nothing without our address."""
    monkeypatch.setattr(surroundings, "FRESH_WITHOUT_UDP", 0.1)
    stun_server[0].silent = True
    a, b = Host(1, derp_map), Host(2, derp_map)
    async with running([a]):
        b.port = 1
        await a.learn(b)
        await a.sock.netcheck()
        stun_server[0].silent = False
        await a.send(b)
        await until(lambda: a.net_infos[-1].working_udp is True)


async def test_a_changed_link_makes_us_look_again(
    pair: tuple[Host, Host], stun_server: tuple[StunServer, int]
) -> None:
    a, _ = pair
    asked = stun_server[0].requests
    run_ip("addr add 192.0.2.7/32 dev lo")
    a.sock.link_changed()
    await until(lambda: any(("192.0.2.7", a.port) in [e.address for e in told] for told in a.endpoints))
    assert stun_server[0].requests > asked


async def test_captive_portals_are_looked_for_unless_the_policy_says_no(
    derp_map: DERPMap, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def counting(wanted: list[Any], **_: Any) -> bool:
        asked.append(len(wanted))
        return False

    monkeypatch.setattr(surroundings, "behind_portal", counting)
    host = Host(1, derp_map)
    async with running([host]):
        shown = host.netmap()
        await host.sock.set_netmap(shown)
        assert (await host.sock.netcheck()).captive_portal is False
        without = replace(host.node, cap_map={"disable-captive-portal-detection": None})
        await host.sock.set_netmap(replace(shown, node=without))
        before = len(asked)
        assert (await host.sock.netcheck()).captive_portal is None
        assert len(asked) == before > 0


async def test_noise_on_the_port_is_ignored(pair: tuple[Host, Host]) -> None:
    a, b = pair
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        for packet in (
            b"TS\xf0\x9f\x92\xac" + os.urandom(32 + 24 + 40),  # an unknown disco key
            b"TS\xf0\x9f\x92\xac" + b.disco.public().raw + os.urandom(24 + 40),  # a box that does not open
            b"TS\xf0\x9f\x92\xac",
            b"\1\1\0\0\x21\x12\xa4\x42" + os.urandom(12),  # STUN that nobody asked for
        ):
            stranger.sendto(packet, a.address)
    await a.send(b)
    await until(lambda: a.is_direct(b))
