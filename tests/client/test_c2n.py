"""What the server may ask through the map stream, and what it gets."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.c2n import Answerer, parse_request
from client.errors import ControlError
from wire.control import PingRequest

URL = "https://vpn.example.com/machine/trenza/answer/1"


class FakeSession:
    """Keeps what would be posted."""

    def __init__(self) -> None:
        self.posted: list[tuple[str, bytes]] = []
        self.asked: list[str] = []

    async def answer(self, url: str, body: bytes) -> None:
        self.posted.append((url, body))

    async def head(self, url: str) -> None:
        self.asked.append(url)


class Node:
    """What the answers act on."""

    def __init__(self) -> None:
        self.rotations = 0
        self.session: Any = FakeSession()
        self.refusal: ControlError | None = None
        self.exit_nodes: list[bytes] = []
        self.answerer = Answerer(rotate=self.rotate, ping=self.ping, set_exit_node=self.set_exit_node)

    async def set_exit_node(self, body: bytes) -> None:
        self.exit_nodes.append(body)

    async def rotate(self) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.rotations += 1

    async def ping(self, ip: str) -> dict[str, Any]:
        return {"IP": ip, "LatencySeconds": 0.5}

    async def ask(self, payload: bytes = b"", *, types: str = "c2n", url: str = URL, **members: Any) -> None:
        question = PingRequest(url=url, types=types, payload=payload, **members)
        await self.answerer.answer(self.session, question)

    @property
    def answer(self) -> bytes:
        return bytes(self.session.posted[-1][1])


@pytest.fixture
def asked() -> Node:
    return Node()


async def test_an_echo_comes_back(asked: Node) -> None:
    await asked.ask(b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello")
    assert asked.session.posted == [(URL, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")]


async def test_the_server_can_have_the_key_rotated(asked: Node) -> None:
    await asked.ask(b"POST /trenza/rotate-node-key HTTP/1.1\r\n\r\n")
    assert asked.rotations == 1
    assert asked.answer.startswith(b"HTTP/1.1 200")


async def test_a_rotation_that_fails_is_told_in_words(asked: Node) -> None:
    asked.refusal = ControlError("not now")
    await asked.ask(b"POST /trenza/rotate-node-key HTTP/1.1\r\n\r\n")
    assert asked.answer.startswith(b"HTTP/1.1 500")
    assert asked.answer.endswith(b"not now")


async def test_the_server_can_set_the_exit_node(asked: Node) -> None:
    body = b'{"ExitNodeID": "n2"}'
    head = f"POST /trenza/exit-node HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    await asked.ask(head + body)
    assert asked.exit_nodes == [body]
    assert asked.answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("payload", "status"),
    [
        (b"GET /debug/goroutines HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /trenza/rotate-node-key HTTP/1.1\r\n\r\n", b"405"),
        (b"nonsense", b"400"),
        (b"", b"400"),
    ],
)
async def test_what_is_not_served_is_refused(asked: Node, payload: bytes, status: bytes) -> None:
    await asked.ask(payload)
    assert asked.answer.startswith(b"HTTP/1.1 " + status)
    assert asked.rotations == 0


async def test_a_length_that_is_none_is_no_answer_and_no_error(asked: Node) -> None:
    await asked.ask(b"POST /echo HTTP/1.1\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n")
    assert not asked.session.posted


async def test_one_url_is_answered_once(asked: Node) -> None:
    for _ in range(2):
        await asked.ask(b"GET /echo HTTP/1.1\r\n\r\n")
    assert len(asked.session.posted) == 1


async def test_a_bare_question_is_a_head(asked: Node) -> None:
    await asked.ask(types="")
    assert asked.session.asked == [URL]


async def test_urls_outside_the_session_are_left_alone(asked: Node) -> None:
    await asked.ask(types="", url_is_noise=False)
    assert not asked.session.asked


async def test_a_ping_is_reported(asked: Node) -> None:
    await asked.ask(types="disco", ip="100.64.0.2")
    assert asked.answer == b'{"IP":"100.64.0.2","LatencySeconds":0.5}'


@given(st.binary(max_size=300))
def test_any_payload_is_a_request_or_none(raw: bytes) -> None:
    request = parse_request(raw)
    assert request is None or request.path.startswith("/")
