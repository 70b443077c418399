"""STUN over real sockets."""

from __future__ import annotations

import asyncio
import socket

import pytest

from relay.config import ConfigProblem, Endpoint
from relay.stun import StunServer, bind_second, bind_stun
from tests.relay.conftest import StartRelay
from wire.stun import binding_request, parse_response

TXID = b"transaction!"


async def ask(sock: socket.socket, port: int, packet: bytes, host: str = "127.0.0.1") -> tuple[bytes, str]:
    loop = asyncio.get_running_loop()
    sock.setblocking(False)
    await loop.sock_sendto(sock, packet, (host, port))
    async with asyncio.timeout(5):
        answer, source = await loop.sock_recvfrom(sock, 1500)
    return answer, str(source[0])


@pytest.mark.parametrize(
    ("family", "listen", "host"),
    [
        (socket.AF_INET, "127.0.0.1", "127.0.0.1"),
        (socket.AF_INET, "0.0.0.0", "127.0.0.2"),
        (socket.AF_INET6, "::1", "::1"),
        (socket.AF_INET6, "::", "::1"),
        (socket.AF_INET, "::", "127.0.0.3"),
    ],
)
async def test_the_answer_tells_the_sender_and_comes_from_the_asked_address(
    family: socket.AddressFamily, listen: str, host: str
) -> None:
    try:
        bound = bind_stun(Endpoint(listen, 0))
    except ConfigProblem:
        pytest.skip("this machine has no IPv6")
    server = StunServer(asyncio.get_running_loop(), bound)
    with socket.socket(family, socket.SOCK_DGRAM) as client:
        client.bind((("127.0.0.1" if family == socket.AF_INET else "::1"), 0))
        answer, source = await ask(client, server.port, binding_request(TXID), host)
        response = parse_response(answer)
        assert response.txid == TXID
        assert response.address == client.getsockname()[:2]
        assert source == host
    assert server.answered == 1
    server.close()


async def test_anything_else_gets_silence() -> None:
    server = StunServer(asyncio.get_running_loop(), bind_stun(Endpoint("127.0.0.1", 0)))
    good = binding_request(TXID)
    bad = [b"", b"x", good[:-1], good + b"\0", good[:-4] + b"\0\0\0\0", b"\x01\x01" + good[2:], bytes(1400)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for packet in bad:
            client.sendto(packet, ("127.0.0.1", server.port))
        answer, _ = await ask(client, server.port, good)
        assert parse_response(answer).txid == TXID
    assert server.ignored == len(bad)
    server.close()


async def test_many_at_once() -> None:
    server = StunServer(asyncio.get_running_loop(), bind_stun(Endpoint("127.0.0.1", 0)))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        for number in range(150):
            client.sendto(binding_request(number.to_bytes(12, "big")), ("127.0.0.1", server.port))
        await asyncio.sleep(0)
        client.setblocking(False)
        async with asyncio.timeout(5):
            for number in range(150):
                answer = await asyncio.get_running_loop().sock_recv(client, 1500)
                assert parse_response(answer).txid == number.to_bytes(12, "big")
    server.close()


def test_a_taken_port_is_one_line() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigProblem, match="TRENZA_RELAY_STUN"):
            bind_stun(Endpoint("127.0.0.1", taken.getsockname()[1]))


async def test_the_relay_also_answers_at_derps_port_number(start_relay: StartRelay) -> None:
    relay = await start_relay(stun=Endpoint("127.0.0.1", 0))
    if relay.stun_again is None:
        pytest.skip("the UDP port of DERP's number is in use")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.bind(("127.0.0.1", 0))
        answer, _ = await ask(client, relay.derp_port, binding_request(TXID))
        assert parse_response(answer).address == client.getsockname()
    assert relay.metrics()["stun_answered_total"] == 1


async def test_without_that_port_one_must_do() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        assert bind_second(Endpoint("127.0.0.1", 3478), port) is None
        assert bind_second(Endpoint("127.0.0.1", port), port) is None
