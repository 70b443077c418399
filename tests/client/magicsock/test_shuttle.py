"""Between WireGuard's port and the relay: lanes, batches, and the source that injected packets bear."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import resource
import socket
import sys
from collections.abc import AsyncIterator, Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.magicsock.routes import own_address
from client.magicsock.shuttle import MAX_SEGMENTS, Shuttle, segments
from client.magicsock.udp import MAX_UDP_PAYLOAD
from client.net.marks import MARK
from tests.lab.net import Lab, Namespace
from wire.keys import NodePrivate, NodePublic

WAIT_SECONDS = 10.0
IP_PKTINFO = 8
needs_root = pytest.mark.root


def new_key() -> NodePublic:
    return NodePrivate.generate(os.urandom(32)).public()


ALICE, BOB = new_key(), new_key()


class Outgoing:
    """What the shuttle handed on, batch by batch."""

    def __init__(self) -> None:
        self.batches: list[tuple[NodePublic, list[bytes]]] = []
        self._news = asyncio.Event()

    def __call__(self, peer: NodePublic, packets: list[bytes]) -> None:
        self.batches.append((peer, packets))
        self._news.set()

    def of(self, peer: NodePublic) -> list[bytes]:
        return [packet for key, batch in self.batches if key == peer for packet in batch]

    async def until(self, peer: NodePublic, count: int) -> list[bytes]:
        async with asyncio.timeout(WAIT_SECONDS):
            while len(self.of(peer)) < count:
                self._news.clear()
                await self._news.wait()
        return self.of(peer)


@pytest.fixture
def wireguard() -> Iterator[socket.socket]:
    """A socket in WireGuard's place."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.settimeout(WAIT_SECONDS)
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def outgoing() -> Outgoing:
    return Outgoing()


@pytest.fixture
async def shuttle(wireguard: socket.socket, outgoing: Outgoing) -> AsyncIterator[Shuttle]:
    shuttle = Shuttle(wireguard_port=wireguard.getsockname()[1], mark=MARK, on_outgoing=outgoing)
    yield shuttle
    shuttle.close()
    shuttle.close()


async def test_each_peer_has_an_address_of_its_own_that_stays(shuttle: Shuttle) -> None:
    assert shuttle.add(ALICE) == shuttle.add(ALICE) == shuttle.address_of(ALICE)
    assert shuttle.add(BOB) != shuttle.add(ALICE)
    assert shuttle.address_of(BOB)[0] == "127.0.0.1"
    shuttle.remove(BOB)
    shuttle.remove(BOB)
    with pytest.raises(KeyError):
        shuttle.address_of(BOB)


async def test_what_wireguard_sends_to_a_peer_goes_out_in_batches(
    shuttle: Shuttle, wireguard: socket.socket, outgoing: Outgoing
) -> None:
    packets = [bytes([n]) * 1300 for n in range(50)]
    for peer in (ALICE, BOB):
        address = shuttle.add(peer)
        for packet in packets:
            wireguard.sendto(packet, address)
    assert await outgoing.until(ALICE, 50) == packets
    assert await outgoing.until(BOB, 50) == packets
    assert len(outgoing.batches) <= 4


async def test_nobody_but_wireguard_can_send_into_a_lane(
    shuttle: Shuttle, wireguard: socket.socket, outgoing: Outgoing
) -> None:
    address = shuttle.add(ALICE)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.sendto(b"forged", address)
    wireguard.sendto(b"real", address)
    assert await outgoing.until(ALICE, 1) == [b"real"]


@pytest.mark.parametrize("sizes", [[5], [1300] * 90, [1300] * 3 + [40], [40, 1300, 1300, 40, 40, 1], [0, 5]])
@pytest.mark.parametrize("offload", [True, False])
async def test_injected_packets_reach_wireguard_whole_in_order_from_the_lane(
    shuttle: Shuttle,
    wireguard: socket.socket,
    sizes: list[int],
    offload: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not offload:
        monkeypatch.setattr("client.magicsock.shuttle._send_segmented", _no_offload)
    address = shuttle.add(ALICE)
    packets = [os.urandom(size) for size in sizes]
    shuttle.inject(ALICE, packets)
    for packet in packets:
        assert await asyncio.to_thread(wireguard.recvfrom, 2048) == (packet, address)


def _no_offload(sock: socket.socket, run: Sequence[bytes]) -> None:
    raise OSError(errno.EIO, "Input/output error")


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    """A host with routes to everywhere."""
    with Lab() as lab:
        yield lab.host("a")


@needs_root
@pytest.mark.parametrize("direct", [("203.0.113.9", 41641), ("2001:db8::9", 41641)])
async def test_once_direct_injected_packets_come_as_if_from_the_direct_endpoint(
    host: Namespace, direct: tuple[str, int]
) -> None:
    packets = [os.urandom(size) for size in (1300, 1301, 32, 0)]
    with host.entered(), wireguard_socket(direct[0]) as wireguard:
        shuttle = Shuttle(wireguard_port=wireguard.getsockname()[1], mark=MARK, on_outgoing=Outgoing())
        shuttle.add(ALICE)
        shuttle.set_direct(ALICE, direct)
        shuttle.inject(ALICE, packets)
        for packet in packets:
            received, [(_, _, arrival)], _, source = wireguard.recvmsg(2048, 100)
            assert (received, source[:2]) == (packet, direct)
            # Where WireGuard will answer from: our own address on a real interface, never loopback.
            assert socket.if_nametoindex("lo") != interface_of(arrival)
            assert socket.inet_pton(wireguard.family, own_address(direct[0], MARK)) in arrival
        shuttle.close()


@contextlib.contextmanager
def wireguard_socket(peer: str) -> Iterator[socket.socket]:
    """Bound as WireGuard binds, and told where packets arrive."""
    family, level, option, anywhere = (
        (socket.AF_INET6, socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, "::")
        if ":" in peer
        else (socket.AF_INET, socket.IPPROTO_IP, IP_PKTINFO, "0.0.0.0")
    )
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_SECONDS)
        sock.setsockopt(level, option, 1)
        sock.bind((anywhere, 0))
        yield sock


