"""What a new connection may say: HTTP, TLS, fast start, WebSocket, DERP's handshake and its bounds."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
import struct

import pytest
from cryptography import x509
from websockets.asyncio.client import connect as websocket_connect

from relay.config import Endpoint
from relay.http import parse_request, response
from relay.limits import MAX_HTTP_HEAD_BYTES, MAX_REQUESTS_PER_CONNECTION
from relay.metrics import may_read
from relay.server import Relay
from tests.relay.conftest import Connect, StartRelay
from tests.relay.peer import (
    FAST_START,
    PATIENCE,
    UPGRADE,
    Peer,
    Refused,
    WebSocketPeer,
    any_certificate,
    http,
    new_key,
)
from wire.derp import (
    ClientInfo,
    FrameDecoder,
    FrameType,
    client_info_frame,
    parse_server_key,
    send_packet_frame,
)
from wire.errors import FrameError
from wire.keys import NodePublic

CHALLENGE = b"GET /generate_204 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Tailscale-Challenge: %s\r\n\r\n"


def get(path: str, method: str = "GET", close: bool = True) -> bytes:
    connection = "close" if close else "keep-alive"
    return f"{method} {path} HTTP/1.1\r\nHost: 192.0.2.7\r\nConnection: {connection}\r\n\r\n".encode()


# --- plain HTTP ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/derp/probe", "/derp/latency-check"])
async def test_probes(relay: Relay, path: str) -> None:
    for method in ("GET", "HEAD"):
        answer = await http(relay.derp_port, get(path, method))
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Access-Control-Allow-Origin: *\r\n" in answer
    assert (await http(relay.derp_port, get(path, "POST"))).startswith(b"HTTP/1.1 405 ")


async def test_generate_204(relay: Relay) -> None:
    answer = await http(relay.derp_port, CHALLENGE % b"ts_derp.example:1-2")
    assert answer.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert b"X-Tailscale-Response: response ts_derp.example:1-2\r\n" in answer
    for bad in (b"a b", b"x" * 65, b"<script>", b""):
        assert b"X-Tailscale-Response" not in await http(relay.derp_port, CHALLENGE % bad)


async def test_health_metrics_and_strangers(relay: Relay, connect: Connect) -> None:
    await connect()
    assert (await http(relay.derp_port, get("/healthz"))).endswith(b"\r\n\r\nok\n")
    metrics = (await http(relay.derp_port, get("/metrics"))).decode()
    assert "# TYPE trenza_relay_clients gauge\ntrenza_relay_clients 1\n" in metrics
    assert "text/plain; version=0.0.4" in metrics
    assert (await http(relay.derp_port, get("/"))).startswith(b"HTTP/1.1 200 ")
    assert (await http(relay.derp_port, get("/nothing"))).startswith(b"HTTP/1.1 404 ")
    assert (await http(relay.derp_port, get("/metrics", "DELETE"))).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize("header", ["X-Forwarded-For: 192.0.2.9", "Forwarded: for=192.0.2.9", "via: 1.1 a"])
async def test_metrics_are_not_passed_on_by_a_proxy(relay: Relay, header: str) -> None:
    asked = get("/metrics").replace(b"Host:", header.encode() + b"\r\nHost:")
    assert (await http(relay.derp_port, asked)).startswith(b"HTTP/1.1 404 ")


async def test_metrics_by_a_token_only(start_relay: StartRelay) -> None:
    relay = await start_relay("metrics", metrics_token="open sesame")
    for header, status in (("", b"404"), ("Bearer open", b"404"), ("Bearer open sesame", b"200")):
        asked = get("/metrics").replace(b"Host:", b"Authorization: " + header.encode() + b"\r\nHost:")
        assert (await http(relay.derp_port, asked)).startswith(b"HTTP/1.1 " + status), header


def test_metrics_are_shown_on_the_relays_host_only() -> None:
    assert may_read("127.0.0.1", {}, "")
    assert may_read("::1", {}, "")
    assert not may_read("192.0.2.9", {}, "")
    assert not may_read("2001:db8::1", {}, "")
    assert not may_read("127.0.0.1", {}, "token")
    assert may_read("192.0.2.9", {"authorization": "Bearer token"}, "token")


async def test_head_has_the_length_and_no_body(relay: Relay) -> None:
    head, _, body = (await http(relay.derp_port, get("/healthz", "HEAD"))).partition(b"\r\n\r\n")
    assert b"Content-Length: 3" in head
    assert body == b""


async def test_requests_share_a_connection(relay: Relay) -> None:
    two = get("/derp/latency-check", close=False) + get("/derp/latency-check")
    assert (await http(relay.derp_port, two)).count(b"HTTP/1.1 200 OK") == 2


async def test_requests_on_one_connection_are_bounded(relay: Relay) -> None:
    answer = await http(relay.derp_port, get("/healthz", close=False) * (MAX_REQUESTS_PER_CONNECTION + 9))
    assert answer.count(b"HTTP/1.1 200 OK") == MAX_REQUESTS_PER_CONNECTION


async def test_a_body_ends_the_connection(relay: Relay) -> None:
    request = b"POST /derp/probe HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    assert b"Connection: close" in await http(relay.derp_port, request)


async def test_derp_without_upgrade_is_426(relay: Relay) -> None:
    answer = await http(relay.derp_port, get("/derp"))
    assert answer.startswith(b"HTTP/1.1 426 ")
    answer = await http(relay.derp_port, get("/derp")[:-2] + b"Upgrade: h2c\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 426 ")


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00" + bytes(600),
        b"GET /derp\r\n\r\n",
        b"GET / SMTP/1.0\r\n\r\n",
        b"GET / HTTP/1.1\r\nbroken header\r\n\r\n",
        b"GET / HTTP/1.1\r\n folded: x\r\n\r\n",
        b"x" * (MAX_HTTP_HEAD_BYTES + 9),
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 4000 + b"\r\n",
    ],
)
async def test_garbage_is_closed_and_a_good_client_is_served(
    relay: Relay, connect: Connect, garbage: bytes
) -> None:
    async with asyncio.timeout(PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.derp_port)
        writer.write(garbage)
        if garbage.startswith(b"\x16"):
            writer.write_eof()
        with contextlib.suppress(ConnectionError):  # closed with our bytes unread
            assert await reader.read(-1) == b""
        writer.transport.abort()
    await (await connect()).reaches(await connect())


# --- upgrades --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "request_head",
    [
        UPGRADE,
        UPGRADE.replace(b"DERP", b"derp"),
        UPGRADE.replace(b"GET", b"POST").replace(b"Host: relay", b"Host: 203.0.113.9"),
        UPGRADE.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\nIdeal-Node: 900a\r\n\r\n"),
        UPGRADE.replace(b"/derp", b"http://elsewhere.example/derp?x=1"),
        get("/derp/probe", close=False) + UPGRADE,
    ],
)
async def test_derp_upgrade(relay: Relay, request_head: bytes) -> None:
    peer = Peer(relay.derp_port)
    await peer.dial()
    peer.send(request_head)
    async with asyncio.timeout(PATIENCE):
        head = b""
        while b" 101 " not in head:
            head = await peer.reader.readuntil(b"\r\n\r\n")
        assert b"\r\nUpgrade: DERP\r\nConnection: Upgrade\r\nDerp-Version: 2\r\n" in head
        assert f"Derp-Public-Key: {relay.key.public().hex}\r\n".encode() in head
        await peer.shake_hands()
    peer.leave()


async def test_fast_start_sends_no_http(relay: Relay, connect: Connect) -> None:
    """Request, ClientInfo and the first packet in one flush, before the relay has said anything."""
    bob, key = await connect(), new_key()
    peer = Peer(relay.derp_port, key=key)
    await peer.dial()
    hello = client_info_frame(key, relay.key.public(), bytes(24), ClientInfo(can_ack_pings=True))
    peer.send(FAST_START + hello + send_packet_frame(bob.public, b"early"))
    kind, payload = await peer.frame()
    assert kind == FrameType.SERVER_KEY
    assert parse_server_key(payload) == relay.key.public()
    assert (await peer.frame())[0] == FrameType.SERVER_INFO
    assert await bob.packet() == (key.public(), b"early")
    peer.leave()


async def test_websocket(connect: Connect) -> None:
    web, plain = await connect(WebSocketPeer), await connect()
    await web.reaches(plain, b"x" * 60_000)
    await plain.reaches(web, b"y" * 60_000)
    for cut in (1, 4, 5, 36, 37, 38, 41):
        frame = send_packet_frame(plain.public, b"data")
        web.send(frame[:cut])
        web.send(frame[cut:])
        assert await plain.packet() == (web.public, b"data")


async def test_a_websocket_message_of_many_frames(connect: Connect) -> None:
    web, plain = await connect(WebSocketPeer), await connect()
    web.send(send_packet_frame(plain.public, b"z" * 1000) * 150)
    for _ in range(150):
        assert await plain.packet() == (web.public, b"z" * 1000)


async def test_websocket_pings_are_answered_and_are_no_data(connect: Connect) -> None:
    web, plain = await connect(WebSocketPeer), await connect()
    assert isinstance(web, WebSocketPeer)
    web.ws.send_ping(send_packet_frame(plain.public, b"not data"))
    web.flush()
    await web.reaches(plain, b"data")
    await plain.reaches(web)


async def test_an_oversized_websocket_message_closes(connect: Connect) -> None:
    web, plain = await connect(WebSocketPeer), await connect()
    web.send(bytes(2 * 1024 * 1024))
    assert await web.closed()
    await plain.reaches(plain)


async def test_websockets_library_by_tls_and_any_origin(start_relay: StartRelay) -> None:
    relay = await start_relay("tls", tls=True, hosts=("127.0.0.1",))
    async with websocket_connect(
        f"wss://127.0.0.1:{relay.derp_port}/derp",
        ssl=any_certificate(),
        subprotocols=["derp"],  # type: ignore[list-item]
        origin="https://anywhere.example",  # type: ignore[arg-type]
        proxy=None,
    ) as socket:
        message = await socket.recv()
        assert isinstance(message, bytes)
        ((_kind, payload),) = FrameDecoder().receive(message)
        assert parse_server_key(payload) == relay.key.public()
        assert "permessage-deflate" not in socket.response.headers.get("Sec-WebSocket-Extensions", "")  # type: ignore[union-attr]


# --- TLS -------------------------------------------------------------------------------------------------


async def peer_chain(port: int, server_name: str | None = None, **options: ssl.TLSVersion) -> list[bytes]:
    """The certificates (DER) that the relay presents, in order."""
    context = any_certificate()
    for name, value in options.items():
        setattr(context, name, value)
    process = await asyncio.create_subprocess_exec(
        "openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-showcerts",
        *(["-servername", server_name] if server_name else ["-noservername"]),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    output, _ = await process.communicate()
    blocks = output.decode(errors="replace").split("-----BEGIN CERTIFICATE-----")[1:]
    ends = "-----END CERTIFICATE-----"
    return [
        ssl.PEM_cert_to_DER_cert(f"-----BEGIN CERTIFICATE-----{block.split(ends)[0]}{ends}")
        for block in blocks[: blocks.index(blocks[-1]) + 1]
    ]


@pytest.mark.filterwarnings("ignore:Attribute's length")  # the meta certificate's name
async def test_tls_presents_the_pinned_certificate_and_the_meta_certificate(start_relay: StartRelay) -> None:
    relay = await start_relay("tls", tls=True, hosts=("relay.example", "192.0.2.1", "2001:db8::1"))
    for server_name in (None, "relay.example", "other.example"):
        chain = await peer_chain(relay.derp_port, server_name)
        real, meta = chain[0], x509.load_der_x509_certificate(chain[1])
        assert len({bytes(one) for one in chain}) == 2
        assert hashlib.sha256(real).hexdigest() == relay.fingerprint
        assert meta.subject.rfc4514_string() == f"CN=derpkey{relay.key.public().hex}"
        assert meta.serial_number == 2


async def test_derp_over_tls(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("tls", tls=True, hosts=("127.0.0.1",))
    secure = any_certificate()
    alice = await connect(to=relay, tls=secure)
    bob = await connect(to=relay, tls=secure, fast=True)
    for size in (0, 1, 16_000, 65_536):
        await alice.reaches(bob, bytes([size % 251]) * size)
    for number in range(2000):
        alice.send_to(bob, number.to_bytes(4, "big") * 300)
    for number in range(2000):
        assert await bob.packet() == (alice.public, number.to_bytes(4, "big") * 300)


async def test_tls_1_2_is_the_oldest(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("tls", tls=True)
    twelve = any_certificate()
    twelve.maximum_version = ssl.TLSVersion.TLSv1_2
    await (await connect(to=relay, tls=twelve)).settle()
    assert relay._greeter.context is not None
    assert relay._greeter.context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_client_that_breaks_tls_is_closed(start_relay: StartRelay, connect: Connect) -> None:
    relay = await start_relay("tls", tls=True)
    secure = any_certificate()
    alice, bob, mallory = [await connect(to=relay, tls=secure) for _ in range(3)]
    raw = mallory.writer.transport.get_extra_info("socket")
    raw._sock.send(b"\x17\x03\x03\x00\x20" + bytes(32))
    assert await mallory.closed()
    await alice.reaches(bob)


async def test_last_words_before_a_tls_goodbye_are_delivered(
    start_relay: StartRelay, connect: Connect
) -> None:
    relay = await start_relay("tls", tls=True)
    secure = any_certificate()
    alice, bob = await connect(to=relay, tls=secure), await connect(to=relay, tls=secure)
    alice.send_to(bob, b"bye")
    alice.writer.close()
    assert await bob.packet() == (alice.public, b"bye")


# --- DERP's handshake ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hello",
    [
        pytest.param(struct.pack(">BI", 4, 40) + bytes(40), id="a packet before ClientInfo"),
        pytest.param(struct.pack(">BI", 2, 10) + bytes(10), id="too short"),
        pytest.param(struct.pack(">BI", 2, 256 * 1024 + 1), id="too long"),
        pytest.param(struct.pack(">BI", 2, 112) + bytes(112), id="the zero key"),
        pytest.param(struct.pack(">BI", 2, 112) + b"\x09" * 112, id="a box that does not open"),
    ],
)
async def test_a_bad_hello_is_closed_silently(relay: Relay, hello: bytes) -> None:
    answer = await http(relay.derp_port, FAST_START + hello)
    assert [kind for kind, _ in FrameDecoder().receive(answer)] == [FrameType.SERVER_KEY]
    assert relay.switch.counters.failed_handshakes == 1


async def test_a_large_hello_is_accepted(relay: Relay) -> None:
    key = new_key()
    info = ClientInfo(app_name="x")
    sealed = key.seal_to(relay.key.public(), bytes(24), b'{"version":2,"AppName":"%s"}' % (b"y" * 200_000))
    assert info.version == 2
    hello = struct.pack(">BI", 2, 32 + len(sealed)) + key.public().raw + sealed
    peer = Peer(relay.derp_port, key=key)
    await peer.dial()
    peer.send(FAST_START + hello)
    assert [(await peer.frame())[0] for _ in range(2)] == [FrameType.SERVER_KEY, FrameType.SERVER_INFO]
    peer.leave()


async def test_each_step_has_a_deadline(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.handshake.HANDSHAKE_SECONDS", 0.05)
    relay = await start_relay("hasty")
    for silent in (b"", b"GET /derp HT", FAST_START, FAST_START + struct.pack(">BI", 2, 100) + b"half"):
        await http(relay.derp_port, silent)  # returns when the relay closes
    assert relay.switch.counters.failed_handshakes == 4


async def test_handshakes_are_bounded(start_relay: StartRelay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.server.MAX_HANDSHAKES", 5)
    monkeypatch.setattr("relay.server.OUT_OF_FILES_SECONDS", 0.05)
    monkeypatch.setattr("relay.handshake.HANDSHAKE_SECONDS", 0.3)
    relay = await start_relay("small")
    silent = [await asyncio.open_connection("127.0.0.1", relay.derp_port) for _ in range(12)]
    good = await Peer(relay.derp_port).connect()  # waits in the backlog until the silent ones ran out of time
    await good.settle()
    assert len(relay._greetings) <= 5
    for _, writer in silent:
        writer.transport.abort()
    good.leave()


async def test_a_wrong_key_in_the_box_is_refused(relay: Relay) -> None:
    peer = Peer(relay.derp_port, key=new_key())
    await peer.dial()
    peer.send(FAST_START + client_info_frame(peer.key, new_key().public(), bytes(24), ClientInfo()))
    await peer.frame()
    with pytest.raises(Refused):
        await peer.frame(refusable=True)
    peer.leave()


# --- the HTTP parser alone -------------------------------------------------------------------------------


def test_a_head_may_be_cut_anywhere() -> None:
    whole = UPGRADE + b"rest"
    for cut in range(len(UPGRADE)):
        assert parse_request(whole[:cut]) is None
    parsed = parse_request(whole)
    assert parsed is not None
    request, rest = parsed
    assert (request.method, request.path, request.http11, rest) == ("GET", "/derp", True, b"rest")
    assert request.headers["upgrade"] == "DERP"


def test_keep_alive_follows_the_version() -> None:
    def parsed(head: bytes) -> bool:
        result = parse_request(head + b"\r\n\r\n")
        assert result is not None
        return result[0].keeps_alive

    assert parsed(b"GET / HTTP/1.1")
    assert not parsed(b"GET / HTTP/1.1\r\nConnection: Close")
    assert not parsed(b"GET / HTTP/1.0")
    assert parsed(b"GET / HTTP/1.0\r\nConnection: keep-alive")
    assert not parsed(b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked")


def test_an_endless_head_is_refused() -> None:
    with pytest.raises(FrameError):
        parse_request(b"G" * (MAX_HTTP_HEAD_BYTES + 1))


def test_responses_are_framed() -> None:
    from http import HTTPStatus

    answer = response(HTTPStatus.OK, body=b"abc", keep_alive=True)
    assert answer == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc"
    assert b"Content-Length" not in response(HTTPStatus.NO_CONTENT)


def test_endpoint_text() -> None:
    assert str(Endpoint.parse("[::1]:443", "X")) == "[::1]:443"
    assert NodePublic.zero().is_zero
