"""WireGuard's port, shared: what reaches Python, what does not, and from where packets seem to come."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from client.errors import SetupError
from client.magicsock.rawport import RawPort
from client.net.marks import MARK
from wire import disco, stun

Address = tuple[str, int]
WAIT_SECONDS = 10.0
TXID = bytes(range(12))
STUN_ANSWER = stun.binding_response(TXID, ("198.51.100.7", 4711))
STUN_ANSWER6 = stun.binding_response(TXID, ("2001:db8::7", 4711))
DISCO = disco.MAGIC + bytes(disco.MIN_PACKET_BYTES)
HANDSHAKE = b"\x01\0\0\0" + bytes(144)

pytestmark = pytest.mark.root


class Heard:
    """What a raw port reported."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def __call__(self, packet: bytes, source: Address) -> None:
        self.queue.put_nowait((packet, source))

    async def next(self) -> tuple[bytes, Address]:
        async with asyncio.timeout(WAIT_SECONDS):
            return await self.queue.get()


def udp(host: str, port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(WAIT_SECONDS)
    sock.bind((host, port))
    return sock


@pytest.fixture(params=["127.0.0.1", "::1"])
def host(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def wireguard(host: str) -> Iterator[socket.socket]:
    """A socket in WireGuard's place."""
    with udp(host) as sock:
        yield sock


@pytest.fixture
def stranger(host: str) -> Iterator[socket.socket]:
    with udp(host) as sock:
        yield sock


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
async def raw(wireguard: socket.socket, heard: Heard) -> AsyncIterator[RawPort]:
    raw = RawPort(wireguard.getsockname()[1], mark=MARK, on_packet=heard)
    raw.start()
    yield raw
    raw.close()
    raw.close()


async def test_stun_answers_and_disco_come_through_with_their_source(
    raw: RawPort, wireguard: socket.socket, stranger: socket.socket, heard: Heard
) -> None:
    for packet in (STUN_ANSWER, DISCO, STUN_ANSWER6):
        stranger.sendto(packet, wireguard.getsockname())
        assert await heard.next() == (packet, stranger.getsockname()[:2])
        assert wireguard.recv(2048) == packet  # WireGuard sees them too, and ignores them


@pytest.mark.parametrize(
    "packet",
    [
        HANDSHAKE,
        b"",
        b"x",
        DISCO[:5],
        b"TS\xf0\x9f" + bytes(60),
        STUN_ANSWER[:4] + b"\0" + STUN_ANSWER[5:],
        stun.BINDING_REQUEST + STUN_ANSWER[2:],
    ],
    ids=["wireguard", "empty", "byte", "short-magic", "half-magic", "no-cookie", "request"],
)
async def test_anything_else_stays_in_the_kernel(
    raw: RawPort, wireguard: socket.socket, stranger: socket.socket, heard: Heard, packet: bytes
) -> None:
    stranger.sendto(packet, wireguard.getsockname())
    stranger.sendto(DISCO, wireguard.getsockname())
    assert (await heard.next())[0] == DISCO
    assert heard.queue.empty()


async def test_another_port_is_not_ours(
    raw: RawPort, wireguard: socket.socket, stranger: socket.socket, heard: Heard, host: str
) -> None:
    with udp(host) as other:
        stranger.sendto(DISCO, other.getsockname())
        stranger.sendto(STUN_ANSWER, wireguard.getsockname())
        assert (await heard.next())[0] == STUN_ANSWER
        assert heard.queue.empty()


@pytest.mark.parametrize("size", [0, 1, 62, 1252, 1253])
async def test_packets_leave_from_wireguards_port_with_a_good_checksum(
    raw: RawPort, wireguard: socket.socket, stranger: socket.socket, size: int
) -> None:
    packet = os.urandom(size)
    assert raw.send(packet, stranger.getsockname()[:2])
    received, source = await asyncio.to_thread(stranger.recvfrom, 2048)
    assert (received, source[:2]) == (packet, wireguard.getsockname()[:2])


async def test_a_burst_is_drained(
    raw: RawPort, wireguard: socket.socket, stranger: socket.socket, heard: Heard
) -> None:
    packets = [DISCO + n.to_bytes(2, "big") for n in range(300)]
    for packet in packets:
        stranger.sendto(packet, wireguard.getsockname())
    assert [(await heard.next())[0] for _ in packets] == packets


async def test_what_cannot_be_sent_says_so(raw: RawPort, host: str) -> None:
    assert not raw.send(bytes(70_000), (host, 9))
    assert not raw.send(b"x", ("not an address", 9))
    raw.close()
    assert not raw.send(b"x", (host, 9))


async def test_without_the_capability_one_line_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("client.magicsock.rawport.socket.socket", refuse)
    with pytest.raises(SetupError, match="CAP_NET_RAW"):
        RawPort(5, mark=0, on_packet=Heard()).start()


async def test_a_host_without_ipv6_is_fine(monkeypatch: pytest.MonkeyPatch, heard: Heard) -> None:
    real = socket.socket

    def without_ipv6(family: socket.AddressFamily, *rest: int) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(97, "Address family not supported by protocol")
        return real(family, *rest)

    with udp("127.0.0.1") as wireguard, udp("127.0.0.1") as stranger:
        raw = RawPort(wireguard.getsockname()[1], mark=0, on_packet=heard)
        with monkeypatch.context() as patch:
            patch.setattr("client.magicsock.rawport.socket.socket", without_ipv6)
            raw.start()
        assert raw.send(b"x", stranger.getsockname())
        assert not raw.send(b"x", ("::1", stranger.getsockname()[1]))
        raw.close()
