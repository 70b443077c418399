"""The session between honest ends: requests, answers, streams, windows, pings, cuts anywhere."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.http2 import CHALLENGE, Pair, RawClient, server_session
from tests.wire.recordings import MACHINE, SERVER, VERSION
from tests.wire.strategies import cuts
from wire.errors import HandshakeError, MessageError, SessionError, WireError
from wire.session import (
    EARLY_MAGIC,
    MAX_EARLY_BYTES,
    ClientSession,
    EarlyPayload,
    Event,
    PingAcked,
    RequestReceived,
    ResponseStarted,
    SessionClosed,
    StreamClosed,
    StreamEnded,
)

JSON = [("content-type", "application/json")]


def test_the_server_knows_who_asks_and_what() -> None:
    pair = Pair()
    assert (pair.server.peer, pair.server.version) == (MACHINE.public(), VERSION)
    stream_id, request = pair.ask("/machine/register", b'{"Version":130}')
    assert (request.method, request.path, request.body) == ("POST", "/machine/register", b'{"Version":130}')
    assert request.headers[":authority"] == "unused"
    pair.server.respond(stream_id, 200, JSON, b"{}")
    pair.pump()
    (started,) = [e for e in pair.client_events if isinstance(e, ResponseStarted)]
    assert (started.stream_id, started.status) == (stream_id, 200)
    assert started.headers["content-type"] == "application/json"
    assert pair.body_of(stream_id) == b"{}"
    assert StreamEnded(stream_id) in pair.client_events


@given(st.binary(max_size=200_000), st.binary(max_size=200_000))
def test_bodies_of_any_size_arrive_whole(asked: bytes, answered: bytes) -> None:
    pair = Pair()
    stream_id, request = pair.ask("/x", asked)
    assert request.body == asked
    pair.server.respond(stream_id, 200, [], answered)
    pair.pump()
    assert pair.body_of(stream_id) == answered


@given(st.lists(st.binary(min_size=1, max_size=60_000), max_size=5), st.booleans())
def test_a_long_poll_arrives_in_order_and_ends_when_told(pieces: list[bytes], end: bool) -> None:
    pair = Pair()
    stream_id, _ = pair.ask("/machine/map", b"{}")
    pair.server.start_stream(stream_id, 200, JSON)
    for piece in pieces:
        pair.server.send_data(stream_id, piece)
        pair.pump()
    if end:
        pair.server.end_stream(stream_id)
    pair.pump()
    assert pair.body_of(stream_id) == b"".join(pieces)
    assert (StreamEnded(stream_id) in pair.client_events) == end


def test_more_than_every_window_is_delivered() -> None:
    pair = Pair()
    stream_id, _ = pair.ask("/machine/map")
    body = bytes(range(256)) * 64 * 1024  # 16 MiB, four windows
    pair.server.respond(stream_id, 200, [], body)
    pair.pump()
    assert pair.body_of(stream_id) == body
    assert pair.server.pending(stream_id) == 0


def test_the_servers_windows_are_given_back() -> None:
    pair = Pair()
    for number in range(20):  # 20 MB through a connection window of 4 MiB
        _, request = pair.ask(f"/{number}", bytes(1_000_000))
        assert len(request.body) == 1_000_000
        pair.server.respond(request.stream_id, 200, [], b"")


def conversation(pair: Pair) -> tuple[bytes, bytes]:
    """What each end sends in a conversation with two requests, a stream and a ping, as two byte strings."""
    first = pair.client.request("POST", "/a", b"one" * 3000)
    pair.client.request("GET", "/b")
    pair.client.ping(b"12345678")
    up = pair.client.data_to_send()
    pair.server_events += pair.server.receive_data(up)
    pair.server.start_stream(first, 200, JSON)
    pair.server.send_data(first, b"two" * 5000)
    pair.server.end_stream(first)
    return up, pair.server.data_to_send()


WHOLE = Pair()
UP, DOWN = conversation(WHOLE)
SEEN_UP, SEEN_DOWN = WHOLE.server_events, WHOLE.client.receive_data(DOWN)


def joined(events: list[Event]) -> list[Event | tuple[int, bytes]]:
    """Events with each stream's pieces of data joined: where they were cut does not matter."""
    from wire.session import DataReceived

    out: list[Event | tuple[int, bytes]] = []
    for event in events:
        if not isinstance(event, DataReceived):
            out.append(event)
        elif out and isinstance(out[-1], tuple) and out[-1][0] == event.stream_id:
            out[-1] = (event.stream_id, out[-1][1] + event.data)
        else:
            out.append((event.stream_id, event.data))
    return out


@pytest.mark.parametrize("step", [1, 2, 7, 1000])
def test_the_server_understands_bytes_cut_at_every_place(step: int) -> None:
    pair = Pair()
    events = [
        event for at in range(0, len(UP), step) for event in pair.server.receive_data(UP[at : at + step])
    ]
    assert events == SEEN_UP


@given(st.lists(st.integers(0, 2**20), max_size=20))
def test_the_client_understands_bytes_cut_anywhere(places: list[int]) -> None:
    pair = Pair()
    conversation(pair)
    events = [event for piece in cuts(DOWN, places) for event in pair.client.receive_data(piece)]
    assert joined(events) == joined(SEEN_DOWN)
    assert PingAcked(b"12345678") in events


