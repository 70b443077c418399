"""A control session against a server in memory: what it asks, and how it ends when the server misbehaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

import client.control.link as link_module
from client.control.carriers import CarrierKind, HandshakeRefused
from client.control.link import Link
from client.control.session import Session, login
from client.errors import ControlError, LoginError, UnknownNode
from wire.codec import compress, encode_json, frame_map
from wire.control import CAPABILITY_VERSION, MapRequest, RegisterRequest, RegisterResponse
from wire.keys import MachinePrivate, NodePrivate, NodePublic
from wire.session import ClientSession, RequestReceived, ServerSession

MACHINE = MachinePrivate.generate(b"m" * 32)
SERVER = MachinePrivate.generate(b"s" * 32)
NODE = NodePrivate.generate(b"n" * 32).public()
REGISTER = RegisterRequest(version=CAPABILITY_VERSION, node_key=NODE)
MAP = MapRequest(version=CAPABILITY_VERSION, node_key=NODE, stream=True, compress="zstd")
Answer = Callable[["FakeServer", RequestReceived], None]


class FakeServer:
    """The server's session and the carrier to it at once: what is written is answered by ``answer``."""

    kind = CarrierKind.WEBSOCKET

    def __init__(self, answer: Answer) -> None:
        self.session = ServerSession(SERVER, ephemeral=b"e" * 32)
        self.requests: list[RequestReceived] = []
        self.closed = False
        self._answer = answer
        self._outgoing: asyncio.Queue[bytes] = asyncio.Queue()

    def flush(self) -> None:
        if data := self.session.data_to_send():
            self._outgoing.put_nowait(data)

    def say(self, raw: bytes) -> None:
        """Bytes that no session made; empty = the end."""
        self._outgoing.put_nowait(raw)

    async def read(self) -> bytes:
        return await self._outgoing.get()

    async def write(self, data: bytes) -> None:
        for event in self.session.receive_data(data):
            if isinstance(event, RequestReceived):
                self.requests.append(event)
                self._answer(self, event)
        self.flush()

    async def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


@asynccontextmanager
async def connected(answer: Answer) -> AsyncIterator[tuple[Link, FakeServer]]:
    """An open link whose server answers so."""
    client = ClientSession(MACHINE, SERVER.public(), CAPABILITY_VERSION, b"c" * 32)
    server = FakeServer(answer)
    server.session.receive_handshake(client.initiation())
    server.flush()
    link = Link(client, server)
    await link.handshake()
    running = asyncio.create_task(link.run())
    try:
        yield link, server
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def silent(server: FakeServer, request: RequestReceived) -> None:
    """Never answers."""


def answering(*answers: tuple[int, bytes]) -> Answer:
    """Answers in turn: status and body."""
    waiting = list(answers)

    def answer(server: FakeServer, request: RequestReceived) -> None:
        status, body = waiting.pop(0)
        server.session.respond(request.stream_id, status, [("retry-after", "0.01")], body)

    return answer


def registered(**members: object) -> tuple[int, bytes]:
    return 200, encode_json(RegisterResponse(**members).to_json())  # type: ignore[arg-type]


async def test_a_request_gets_its_answer() -> None:
    async with connected(answering((200, b"hello"))) as (link, server):
        answer = await link.request("POST", "/echo", b"body")
        assert (answer.status, answer.body) == (200, b"hello")
        assert (server.requests[0].path, server.requests[0].body) == ("/echo", b"body")


async def test_a_server_with_another_key_is_found_out() -> None:
    client = ClientSession(
        MACHINE, MachinePrivate.generate(b"o" * 32).public(), CAPABILITY_VERSION, b"c" * 32
    )
    client.initiation()
    server = FakeServer(silent)
    server.say(b"\x02\x00\x30" + bytes(48))
    with pytest.raises(HandshakeRefused):
        await Link(client, server).handshake()


async def test_a_server_that_hangs_up_during_the_handshake() -> None:
    client = ClientSession(MACHINE, SERVER.public(), CAPABILITY_VERSION, b"c" * 32)
    client.initiation()
    server = FakeServer(silent)
    server.say(b"\x03\x00\x04")
    server.say(b"")
    with pytest.raises(HandshakeRefused, match="during the handshake"):
        await Link(client, server).handshake()


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "closed the control connection"),
        (b"\x04\x00\x20" + bytes(32), "broke the control protocol"),
        (b"GET / HTTP/1.1\r\n\r\n" + bytes(64), "broke the control protocol"),
    ],
)
async def test_what_ends_a_connection_ends_what_waits_on_it(raw: bytes, words: str) -> None:
    async with connected(silent) as (link, server):
        asking = asyncio.create_task(link.request("POST", "/x", b"1", patience=None))
        await asyncio.sleep(0)
        server.say(raw)
        with pytest.raises(ControlError, match=words):
            await asking
        with pytest.raises(ControlError):
            await link.request("POST", "/x", b"2")


async def test_a_server_without_a_sign_of_life_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "DEAD_SECONDS", 0.05)
    async with connected(silent) as (link, _):
        with pytest.raises(ControlError, match="went silent"):
            await link.request("POST", "/x", b"1", patience=None)


async def test_a_quiet_connection_is_kept_alive_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PING_SECONDS", 0.02)
    monkeypatch.setattr(link_module, "DEAD_SECONDS", 0.5)
    async with connected(answering((200, b"still here"))) as (link, _):
        await asyncio.sleep(1.0)
        assert (await link.request("POST", "/x", b"1")).body == b"still here"


