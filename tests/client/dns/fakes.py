"""Other people's DNS servers on loopback: they answer what they are told, and count what they hear."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import dns.message
import dns.rcode
import dns.rrset

from client.dns.config import Upstream

Reply = Callable[[bytes], "bytes | None"]


def saying(address: str, *, count: int = 1) -> Reply:
    """Answers every question with this address (and the next ones)."""

    def reply(query: bytes) -> bytes:
        message = dns.message.from_wire(query)
        answer = dns.message.make_response(message)
        first, last = address.rsplit(".", 1)
        texts = [f"{first}.{int(last) + number}" for number in range(count)]
        name = message.question[0].name
        answer.answer.append(dns.rrset.from_text_list(name, 60, "IN", "A", texts))
        return answer.to_wire()

    return reply


def refusing(rcode: dns.rcode.Rcode) -> Reply:
    def reply(query: bytes) -> bytes:
        answer = dns.message.make_response(dns.message.from_wire(query))
        answer.set_rcode(rcode)
        return answer.to_wire()

    return reply


def silent(query: bytes) -> None:
    return None


@dataclass
class FakeServer:
    """UDP and TCP on one port of 127.0.0.1. A reply over UDP longer than 512 bytes is cut."""

    reply: Reply
    port: int = 0
    udp: list[bytes] = field(default_factory=list)
    tcp: list[bytes] = field(default_factory=list)

    @property
    def upstream(self) -> Upstream:
        return Upstream("127.0.0.1", self.port)

    async def serve_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            query = await reader.readexactly(int.from_bytes(await reader.readexactly(2)))
            self.tcp.append(query)
            if (answer := self.reply(query)) is not None:
                writer.write(len(answer).to_bytes(2) + answer)
                await writer.drain()
        writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: FakeServer) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, addr: object) -> None:
        self.server.udp.append(data)
        answer = self.server.reply(data)
        if answer is not None and len(answer) > 512:
            short = dns.message.make_response(dns.message.from_wire(data))
            short.flags |= dns.flags.TC
            answer = short.to_wire()
        if answer is not None:
            self.transport.sendto(answer, addr)  # type: ignore[attr-defined]


@contextlib.asynccontextmanager
async def serving(reply: Reply) -> AsyncIterator[FakeServer]:
    server = FakeServer(reply)
    stream = await asyncio.start_server(server.serve_stream, "127.0.0.1", 0)
    server.port = stream.sockets[0].getsockname()[1]
    loop = asyncio.get_running_loop()
    datagrams, _ = await loop.create_datagram_endpoint(
        lambda: _Udp(server), local_addr=("127.0.0.1", server.port)
    )
    try:
        yield server
    finally:
        datagrams.close()
        stream.close()
        await asyncio.sleep(0)


def addresses(answer: bytes) -> list[str]:
    return [record.to_text() for rrset in dns.message.from_wire(answer).answer for record in rrset]