@pytest.mark.parametrize("early", [True, False])
def test_the_early_payload_is_optional_and_may_come_byte_by_byte(early: bool) -> None:
    client = ClientSession(MACHINE, SERVER.public(), VERSION, bytes(32))
    server = server_session(early=early)
    server.receive_handshake(client.initiation())
    first = server.data_to_send()
    client.receive_handshake(first[:51])
    events = [event for byte in first[51:] for event in client.receive_data(bytes([byte]))]
    assert [e for e in events if isinstance(e, EarlyPayload)] == ([EarlyPayload(CHALLENGE)] if early else [])
    stream_id = client.request("GET", "/x")
    (request,) = server.receive_data(client.data_to_send())
    assert isinstance(request, RequestReceived)
    assert request.stream_id == stream_id


def hostile_server(plaintext: bytes) -> list[Event]:
    """What a client makes of a server whose first words are ``plaintext``."""
    client = ClientSession(MACHINE, SERVER.public(), VERSION, bytes(32))
    server = server_session(early=False)
    server.receive_handshake(client.initiation())
    client.receive_handshake(server.data_to_send()[:51])
    return client.receive_data(_same_keys(server).encrypt(plaintext))


def _same_keys(server: object) -> object:
    transport = server._transport  # type: ignore[attr-defined]
    transport._sent = 0
    return transport


@pytest.mark.parametrize(
    "early",
    [
        EARLY_MAGIC + struct.pack(">I", MAX_EARLY_BYTES + 1),
        EARLY_MAGIC + struct.pack(">I", 2) + b"{}",
        EARLY_MAGIC + struct.pack(">I", 4) + b"junk",
        EARLY_MAGIC + struct.pack(">I", 2) + b"[]",
        EARLY_MAGIC + struct.pack(">I", 31) + b'{"nodeKeyChallenge":"chalpub:"}',
        b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100),
    ],
)
def test_a_hostile_early_payload_is_a_declared_error(early: bytes) -> None:
    with pytest.raises(WireError):
        hostile_server(early)


@given(st.binary(max_size=400))
def test_a_hostile_server_is_a_declared_error_or_events(junk: bytes) -> None:
    with contextlib.suppress(WireError):
        hostile_server(junk)


@given(st.binary(max_size=400))
def test_hostile_records_are_declared_errors(junk: bytes) -> None:
    pair = Pair()
    for end in (pair.server, pair.client):
        with contextlib.suppress(WireError):
            assert end.receive_data(junk) == []


def test_nothing_is_taken_before_the_handshake() -> None:
    with pytest.raises(SessionError):
        server_session().receive_data(b"x")
    with pytest.raises(SessionError):
        ClientSession(MACHINE, SERVER.public(), VERSION, bytes(32)).receive_data(b"x")
    with pytest.raises(SessionError):
        _ = server_session().peer
    with pytest.raises(HandshakeError):
        server_session().receive_handshake(b"x" * 101)


def test_a_second_handshake_is_refused() -> None:
    client = ClientSession(MACHINE, SERVER.public(), VERSION, bytes(32))
    server, initiation = server_session(), client.initiation()
    server.receive_handshake(initiation)
    with pytest.raises(SessionError):
        server.receive_handshake(initiation)


def test_an_abandoned_poll_is_told_once_and_swallows_what_follows() -> None:
    pair = Pair()
    stream_id, _ = pair.ask("/machine/map")
    pair.server.start_stream(stream_id, 200, [])
    pair.pump()
    pair.client.reset(stream_id)
    pair.pump()
    assert pair.server_events.count(StreamClosed(stream_id)) == 1
    pair.server.send_data(stream_id, b"late")
    pair.server.end_stream(stream_id)
    pair.pump()
    assert pair.body_of(stream_id) == b""
    assert pair.ask("/still/alive")[1].path == "/still/alive"


def test_an_answer_to_an_abandoned_request_is_swallowed() -> None:
    pair = Pair()
    stream_id, _ = pair.ask("/x")
    pair.client.reset(stream_id)
    pair.pump()
    pair.server.respond(stream_id, 200, [], b"late")
    pair.server.start_stream(stream_id, 200, [])
    pair.pump()
    assert pair.ask("/y")[1].path == "/y"


def test_goodbye_ends_the_session_on_the_other_side() -> None:
    pair = Pair()
    pair.server.close()
    pair.pump()
    assert any(isinstance(event, SessionClosed) for event in pair.client_events)
    assert pair.client.closed
    with pytest.raises(SessionError):
        pair.client.request("GET", "/x")
    pair.server.close()
    assert pair.server.data_to_send() == b"", "goodbye is said once"


def test_a_ping_has_8_bytes() -> None:
    with pytest.raises(SessionError):
        Pair().client.ping(b"123")


def test_two_streams_share_the_connection_without_waiting_for_each_other() -> None:
    raw = RawClient(window=0)
    from hyperframe.frame import HeadersFrame

    raw.send(*(HeadersFrame(i, raw.head(), flags=["END_HEADERS", "END_STREAM"]) for i in (1, 3)))
    for stream_id in (1, 3):
        raw.server.respond(stream_id, 200, [], b"x" * 100)
    assert (raw.server.pending(1), raw.server.pending(3)) == (100, 100)
    raw.open_window(3, 40)
    assert (raw.server.pending(1), raw.server.pending(3)) == (100, 60)
    raw.open_window(3, 60)
    raw.open_window(1, 1000)
    assert (raw.server.pending(1), raw.server.pending(3)) == (0, 0)


def test_an_answer_without_a_status_is_a_declared_error() -> None:
    from wire.session import _status

    for headers in ({}, {":status": "ok"}):
        with pytest.raises(MessageError):
            _status(headers)