async def test_after_sleep_a_dead_connection_is_found_out_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PROBE_SECONDS", 0.1)
    async with connected(silent) as (link, server):
        asking = asyncio.create_task(link.request("POST", "/x", b"1", patience=None))
        await asyncio.sleep(0.05)

        async def swallow(data: bytes) -> None:
            pass

        monkeypatch.setattr(server, "write", swallow)
        link.probe()
        with pytest.raises(ControlError, match="went silent"):
            await asking


async def test_after_sleep_a_live_connection_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "PROBE_SECONDS", 0.2)
    async with connected(answering((200, b"still here"))) as (link, _):
        await asyncio.sleep(0.05)
        link.probe()
        await asyncio.sleep(0.5)
        assert (await link.request("POST", "/x", b"1")).body == b"still here"


async def test_an_answer_that_does_not_come_is_waited_for_so_long() -> None:
    async with connected(silent) as (link, server):
        with pytest.raises(ControlError, match="did not answer /x"):
            await link.request("POST", "/x", b"1", patience=0.02)
        server.flush()


async def test_an_answer_that_is_too_large_is_refused() -> None:
    async with connected(answering((200, b"x" * (2 * 1024 * 1024)))) as (link, _):
        with pytest.raises(ControlError, match="too large"):
            await link.request("POST", "/x", b"1")


class TestRegister:
    async def test_a_busy_server_is_asked_again(self) -> None:
        async with connected(answering((429, b""), (429, b""), registered(login_name="ann"))) as (
            link,
            server,
        ):
            assert (await Session(link).register(REGISTER)).login_name == "ann"
            assert len(server.requests) == 3

    async def test_a_refusal_is_the_servers_own_words(self) -> None:
        async with connected(answering(registered(error="no more seats"))) as (link, _):
            with pytest.raises(LoginError, match="no more seats"):
                await Session(link).register(REGISTER)

    async def test_a_refusal_is_one_readable_line(self) -> None:
        async with connected(answering(registered(error="no\nmore\x1b[2J seats" + "!" * 999))) as (link, _):
            with pytest.raises(LoginError) as refused:
                await Session(link).register(REGISTER)
            assert str(refused.value).startswith("no more [2J seats!!")
            assert len(str(refused.value)) <= 200

    @pytest.mark.parametrize("answer", [(500, b"oops"), (200, b"<html>"), (200, b"[]"), (404, b"")])
    async def test_nonsense_is_a_control_error(self, answer: tuple[int, bytes]) -> None:
        async with connected(answering(answer)) as (link, _):
            with pytest.raises(ControlError) as refused:
                await Session(link).register(REGISTER)
            assert not isinstance(refused.value, LoginError | UnknownNode)

    async def test_a_login_shows_each_address_and_follows_it_up(self) -> None:
        answers = answering(
            registered(auth_url="u1"), registered(auth_url="u2"), registered(login_name="ann")
        )
        shown: list[str] = []

        async def show(url: str) -> None:
            shown.append(url)

        async with connected(answers) as (link, server):
            await login(Session(link), REGISTER, new_key=lambda: NODE, on_url=show)
            followups = [request.body.split(b'"Followup":"')[1].split(b'"')[0] for request in server.requests]
        assert shown == ["u1", "u2"]
        assert followups == [b"", b"u1", b"u2"]

    async def test_an_expired_key_is_replaced_once(self) -> None:
        fresh = NodePublic(b"f" * 32)

        async def show(url: str) -> None:
            raise AssertionError(url)

        async with connected(answering(registered(node_key_expired=True), registered())) as (link, _):
            found = await login(Session(link), REGISTER, new_key=lambda: fresh, on_url=show)
            assert found.node_key == fresh
        async with connected(answering(*[registered(node_key_expired=True)] * 2)) as (link, _):
            with pytest.raises(LoginError, match="clock"):
                await login(Session(link), REGISTER, new_key=lambda: fresh, on_url=show)


class TestMapStream:
    async def messages(self, answer: Answer) -> list[str]:
        async with connected(answer) as (link, _):
            return [message.domain async for message in Session(link).poll(MAP)]

    async def test_messages_come_one_by_one_until_the_end(self) -> None:
        def stream(server: FakeServer, request: RequestReceived) -> None:
            framed = b"".join(frame_map(compress(encode_json({"Domain": name}))) for name in ("a", "b"))
            server.session.start_stream(request.stream_id, 200, [])
            for at in range(0, len(framed), 7):
                server.session.send_data(request.stream_id, framed[at : at + 7])
            server.session.end_stream(request.stream_id)

        assert await self.messages(stream) == ["a", "b"]

    async def test_half_a_message_is_no_message(self) -> None:
        def cut(server: FakeServer, request: RequestReceived) -> None:
            framed = frame_map(compress(encode_json({"Domain": "a"})))
            server.session.start_stream(request.stream_id, 200, [])
            server.session.send_data(request.stream_id, framed[:-1])
            server.session.end_stream(request.stream_id)

        assert await self.messages(cut) == []

    async def test_an_unknown_node_is_told_apart(self) -> None:
        with pytest.raises(UnknownNode, match="sign in again"):
            await self.messages(answering((404, b"sign in again")))

    @pytest.mark.parametrize("body", [b"\xff\xff\xff\xff", b"\x02\x00\x00\x00{}", frame_map(compress(b"[]"))])
    async def test_nonsense_ends_the_stream(self, body: bytes) -> None:
        with pytest.raises(ControlError, match="makes no sense"):
            await self.messages(answering((200, body)))
