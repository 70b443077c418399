"""Relays of one region know each other's clients and pass packets on, one hop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from relay.server import Relay
from tests.relay.conftest import Connect, StartRelay
from tests.relay.peer import DISCO_PACKET, PATIENCE, Peer
from wire.derp import (
    ClientInfo,
    FrameType,
    PeerGoneReason,
    PeerPresent,
    PeerPresentFlags,
    encode_frame,
    forward_packet_frame,
    parse_forward,
    parse_peer_gone,
)

MESH_KEY = "5e" * 32
TRUSTED = ClientInfo(mesh_key=MESH_KEY)
WATCH = encode_frame(FrameType.WATCH_CONNS)


async def eventually(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def test_a_watcher_hears_who_comes_and_goes(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("one", mesh_key=MESH_KEY)
    alice = await connect(to=relay)
    watcher = await connect(to=relay, info=TRUSTED)
    watcher.send(WATCH)
    present = {}
    for _ in range(2):
        kind, payload = await watcher.frame()
        assert kind == FrameType.PEER_PRESENT
        present[PeerPresent.parse(payload).peer] = PeerPresent.parse(payload)
    assert present[alice.public].flags == PeerPresentFlags.REGULAR
    assert present[alice.public].ip == "127.0.0.1"
    assert present[alice.public].port == alice.writer.get_extra_info("sockname")[1]
    assert present[watcher.public].flags == PeerPresentFlags.MESH
    prober = await connect(to=relay, info=ClientInfo(is_prober=True))
    kind, payload = await watcher.frame()
    assert PeerPresent.parse(payload).peer == prober.public
    assert PeerPresent.parse(payload).flags == PeerPresentFlags.PROBER
    alice.leave()
    kind, payload = await watcher.frame()
    assert (kind, parse_peer_gone(payload)) == (
        FrameType.PEER_GONE,
        (alice.public, PeerGoneReason.DISCONNECTED),
    )


async def test_forwarded_packets_are_delivered_here_only(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("one", mesh_key=MESH_KEY)
    alice, other = await connect(to=relay), await connect(to=relay, info=TRUSTED)
    other.send(forward_packet_frame(other.public, alice.public, b"x" * 65_536))
    assert await alice.packet() == (other.public, b"x" * 65_536)
    other.send(forward_packet_frame(other.public, Peer(0).public, DISCO_PACKET))
    assert (await other.frame())[0] == FrameType.PEER_GONE
    other.send(forward_packet_frame(other.public, alice.public, b"")[:-1])
    await asyncio.sleep(0)
    other.leave()
    await alice.settle()


async def test_close_peer(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("one", mesh_key=MESH_KEY)
    alice, bob, other = (
        await connect(to=relay),
        await connect(to=relay),
        await connect(to=relay, info=TRUSTED),
    )
    other.send(encode_frame(FrameType.CLOSE_PEER, alice.public.raw))
    assert await alice.closed()
    await bob.settle()
    other.send(encode_frame(FrameType.CLOSE_PEER, b"too short"))
    assert await other.closed()


async def two_relays(start_relay: StartRelay) -> tuple[Relay, Relay]:
    """``b`` dials ``a`` and ``a`` dials ``b``."""
    first = await start_relay("a", mesh_key=MESH_KEY)
    second = await start_relay("b", mesh_key=MESH_KEY, mesh_with=(f"http://127.0.0.1:{first.derp_port}",))
    from relay.mesh import MeshLink

    link = MeshLink(
        f"http://127.0.0.1:{second.derp_port}",
        first.switch,
        key=first.key,
        mesh_key=MESH_KEY,
        pool=first._pool,
    )
    first._spawn(link.run())
    await eventually(lambda: first.switch.links and second.switch.links)
    await eventually(lambda: first.switch.watchers and second.switch.watchers)
    return first, second


async def test_packets_cross_the_mesh_both_ways(start_relay: StartRelay, connect: Connect) -> None:
    first, second = await two_relays(start_relay)
    alice, bob = await connect(to=first), await connect(to=second)
    await eventually(lambda: bob.public.raw in first.switch.forwarders)
    await eventually(lambda: alice.public.raw in second.switch.forwarders)
    await alice.reaches(bob)
    await bob.reaches(alice, b"z" * 65_536)
    assert first.switch.counters.packets_forwarded_out == second.switch.counters.packets_forwarded_in == 1


async def test_a_local_client_wins_over_the_mesh(start_relay: StartRelay, connect: Connect) -> None:
    first, second = await two_relays(start_relay)
    alice, far = await connect(to=first), await connect(to=second)
    await eventually(lambda: far.public.raw in first.switch.forwarders)
    await alice.reaches(far)
    near = await connect(to=first, key=far.key)
    await alice.reaches(near)
    near.leave()
    await eventually(lambda: near.public.raw not in first.switch.clients)
    await alice.reaches(far)


async def test_who_left_over_there_is_forgotten(start_relay: StartRelay, connect: Connect) -> None:
    first, second = await two_relays(start_relay)
    alice, bob = await connect(to=first), await connect(to=second)
    await eventually(lambda: bob.public.raw in first.switch.forwarders)
    bob.leave()
    await eventually(lambda: bob.public.raw not in first.switch.forwarders)
    alice.send_to(bob, DISCO_PACKET)
    assert (await alice.frame())[0] == FrameType.PEER_GONE
    await second.stop()
    await eventually(lambda: not first.switch.links and not first.switch.forwarders)
    await alice.settle()


async def test_a_relay_does_not_follow_itself(start_relay: StartRelay) -> None:
    from relay.mesh import MeshLink

    relay = await start_relay("self", mesh_key=MESH_KEY)
    url = f"http://127.0.0.1:{relay.derp_port}"
    link = MeshLink(url, relay.switch, key=relay.key, mesh_key=MESH_KEY, pool=relay._pool)
    async with asyncio.timeout(PATIENCE):
        await link.run()
    assert not relay.switch.links


async def test_a_mesh_over_tls(start_relay: StartRelay) -> None:
    first = await start_relay("a", mesh_key=MESH_KEY, tls=True)
    second = await start_relay("b", mesh_key=MESH_KEY, mesh_with=(f"127.0.0.1:{first.derp_port}",))
    await eventually(lambda: second.switch.links and first.switch.watchers)


async def test_a_wrong_mesh_key_watches_nothing(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("one", mesh_key=MESH_KEY)
    stranger = await connect(to=relay, info=ClientInfo(mesh_key="0" * 64))
    stranger.send(WATCH)
    assert await stranger.closed()


def test_forward_frames_parse() -> None:
    first, second = Peer(0).public, Peer(0).public
    assert parse_forward(forward_packet_frame(first, second, b"data")[5:]) == (first, second, b"data")
