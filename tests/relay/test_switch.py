"""The hot path, over real sockets: framing, routing, bounds, and who is told what."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.connection import Connection, FrameQueue, frames_of
from relay.limits import DISCO_QUEUE_BYTES, MAX_CONNECTIONS_PER_KEY, MAX_CONTROL_FRAME, QUEUE_BYTES
from relay.server import Relay
from relay.switch import Switch
from tests.relay.conftest import Connect, StartRelay
from tests.relay.peer import DISCO_PACKET, Peer, WebSocketPeer, new_key
from wire.derp import (
    MAX_FRAME_BYTES,
    MAX_PACKET_BYTES,
    FrameType,
    PeerGoneReason,
    encode_frame,
    note_preferred_frame,
    parse_peer_gone,
    ping_frame,
    send_packet_frame,
)


async def test_packets_arrive_in_order_and_unchanged(connect: Connect) -> None:
    alice, bob = await connect(), await connect()
    packets = [bytes([n % 256]) * (n * 37 % 1500) for n in range(500)]
    for packet in packets:
        alice.send_to(bob, packet)
    for packet in packets:
        assert await bob.packet() == (alice.public, packet)


async def test_frames_may_be_cut_at_every_byte(connect: Connect) -> None:
    alice, bob = await connect(), await connect()
    frames = (
        send_packet_frame(bob.public, b"one")
        + ping_frame(b"12345678")
        + send_packet_frame(bob.public, b"two")
    )
    for cut in range(1, len(frames)):
        alice.send(frames[:cut])
        await alice.writer.drain()
        await asyncio.sleep(0)
        alice.send(frames[cut:])
        assert [await bob.packet() for _ in range(2)] == [(alice.public, b"one"), (alice.public, b"two")]


async def test_one_byte_at_a_time(connect: Connect) -> None:
    alice, bob = await connect(), await connect()
    for byte in send_packet_frame(bob.public, b"slow") * 3:
        alice.send(bytes([byte]))
        await asyncio.sleep(0)
    for _ in range(3):
        assert await bob.packet() == (alice.public, b"slow")


async def test_a_stale_head_in_the_arena_completes_no_frame(connect: Connect) -> None:
    """The bytes behind a partial frame belong to an earlier read: they must not be taken for its rest."""
    alice, bob = await connect(), await connect()
    frame = send_packet_frame(bob.public, b"x" * 100)
    for _ in range(3):
        await alice.reaches(bob, b"x" * 100)
        alice.send(frame[:20])
        await asyncio.sleep(0.01)
        alice.send(frame[20:])
        assert await bob.packet() == (alice.public, b"x" * 100)


async def test_largest_and_empty_packets(connect: Connect) -> None:
    alice, bob = await connect(), await connect()
    for size in (0, 1, MAX_PACKET_BYTES - 1, MAX_PACKET_BYTES):
        await alice.reaches(bob, b"z" * size)


async def test_interleaved_destinations(connect: Connect) -> None:
    sender, *receivers = [await connect() for _ in range(5)]
    for number in range(200):
        sender.send_to(receivers[number % 4], str(number).encode())
    for index, receiver in enumerate(receivers):
        for number in range(index, 200, 4):
            assert await receiver.packet() == (sender.public, str(number).encode())


async def test_a_client_may_write_to_itself(connect: Connect) -> None:
    alice = await connect()
    await alice.reaches(alice)


@given(
    stream=st.lists(
        st.one_of(
            st.tuples(st.just("packet"), st.integers(0, 3000)),
            st.tuples(st.just("unknown"), st.integers(0, 200_000)),
            st.tuples(st.just("note"), st.just(0)),
            st.tuples(st.just("nobody"), st.integers(0, 100)),
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 1_000_000), max_size=12),
)
def test_any_stream_cut_anywhere_delivers_its_packets(stream: list[tuple[str, int]], cuts: list[int]) -> None:
    asyncio.run(_deliver(stream, cuts))


async def _deliver(stream: list[tuple[str, int]], cuts: list[int]) -> None:
    """Straight into a switch, by socket pairs: no handshake, the same code behind it."""
    switch = Switch(asyncio.get_running_loop())
    ends = []
    for key in (b"a" * 32, b"b" * 32):
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        conn = Connection(ours, ("127.0.0.1", 1))
        conn.key = key
        switch.add(conn)
        ends.append(theirs)
    data, expected = b"", b""
    for number, (what, size) in enumerate(stream):
        packet = bytes([number]) * size
        if what == "packet":
            data += struct.pack(">BI", 4, 32 + size) + b"b" * 32 + packet
            expected += struct.pack(">BI", 5, 32 + size) + b"a" * 32 + packet
        elif what == "nobody":
            data += struct.pack(">BI", 4, 32 + size) + b"c" * 32 + packet
        elif what == "note":
            data += note_preferred_frame(True)
        else:  # its body looks like packets, and must not be taken for them
            fake = struct.pack(">BI", 4, 32) + b"b" * 32
            data += struct.pack(">BI", 0x77, size) + (fake * (size // len(fake) + 1))[:size]
    edges = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    try:
        received = b""
        for start, end in itertools.pairwise(edges):
            at = start
            while at < end:
                with contextlib.suppress(BlockingIOError):
                    at += ends[0].send(data[at:end])
                await asyncio.sleep(0)
                received += _drain(ends[1])
        for _ in range(200):
            if len(received) >= len(expected):
                break
            await asyncio.sleep(0.001)
            received += _drain(ends[1])
        assert received == expected
        assert switch.client_count == 2
    finally:
        switch.close_all()
        for end in ends:
            end.close()


def _drain(sock: socket.socket) -> bytes:
    received = b""
    try:
        while data := sock.recv(2**20):
            received += data
    except (BlockingIOError, ConnectionError):
        pass
    return received


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(struct.pack(">BI", 4, 31) + bytes(31), id="a packet shorter than its key"),
        pytest.param(struct.pack(">BI", 4, MAX_PACKET_BYTES + 33) + bytes(40), id="a packet over the bound"),
        pytest.param(struct.pack(">BI", 4, 2**32 - 1), id="a packet of 4 GiB, head only"),
        pytest.param(struct.pack(">BI", 7, MAX_CONTROL_FRAME + 1), id="a known frame over the bound"),
        pytest.param(struct.pack(">BI", 0x0A, 100) + bytes(100), id="ForwardPacket without the mesh key"),
        pytest.param(encode_frame(FrameType.WATCH_CONNS), id="WatchConns without the mesh key"),
        pytest.param(struct.pack(">BI", 0x11, 32) + bytes(32), id="ClosePeer without the mesh key"),
        pytest.param(ping_frame(b"short"), id="a ping too short"),
        pytest.param(ping_frame(bytes(1001)), id="a ping too long"),
    ],
)
async def test_a_hostile_client_is_closed_and_others_are_served(connect: Connect, hostile: bytes) -> None:
    alice, bob, mallory = await connect(), await connect(), await connect()
    mallory.send(hostile)
    assert await mallory.closed()
    await alice.reaches(bob)


async def test_packets_before_a_violation_are_delivered(connect: Connect) -> None:
    alice, bob = await connect(), await connect()
    alice.send(send_packet_frame(bob.public, b"last words") + struct.pack(">BI", 4, 1) + b"x")
    assert await bob.packet() == (alice.public, b"last words")
    assert await alice.closed()


async def test_unknown_frames_are_skipped_however_large(connect: Connect) -> None:
    alice, bob = await connect(), await connect()
    smuggled = send_packet_frame(bob.public, b"smuggled") * 5000
    alice.send(encode_frame(0x63, b"") + encode_frame(0x64, b"abc") + encode_frame(0x65, smuggled))
    await alice.reaches(bob, b"real")


async def test_a_truncated_stream_costs_nobody_anything(connect: Connect) -> None:
    alice, bob, mallory = await connect(), await connect(), await connect()
    mallory.send(send_packet_frame(bob.public, b"y" * 1000)[:500])
    await asyncio.sleep(0.01)
    mallory.leave()
    await alice.reaches(bob)


@given(noise=st.binary(min_size=1, max_size=400))
def test_noise_never_ends_the_relay(noise: bytes) -> None:
    async def run() -> None:
        failures: list[object] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(context))
        switch = Switch(loop)
        ours, theirs = socket.socketpair()
        conn = Connection(ours, ("127.0.0.1", 1))
        conn.key = b"m" * 32
        switch.add(conn, noise[: len(noise) // 2])
        if not conn.closed:
            theirs.sendall(noise[len(noise) // 2 :])
        theirs.shutdown(socket.SHUT_WR)
        for _ in range(20):
            await asyncio.sleep(0)
        switch.close_all()
        theirs.close()
        assert not failures

    asyncio.run(run())


# --- pings, keepalives, preferences ----------------------------------------------------------------------


async def test_ping_is_answered(connect: Connect) -> None:
    alice = await connect()
    alice.send(ping_frame(b"abcdefgh"))
    assert await alice.frame() == (FrameType.PONG, b"abcdefgh")
    alice.send(ping_frame(b"12345678" + bytes(500)))
    assert await alice.frame() == (FrameType.PONG, b"12345678")


async def test_one_pong_for_a_burst_of_pings(connect: Connect, relay: Relay) -> None:
    alice = await connect()
    alice.send(ping_frame(b"firstone") + ping_frame(b"excessed") * 50)
    assert await alice.frame() == (FrameType.PONG, b"firstone")
    await alice.settle()


async def test_keepalives_are_due_after_a_minute(connect: Connect, relay: Relay) -> None:
    alice = await connect()
    (conn,) = relay.switch.connections()
    now = asyncio.get_running_loop().time()
    assert 59 <= conn.keepalive_due - now <= 65
    conn.keepalive_due = now
    relay.switch.tick()
    assert await alice.frame() == (FrameType.KEEP_ALIVE, b"")
    assert conn.keepalive_due > now + 59


async def test_preference_is_noted(connect: Connect, relay: Relay) -> None:
    alice = await connect(early=note_preferred_frame(True))
    await alice.settle()
    assert relay.switch.connections()[0].home
    alice.send(note_preferred_frame(False))
    await alice.settle()
    assert not relay.switch.connections()[0].home


# --- who is told that a peer is gone ---------------------------------------------------------------------


async def test_who_received_packets_hears_that_the_sender_left(connect: Connect) -> None:
    alice, bob, carol = await connect(), await connect(), await connect()
    await alice.reaches(bob)
    await carol.reaches(alice)
    alice.leave()
    kind, payload = await bob.frame()
    assert kind == FrameType.PEER_GONE
    assert parse_peer_gone(payload) == (alice.public, PeerGoneReason.DISCONNECTED)
    await carol.settle()  # carol only wrote to alice: nothing but her pong comes


async def test_only_the_last_connection_of_a_key_counts_as_gone(connect: Connect) -> None:
    key = new_key()
    first, bob = await connect(key=key), await connect()
    second = await connect(key=key)
    await first.reaches(bob)
    first.leave()
    await second.settle()
    await bob.settle()
    second.leave()
    kind, payload = await bob.frame()
    assert (kind, parse_peer_gone(payload)[0]) == (FrameType.PEER_GONE, key.public())


async def test_a_disco_packet_for_nobody_is_answered_now_and_then(connect: Connect, relay: Relay) -> None:
    alice = await connect()
    nobody = new_key().public()
    for _ in range(20):
        alice.send_to(nobody, DISCO_PACKET)
    for _ in range(3):
        kind, payload = await alice.frame()
        assert (kind, parse_peer_gone(payload)) == (FrameType.PEER_GONE, (nobody, PeerGoneReason.NOT_HERE))
    await alice.settle()
    assert relay.switch.counters.dropped_unknown == 20


async def test_other_packets_for_nobody_are_dropped_in_silence(connect: Connect, relay: Relay) -> None:
    alice = await connect()
    alice.send_to(new_key().public(), b"wireguard")
    await alice.settle()
    assert relay.switch.counters.dropped_unknown == 1


async def test_a_peer_that_comes_later_is_found(connect: Connect) -> None:
    alice, key = await connect(), new_key()
    alice.send_to(key.public(), b"too early")
    await alice.settle()
    bob = await connect(key=key)
    await alice.reaches(bob)
    bob.leave()
    bob = await connect(key=key)
    await alice.reaches(bob)


# --- duplicates ------------------------------------------------------------------------------------------


async def test_of_two_connections_the_last_to_send_receives(connect: Connect) -> None:
    key = new_key()
    alice, first = await connect(), await connect(key=key)
    second = await connect(key=key)
    await alice.reaches(second)
    await first.settle()
    await alice.reaches(first)
    await first.reaches(alice)
    await second.reaches(alice)
    await alice.reaches(second)
    second.leave()
    await alice.settle()
    while True:  # the relay may need a moment to see that the second is gone
        alice.send_to(key.public(), b"again")
        try:
            async with asyncio.timeout(0.2):
                assert await first.packet() == (alice.public, b"again")
            break
        except TimeoutError:
            continue


async def test_connections_of_one_key_are_bounded(connect: Connect, relay: Relay) -> None:
    key = new_key()
    oldest = await connect(key=key)
    for _ in range(MAX_CONNECTIONS_PER_KEY):
        await connect(key=key)
    assert await oldest.closed()
    assert len(relay.switch.connections()) == MAX_CONNECTIONS_PER_KEY


# --- slow receivers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Peer, WebSocketPeer])
async def test_a_stalled_receiver_is_bounded_and_harms_nobody(
    connect: Connect, relay: Relay, kind: type[Peer]
) -> None:
    alice, bob = await connect(), await connect()
    stalled = await connect(kind, read_limit=1024)
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for round_number in range(400):
        for _ in range(32):
            alice.send_to(stalled, bytes(1200))
        await alice.writer.drain()
        if round_number % 20 == 0:
            await alice.reaches(bob, str(round_number).encode())
    await alice.settle()
    (conn,) = relay.switch.clients[stalled.public.raw]
    assert conn.queue.size <= QUEUE_BYTES
    assert conn.waiting <= QUEUE_BYTES + DISCO_QUEUE_BYTES + 2 * MAX_PACKET_BYTES + 2 * 128 * 1024
    assert relay.switch.counters.dropped_queue > 0
    await alice.reaches(bob)


async def test_after_a_stall_whole_frames_follow(connect: Connect) -> None:
    alice, slow = await connect(), await connect(read_limit=1024)
    slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for number in range(20_000):
        alice.send_to(slow, number.to_bytes(4, "big") * 300)
        if number % 100 == 0:
            await alice.writer.drain()
    alice.send_to(slow, DISCO_PACKET)
    await alice.settle()
    slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
    numbers, disco = [], 0
    while not numbers or numbers[-1] != 19_999:
        sender, packet = await slow.packet()
        assert sender == alice.public
        if packet == DISCO_PACKET:
            disco += 1
        else:
            assert packet == packet[:4] * 300
            numbers.append(int.from_bytes(packet[:4], "big"))
    assert numbers == sorted(numbers)
    assert disco == 1  # disco waits apart: bulk does not push it out
    await alice.reaches(slow)


async def test_a_client_that_takes_nothing_is_closed(connect: Connect, relay: Relay) -> None:
    alice, stalled = await connect(), await connect(read_limit=1024)
    stalled.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(10_000):
        alice.send_to(stalled, bytes(1200))
    await alice.writer.drain()
    await alice.settle()
    (conn,) = relay.switch.clients[stalled.public.raw]
    assert conn.writer_on
    relay.switch.tick()
    assert not conn.closed
    conn.stalled_since -= 3
    relay.switch.tick()
    assert conn.closed
    assert relay.switch.counters.closed_stalled == 1


@given(sizes=st.lists(st.integers(1, 500), max_size=200))
def test_a_queue_keeps_the_newest_within_its_bound(sizes: list[int]) -> None:
    queue, dropped = FrameQueue(1000), 0
    frames = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
    for frame in frames:
        dropped += queue.push(frame)
    assert queue.size == sum(map(len, queue.frames)) <= 1000
    assert list(queue.frames) == frames[dropped:]


@given(payloads=st.lists(st.binary(max_size=300), max_size=20))
def test_frames_of_splits_what_encode_joined(payloads: list[bytes]) -> None:
    frames = [encode_frame(5, payload) for payload in payloads]
    assert list(frames_of(b"".join(frames))) == frames


# --- rates -----------------------------------------------------------------------------------------------


async def test_a_client_over_its_rate_is_slowed_and_nothing_is_lost(
    start_relay: StartRelay, connect: Connect
) -> None:
    relay = await start_relay("limited", client_rate=1_000_000, client_burst=65_568)
    alice, bob = await connect(to=relay), await connect(to=relay)
    assert alice.server_info is not None
    assert (alice.server_info.bytes_per_second, alice.server_info.bytes_burst) == (1_000_000, 65_568)
    started = asyncio.get_running_loop().time()
    for number in range(400):
        alice.send_to(bob, number.to_bytes(2, "big") * 500)
    for number in range(400):
        assert await bob.packet() == (alice.public, number.to_bytes(2, "big") * 500)
    assert asyncio.get_running_loop().time() - started > 0.2


def test_the_bounds_fit_together() -> None:
    assert QUEUE_BYTES > MAX_PACKET_BYTES
    assert MAX_CONTROL_FRAME < MAX_FRAME_BYTES
