"""UDP ASSOCIATE, as RFC 1928 §7 has it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.prefixes import IPAddress
from client.proxy import associate
from client.proxy.associate import unwrap, wrapped
from client.proxy.socks import Reply
from client.proxy.splice import Streams
from tests.client.proxy.scene import PEER, Elsewhere, client, proxy

GREETING = b"\x05\x01\x00"
SECONDS = 10.0
HERE = ipaddress.ip_address("127.0.0.1")
LITTLE = 0.3  # in which a datagram on loopback would have come


def named(host: str, port: int, data: bytes, *, fragment: int = 0) -> bytes:
    return bytes([0, 0, fragment, 3, len(host)]) + host.encode() + port.to_bytes(2) + data


class Program:
    """A UDP socket on loopback that talks to ``proxy``."""

    def __init__(self, port: int, *, bind: str = "127.0.0.1") -> None:
        self.proxy = ("127.0.0.1", port)
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.setblocking(False)
        self.sock.bind((bind, 0))
        self.port = int(self.sock.getsockname()[1])

    def send(self, datagram: bytes) -> None:
        self.sock.sendto(datagram, self.proxy)

    async def receive(self, seconds: float = SECONDS) -> tuple[str, int, bytes]:
        async with asyncio.timeout(seconds):
            datagram = await asyncio.get_running_loop().sock_recv(self.sock, 65535)
        found = unwrap(datagram)
        assert found is not None
        return found


class _Echo(asyncio.DatagramProtocol):
    """Sends back what comes, and remembers from where."""

    def __init__(self) -> None:
        self.sources: list[tuple[str, int]] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.sources.append(addr[:2])
        self.transport.sendto(b"echo " + data, addr)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def echoing(host: str = "127.0.0.1") -> AsyncIterator[tuple[int, _Echo]]:
    made = _Echo()
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: made, local_addr=(host, 0)
    )
    try:
        yield transport.get_extra_info("sockname")[1], made
    finally:
        transport.close()


async def associated(streams: Streams, port: int = 0) -> int:
    """Ask for an association; gives the port to send to."""
    reader, writer = streams
    writer.write(GREETING + bytes([5, 3, 0, 1, 0, 0, 0, 0]) + port.to_bytes(2))
    assert await reader.readexactly(2) == b"\x05\x00"
    answer = await reader.readexactly(10)
    assert answer[:4] == bytes([5, Reply.DONE, 0, 1])
    assert answer[4:8] == HERE.packed
    return int.from_bytes(answer[8:])


@contextlib.asynccontextmanager
async def association(tunnel: Elsewhere | None = None) -> AsyncIterator[Program]:
    async with proxy(tunnel) as port, client(port) as streams:
        program = Program(await associated(streams))
        with program.sock:
            yield program


async def test_datagrams_go_and_come_by_address_and_by_name() -> None:
    async with echoing() as (port, heard), association() as program:
        program.send(wrapped(HERE, port, b"one"))
        assert await program.receive() == ("127.0.0.1", port, b"echo one")
        program.send(named("localhost", port, b"two"))
        assert await program.receive() == ("127.0.0.1", port, b"echo two")
        program.send(wrapped(HERE, port, b""))
        assert await program.receive() == ("127.0.0.1", port, b"echo ")
    assert len(set(heard.sources)) == 1  # all see one port


async def test_the_tailnets_names_lead_into_the_tunnel() -> None:
    tunnel = Elsewhere()
    async with echoing() as (port, _), association(tunnel) as program:
        for datagram in (
            named("ben", port, b"1"),
            named("BEN.tail.example", port, b"1"),
            wrapped(PEER, port, b"1"),
        ):
            program.send(datagram)
            assert await program.receive() == (str(PEER), port, b"echo 1")
    assert tunnel.opened == 1


async def until(condition: object) -> None:
    async with asyncio.timeout(SECONDS):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - sockets have no event here
            await asyncio.sleep(0.01)


async def test_what_is_tunnelled_no_longer_is_not_sent_by_the_old_way() -> None:
    """An exit node that is set leaves no socket of the host in use."""

    class Changing(Elsewhere):
        everything = False

        def leads_to(self, address: IPAddress, /) -> bool:
            return self.everything

    tunnel = Changing()
    async with echoing() as (port, heard), association(tunnel) as program:
        program.send(wrapped(HERE, port, b"outside"))
        await program.receive()
        tunnel.everything = True
        program.send(wrapped(HERE, port, b"inside"))
        await until(lambda: len(heard.sources) == 2)
    assert tunnel.opened == 1
    assert len(set(heard.sources)) == 2


async def test_strangers_are_not_let_in_and_not_served() -> None:
    async with echoing() as (port, heard), association() as program:
        program.send(wrapped(HERE, port, b"first"))
        await program.receive()
        outer = heard.sources[0]
        for bind in ("127.0.0.1", "127.0.0.9"):
            stranger = Program(program.proxy[1], bind=bind)
            with stranger.sock:
                stranger.send(wrapped(HERE, port, b"mine"))  # an association is one program's
                stranger.sock.sendto(b"hello", outer)  # to whom it did not send
        program.send(wrapped(HERE, port, b"last"))
        assert (await program.receive())[2] == b"echo last"
        assert len(heard.sources) == 2


async def test_only_the_port_that_was_told_is_served() -> None:
    async with echoing() as (port, heard), proxy() as at, client(at) as streams:
        told, other = Program(0), Program(0)
        with told.sock, other.sock:
            told.proxy = other.proxy = ("127.0.0.1", await associated(streams, told.port))
            other.send(wrapped(HERE, port, b"other"))
            told.send(wrapped(HERE, port, b"told"))
            assert (await told.receive())[2] == b"echo told"
            assert len(heard.sources) == 1


async def test_fragments_and_rubbish_are_dropped() -> None:
    async with echoing() as (port, heard), association() as program:
        whole = named("localhost", port, b"piece")
        for datagram in (named("localhost", port, b"piece", fragment=1), b"", whole[:-6], b"\0\0\0\x09" * 9):
            program.send(datagram)
        program.send(named("nobody.invalid", port, b"lost"))
        program.send(whole)
        assert (await program.receive())[2] == b"echo piece"
        assert len(heard.sources) == 1


async def test_it_ends_with_its_connection() -> None:
    async with proxy() as at:
        async with client(at) as streams:
            program = Program(await associated(streams))
        with program.sock:
            program.sock.connect(program.proxy)

            def is_closed() -> bool:
                try:
                    program.sock.send(b"anybody?")
                except ConnectionRefusedError:
                    return True
                return False

            await until(is_closed)


async def test_it_ends_when_nothing_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associate, "IDLE_SECONDS", 0.2)
    async with proxy() as at, client(at) as streams:
        await associated(streams)
        async with asyncio.timeout(SECONDS):
            assert await streams[0].read(-1) == b""


async def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associate, "MAX_ASSOCIATIONS", 1)
    async with proxy() as at:
        async with client(at) as first, client(at) as (reader, writer):
            await associated(first)
            writer.write(GREETING + bytes([5, 3, 0, 1, 0, 0, 0, 0, 0, 0]))
            assert (await reader.readexactly(12))[2:4] == bytes([5, Reply.FAILED])

        async def is_free() -> bool:
            async with client(at) as (reader, writer):
                writer.write(GREETING + bytes([5, 3, 0, 1, 0, 0, 0, 0, 0, 0]))
                return (await reader.readexactly(12))[3] == Reply.DONE

        async with asyncio.timeout(SECONDS):
            while not await is_free():
                pass


async def test_whom_it_spoke_to_last_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(associate, "MAX_PARTNERS", 2)
    async with (
        echoing() as (one, heard),
        echoing() as (two, _),
        echoing() as (three, _),
        association() as program,
    ):
        for port in (one, two, three):
            program.send(wrapped(HERE, port, b"hello"))
            assert (await program.receive())[1] == port
        heard.transport.sendto(b"too late", heard.sources[0])  # type: ignore[attr-defined]
        with pytest.raises(TimeoutError):
            await program.receive(LITTLE)
        program.send(wrapped(HERE, one, b"again"))
        assert (await program.receive())[2] == b"echo again"


@given(st.ip_addresses(), st.integers(1, 65535), st.binary(max_size=50))
def test_parsing_inverts_wrapping(address: IPAddress, port: int, data: bytes) -> None:
    datagram = wrapped(address, port, data)
    assert unwrap(datagram) == (str(address), port, data)
    assert unwrap(datagram[: len(datagram) - len(data) - 1]) is None


@given(st.binary(max_size=80))
def test_any_bytes_are_a_datagram_or_none(data: bytes) -> None:
    unwrap(data)
    unwrap(b"\0\0\0\x03" + data)
