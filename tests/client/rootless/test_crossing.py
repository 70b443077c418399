"""Packets on their way between the public port and a WireGuard in the namespace."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from client.rootless.crossing import Crossing
from client.rootless.namespace import Namespace
from tests.client.fakes import key

pytestmark = pytest.mark.root

PEER = key(1).public()
DATA = b"\x04\0\0\0"
INITIATION = b"\x01\0\0\0"


class Scene:
    """A crossing with a stand-in for WireGuard inside, and a host outside."""

    def __init__(self, inner: socket.socket, wireguard: socket.socket) -> None:
        self.wireguard = wireguard
        self.host = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.host.setblocking(False)
        self.host.bind(("127.0.0.1", 0))
        self.here = self.host.getsockname()
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.relayed: list[bytes] = []
        self.crossing = Crossing(
            inner,
            wireguard.getsockname()[1],
            mark=0,
            on_packet=lambda packet, source: self.heard.append((packet, source)),
            on_outgoing=lambda peer, packets: self.relayed.extend(packets),
        )
        self.crossing.start()

    async def at_wireguard(self) -> tuple[bytes, tuple[str, int]]:
        return await receive(self.wireguard)

    def close(self) -> None:
        self.crossing.close()
        self.wireguard.close()
        self.host.close()


async def receive(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recvfrom(sock, 65535)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    namespace = Namespace()
    inner = await namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    wireguard = await namespace.open_socket(socket.AF_INET, socket.SOCK_DGRAM)
    wireguard.bind(("", 0))
    made = Scene(inner, wireguard)
    yield made
    made.close()
    made.close()
    await namespace.close()


async def test_only_wireguards_packets_go_in_and_answers_find_back(scene: Scene) -> None:
    port = scene.wireguard.getsockname()[1]
    for packet in (INITIATION + b"hello", b"\x01\x01stun", b"TS\xf0\x9f\x92\xacdisco"):
        scene.host.sendto(packet, ("127.0.0.1", port))
    packet, source = await scene.at_wireguard()
    assert packet == INITIATION + b"hello"
    assert scene.crossing.outside(source) == scene.here
    await until(lambda: len(scene.heard) == 3)
    assert {source for _, source in scene.heard} == {scene.here}
    scene.wireguard.sendto(DATA + b"welcome", source)
    assert await receive(scene.host) == (DATA + b"welcome", ("127.0.0.1", port))


async def test_a_sign_is_given_of_those_whom_wireguard_never_answered(scene: Scene) -> None:
    """It may know nothing of the session that they believe in."""
    port = scene.wireguard.getsockname()[1]
    scene.host.sendto(DATA + b"first", ("127.0.0.1", port))
    _, source = await scene.at_wireguard()
    await until(lambda: scene.heard)
    assert scene.heard == [(DATA + b"first", scene.here)]
    scene.wireguard.sendto(DATA, source)
    await receive(scene.host)
    scene.host.sendto(DATA + b"second", ("127.0.0.1", port))
    assert (await scene.at_wireguard())[0] == DATA + b"second"
    assert len(scene.heard) == 1


async def test_relayed_packets_have_an_address_or_a_mask(scene: Scene) -> None:
    crossing = scene.crossing
    relay = crossing.add(PEER)
    packets = [DATA + bytes([number]) * 900 for number in range(50)]
    crossing.inject(PEER, packets)
    assert [await scene.at_wireguard() for _ in packets] == [(packet, relay) for packet in packets]
    for packet in packets[:3]:
        scene.wireguard.sendto(packet, relay)
    await until(lambda: scene.relayed == packets[:3])
    # Going direct: what still comes by the relay must not draw WireGuard back there.
    crossing.set_direct(PEER, scene.here)
    crossing.inject(PEER, packets[:1])
    _, source = await scene.at_wireguard()
    assert source == crossing.inside(scene.here) != relay
    crossing.set_direct(PEER, None)
    crossing.inject(PEER, packets[:1])
    assert (await scene.at_wireguard())[1] == relay
    assert crossing.inside(relay) == crossing.outside(relay) == relay == crossing.address_of(PEER)


async def test_whom_wireguard_spoke_to_is_remembered(scene: Scene) -> None:
    relay = scene.crossing.add(PEER)
    scene.crossing.remove(PEER)
    assert not scene.crossing.talked
    relay = scene.crossing.add(PEER)
    scene.wireguard.sendto(DATA, relay)
    await until(lambda: scene.relayed)
    scene.crossing.remove(PEER)
    assert scene.crossing.talked == {PEER}
    with pytest.raises(KeyError):
        scene.crossing.address_of(PEER)


async def test_the_port_sends_and_says_when_it_cannot(scene: Scene) -> None:
    assert scene.crossing.send(b"ping", scene.here)
    assert (await receive(scene.host))[0] == b"ping"
    assert not scene.crossing.send(b"x" * 70_000, scene.here)
    assert not scene.crossing.send(b"x", ("255.255.255.255", 9))