def interface_of(arrival: bytes) -> int:
    """The index in ``struct in_pktinfo`` (first) or ``in6_pktinfo`` (last)."""
    return int.from_bytes(arrival[:4] if len(arrival) == 12 else arrival[16:], sys.byteorder)


async def test_a_relay_cannot_break_a_batch_with_packets_that_no_udp_carries(
    shuttle: Shuttle, wireguard: socket.socket
) -> None:
    shuttle.add(ALICE)
    shuttle.inject(ALICE, [bytes(MAX_UDP_PAYLOAD + 1), b"first", bytes(1024 * 1024), b"second"])
    assert [wireguard.recv(65535) for _ in range(2)] == [b"first", b"second"]
    shuttle.set_direct(ALICE, ("127.0.0.1", 9))
    shuttle.inject(ALICE, [bytes(MAX_UDP_PAYLOAD + 1)])


async def test_back_on_the_relay_the_lane_is_the_source_again(
    shuttle: Shuttle, wireguard: socket.socket
) -> None:
    lane = shuttle.add(ALICE)
    shuttle.set_direct(ALICE, ("203.0.113.9", 41641))
    shuttle.set_direct(ALICE, None)
    shuttle.inject(ALICE, [b"relayed"])
    assert wireguard.recvfrom(2048) == (b"relayed", lane)


async def test_a_peer_keeps_its_socket_under_a_new_key(
    shuttle: Shuttle, wireguard: socket.socket, outgoing: Outgoing
) -> None:
    address = shuttle.add(ALICE)
    shuttle.rekey(ALICE, BOB)
    assert shuttle.address_of(BOB) == address
    wireguard.sendto(b"x", address)
    assert await outgoing.until(BOB, 1) == [b"x"]
    assert not outgoing.of(ALICE)
    shuttle.rekey(ALICE, new_key())  # not there any more: nothing happens
    shuttle.rekey(BOB, BOB)
    assert shuttle.address_of(BOB) == address


async def test_a_dead_wireguard_or_an_unknown_peer_loses_packets_and_nothing_else(
    shuttle: Shuttle, wireguard: socket.socket, outgoing: Outgoing
) -> None:
    shuttle.inject(ALICE, [b"unknown"])
    shuttle.set_direct(ALICE, ("203.0.113.9", 1))
    shuttle.add(ALICE)
    port = wireguard.getsockname()[1]
    wireguard.close()
    for _ in range(3):
        shuttle.inject(ALICE, [b"lost", b"lost"])
        await asyncio.sleep(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.settimeout(WAIT_SECONDS)
        again.bind(("127.0.0.1", port))
        again.sendto(b"back", shuttle.address_of(ALICE))
        assert await outgoing.until(ALICE, 1) == [b"back"]
        shuttle.inject(ALICE, [b"heard"])
        assert again.recv(100) == b"heard"


async def test_a_large_tailnet_finds_sockets_for_all(shuttle: Shuttle) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 2000:
        pytest.skip("this host allows no 2,000 open files")
    peers = [NodePublic(n.to_bytes(32, "big")) for n in range(1500)]
    assert len({shuttle.add(peer) for peer in peers}) == len(peers)


@given(st.lists(st.sampled_from([0, 1, 100, 1300, 1400, 60_000, 65_000]).map(bytes), max_size=120))
def test_segments_are_what_one_offloaded_send_may_hold(packets: list[bytes]) -> None:
    runs = [list(run) for run in segments(packets)]
    assert [packet for run in runs for packet in run] == packets
    for run in runs:
        assert len(run) <= MAX_SEGMENTS
        assert len({len(packet) for packet in run[:-1]}) <= 1
        assert len(run) == 1 or 0 < len(run[-1]) <= len(run[0])
        assert len(run) == 1 or sum(map(len, run)) <= MAX_UDP_PAYLOAD
    equal = [packet for packet in packets if len(packet) == 1300]
    assert len(list(segments(equal))) == -(-len(equal) // MAX_SEGMENTS)
