"""The two carriers at their edges: kept-alive connections, leftover bytes, refusals, bounds on HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import secrets
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from controlplane.bounded_http import MAX_BODY_BYTES, MAX_HEAD_BYTES
from tests.controlplane.devices import CAPABILITY, read_head, server_key, upgrade_head
from tests.controlplane.serving import Serve, serving
from wire.keys import MachinePrivate, MachinePublic
from wire.session import ClientSession, EarlyPayload, ResponseStarted

PROBE = b"GET /healthz HTTP/1.1\r\nHost: proxy\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def key(server: Serve) -> MachinePublic:
    return server_key(server)


def new_session(key: MachinePublic) -> ClientSession:
    machine = MachinePrivate.generate(secrets.token_bytes(32))
    return ClientSession(machine, key, CAPABILITY, secrets.token_bytes(32))


@contextlib.asynccontextmanager
async def dial(server: Serve) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """An ordinary HTTP answer's status line and body."""
    head = await read_head(reader)
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
    return head.split(b"\r\n")[0], await reader.readexactly(int(lines.get(b"content-length", b"0")))


async def finish_handshake(session: ClientSession, reader: asyncio.StreamReader) -> list[object]:
    head = await read_head(reader)
    assert head.startswith(b"HTTP/1.1 101 "), head
    assert b"upgrade: tailscale-control-protocol\r\n" in head.lower()
    session.receive_handshake(await reader.readexactly(51))
    return list(session.receive_data(await reader.read(65536)))


async def is_served(
    session: ClientSession, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> bool:
    """Whether a request inside the session gets its answer."""
    session.request("POST", "/nothing", b"{}")
    writer.write(session.data_to_send())
    while data := await reader.read(65536):
        for event in session.receive_data(data):
            if isinstance(event, ResponseStarted):
                return event.status == 404
    return False


# --- carrier 1 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("requests_before", [0, 1, 5])
async def test_a_kept_alive_connection_upgrades_on_a_later_request(
    server: Serve, key: MachinePublic, requests_before: int
) -> None:
    session = new_session(key)
    async with dial(server) as (reader, writer):
        for _ in range(requests_before):
            writer.write(PROBE)
            assert await read_answer(reader) == (b"HTTP/1.1 200 OK", b'{"status": "ok"}')
        writer.write(upgrade_head(session.initiation()))
        events = await finish_handshake(session, reader)
        assert any(isinstance(event, EarlyPayload) for event in events)
        assert await is_served(session, reader, writer)


@pytest.mark.parametrize("cut", [1, 40, 200])
async def test_a_head_in_pieces_is_one_head(server: Serve, key: MachinePublic, cut: int) -> None:
    session = new_session(key)
    head = upgrade_head(session.initiation(), Content_Length="0")
    async with dial(server) as (reader, writer):
        for at in range(0, len(head), cut):
            writer.write(head[at : at + cut])
            await asyncio.sleep(0)
        await finish_handshake(session, reader)
        assert await is_served(session, reader, writer)


async def test_bytes_behind_the_head_belong_to_the_session(server: Serve, key: MachinePublic) -> None:
    """Nobody can know the keys yet, so what follows at once can only be wrong: the connection ends."""
    async with dial(server) as (reader, writer):
        writer.write(upgrade_head(new_session(key).initiation()) + b"\x04\x00\x14" + bytes(20))
        assert (await read_head(reader)).startswith(b"HTTP/1.1 101 ")
        async with asyncio.timeout(5):
            await reader.read()  # to its end


@pytest.mark.parametrize(
    "head",
    [
        b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"POST /ts2021 HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocketish\r\n"
        b"Content-Length: 0\r\n\r\n",
        upgrade_head(b""),
        upgrade_head(b"x" * 101),
        upgrade_head(b"x" * 5000),
        upgrade_head(bytes(101)).replace(b"AAAA", b"*\xff**", 1),
        upgrade_head(bytes(101)).replace(b"POST", b"PUT", 1),
        upgrade_head(bytes(101)).replace(b"/ts2021", b"/other", 1),
        b"junk\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_a_request_that_is_no_upgrade_is_refused_with_400(server: Serve, head: bytes) -> None:
    async with dial(server) as (reader, writer):
        writer.write(head)
        async with asyncio.timeout(10):
            assert (await reader.read(12))[:12] == b"HTTP/1.1 400"


async def test_an_upgrade_behind_an_unanswered_request_is_refused(server: Serve, key: MachinePublic) -> None:
    async with dial(server) as (reader, writer):
        writer.write(PROBE + upgrade_head(new_session(key).initiation()))
        async with asyncio.timeout(10):
            answer = await reader.read(65536)
        assert b" 101 " not in answer


async def test_the_host_header_means_nothing(server: Serve, key: MachinePublic) -> None:
    session = new_session(key)
    async with dial(server) as (reader, writer):
        writer.write(upgrade_head(session.initiation(), host="evil.example:99"))
        await finish_handshake(session, reader)


# --- bounds on plain HTTP --------------------------------------------------------------------------------


async def test_a_head_without_end_is_cut_off(server: Serve) -> None:
    async with dial(server) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\n")
        line = b"x-filler: " + b"y" * 4000 + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(2 * MAX_HEAD_BYTES // len(line)):
                writer.write(line)
                await writer.drain()
        answer = b""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(10):
                answer = await reader.read()
        assert not answer or answer.startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_over_the_bound_is_refused(server: Serve, chunked: bool) -> None:
    size = MAX_BODY_BYTES + 1_000_000
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
    async with dial(server) as (reader, writer):
        writer.write(b"POST /sign-in HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
        piece = bytes(65536)
        sent = 0
        with contextlib.suppress(OSError):
            while sent < size:
                writer.write(b"%x\r\n" % len(piece) + piece + b"\r\n" if chunked else piece)
                await writer.drain()
                sent += len(piece)
        with contextlib.suppress(OSError):
            async with asyncio.timeout(10):
                answer = await reader.read()
            assert not answer or answer.split(b" ")[1] in (b"413", b"403", b"405")
    assert await alive(server)


async def alive(server: Serve) -> bool:
    async with dial(server) as (reader, writer):
        writer.write(PROBE)
        return (await read_answer(reader))[0] == b"HTTP/1.1 200 OK"


# --- carrier 2 -------------------------------------------------------------------------------------------


def socket_url(server: Serve, initiation: bytes | str) -> str:
    text = base64.b64encode(initiation).decode() if isinstance(initiation, bytes) else initiation
    return f"ws://127.0.0.1:{server.port}/ts2021?X-Tailscale-Handshake={urllib.parse.quote(text, safe='')}"


@pytest.mark.parametrize("initiation", [b"", b"x" * 101, "***", "\x80é", "%00"])
async def test_a_websocket_without_an_initiation_is_refused(server: Serve, initiation: bytes | str) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        await connect(socket_url(server, initiation), compression=None)
    assert refusal.value.response.status_code == 403


async def test_a_websocket_is_taken_from_any_origin_and_without_the_subprotocol(
    server: Serve, key: MachinePublic
) -> None:
    session = new_session(key)
    url = socket_url(server, session.initiation())
    async with connect(url, compression=None, origin="https://evil.example") as socket:  # type: ignore[arg-type]
        assert socket.subprotocol is None
        first = await socket.recv()
        assert isinstance(first, bytes)
        session.receive_handshake(first[:51])


async def test_a_text_message_ends_the_connection(server: Serve, key: MachinePublic) -> None:
    session = new_session(key)
    async with connect(socket_url(server, session.initiation()), compression=None) as socket:
        await socket.recv()
        await socket.send("hello")
        async with asyncio.timeout(5):
            await socket.wait_closed()
        with pytest.raises(ConnectionClosed):
            await socket.send(b"more")


async def test_compression_is_never_agreed_to(server: Serve, key: MachinePublic) -> None:
    url = socket_url(server, new_session(key).initiation())
    async with connect(url, compression="deflate") as socket:
        assert socket.response is not None
        assert "Sec-WebSocket-Extensions" not in socket.response.headers


# --- /key ------------------------------------------------------------------------------------------------


def fetch(server: Serve, path: str) -> tuple[int, bytes, str]:
    try:
        with urllib.request.urlopen(server.url + path, timeout=10) as answer:
            return answer.status, answer.read(), answer.headers.get("X-Tailscale-Response", "")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(), ""


def test_the_key_has_both_members(server: Serve) -> None:
    status, body, _ = fetch(server, "/key?v=130")
    content = json.loads(body)
    assert (status, set(content)) == (200, {"legacyPublicKey", "publicKey"})
    assert content["legacyPublicKey"] == "mkey:" + "0" * 64
    assert not MachinePublic.parse(content["publicKey"]).is_zero


@pytest.mark.parametrize("path", ["/key", "/key?v=", "/key?v=x", "/ts2021"])
def test_a_request_without_what_it_needs_is_400(server: Serve, path: str) -> None:
    assert fetch(server, path)[0] == 400


def test_the_captive_portal_probe_answers_a_challenge(server: Serve) -> None:
    request = urllib.request.Request(
        server.url + "/generate_204", headers={"X-Tailscale-Challenge": "ts_1.example"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 204
        assert answer.headers["X-Tailscale-Response"] == "response ts_1.example"
    assert fetch(server, "/generate_204")[::2] == (204, "")
