"""A client that has a machine key and nothing else tries what HTTP/2 lets it try."""

from __future__ import annotations

import tracemalloc

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PushPromiseFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.http2 import RawClient
from wire.errors import SessionError, WireError
from wire.session import (
    MAX_BODIES_BYTES,
    MAX_CONCURRENT_STREAMS,
    MAX_PENDING_BYTES,
    MAX_RESETS,
    WINDOW_BYTES,
    RequestReceived,
    SessionClosed,
)

WHOLE = ["END_HEADERS", "END_STREAM"]
PIECE = 16_000


def request(raw: RawClient, stream_id: int) -> HeadersFrame:
    return HeadersFrame(stream_id, raw.head(), flags=WHOLE)


def open_request(raw: RawClient, stream_id: int) -> HeadersFrame:
    return HeadersFrame(stream_id, raw.head(), flags=["END_HEADERS"])


def status_of(raw: RawClient, stream_id: int) -> bytes:
    import hpack

    decoder = hpack.Decoder()
    for frame in raw.frames():
        if isinstance(frame, HeadersFrame):
            fields = dict(decoder.decode(frame.data, raw=True))
            if frame.stream_id == stream_id:
                return bytes(fields[b":status"])
    raise AssertionError("no answer")


# --- resets ----------------------------------------------------------------------------------------------


def test_rapid_resets_end_the_connection() -> None:
    raw = RawClient()
    ids = [2 * number + 1 for number in range(MAX_RESETS + 1)]
    for stream_id in ids[:-1]:
        raw.send(request(raw, stream_id), RstStreamFrame(stream_id, error_code=8))
    with pytest.raises(SessionError, match="abandoned"):
        raw.send(request(raw, ids[-1]), RstStreamFrame(ids[-1], error_code=8))
    assert raw.server.closed


def test_a_client_may_abandon_as_many_polls_as_were_answered() -> None:
    raw = RawClient()
    for number in range(3 * MAX_RESETS):
        stream_id = 2 * number + 1
        raw.send(request(raw, stream_id))
        raw.server.start_stream(stream_id, 200, [])
        raw.send(RstStreamFrame(stream_id, error_code=8))
        raw.read()
    assert not raw.server.closed


def test_streams_at_once_are_bounded() -> None:
    raw = RawClient()
    for number in range(MAX_CONCURRENT_STREAMS):
        raw.send(open_request(raw, 2 * number + 1))
    with pytest.raises(SessionError):
        raw.send(open_request(raw, 2 * MAX_CONCURRENT_STREAMS + 1))


# --- bodies ----------------------------------------------------------------------------------------------


def test_an_oversized_body_is_refused_and_the_connection_lives() -> None:
    raw = RawClient(max_body=50_000)
    raw.send(open_request(raw, 1), *(DataFrame(1, bytes(PIECE)) for _ in range(4)))
    assert status_of(raw, 1) == b"413"
    assert raw.server._incoming == {}
    raw.send(DataFrame(1, bytes(PIECE)))  # what was on its way
    (seen,) = raw.send(request(raw, 3))
    assert isinstance(seen, RequestReceived)


def test_bodies_of_many_requests_together_are_bounded() -> None:
    raw = RawClient()
    tracemalloc.start()
    try:
        for number in range(100):
            stream_id = 2 * number + 1
            raw.send(open_request(raw, stream_id))
            for _ in range(8):
                raw.send(DataFrame(stream_id, bytes(PIECE)))
            raw.read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert raw.server._incoming_bytes <= MAX_BODIES_BYTES
    assert peak < 4 * MAX_BODIES_BYTES


def test_the_count_of_arriving_bytes_returns_to_zero() -> None:
    raw = RawClient()
    raw.send(open_request(raw, 1), DataFrame(1, bytes(100)), open_request(raw, 3), DataFrame(3, bytes(50)))
    raw.send(RstStreamFrame(1, error_code=8), DataFrame(3, b"x", flags=["END_STREAM"]))
    assert raw.server._incoming_bytes == 0


def test_a_frame_over_the_bound_is_refused_by_its_header() -> None:
    raw = RawClient()
    raw.send(open_request(raw, 1))
    with pytest.raises(SessionError, match="too large"):
        raw.send_bytes((2**24 - 1).to_bytes(3, "big") + b"\x00\x00\x00\x00\x00\x01" + bytes(100))


def test_data_beyond_the_window_ends_the_connection() -> None:
    raw = RawClient()
    raw.send(open_request(raw, 1))
    too_much = [DataFrame(1, bytes(PIECE)) for _ in range(WINDOW_BYTES // PIECE + 1)]
    with pytest.raises(SessionError, match="FlowControl"):
        raw.send(*too_much)


# --- headers ---------------------------------------------------------------------------------------------


def test_a_flood_of_continuations_ends_the_connection() -> None:
    raw = RawClient()
    raw.send(HeadersFrame(1, raw.head(), flags=[]))
    flood = [ContinuationFrame(1, b"", flags=[]) for _ in range(1000)]
    with pytest.raises(SessionError):
        raw.send(*flood)


def test_continuations_never_finished_are_bounded_in_memory() -> None:
    raw = RawClient()
    raw.send(HeadersFrame(1, raw.head(), flags=[]))

    def flood() -> None:
        for _ in range(10_000):
            raw.send(ContinuationFrame(1, bytes(PIECE), flags=[]))

    tracemalloc.start()
    try:
        with pytest.raises(SessionError):
            flood()
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_an_hpack_bomb_ends_the_connection_within_bounds() -> None:
    raw = RawClient()
    head = raw.head() + raw.encoder.encode([("x-big", "y" * 4000)])
    bomb = head + b"\xbe" * 10_000  # index 62: the entry just made, ten thousand times
    tracemalloc.start()
    try:
        with pytest.raises(SessionError):
            raw.send(HeadersFrame(1, bomb, flags=WHOLE))
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff" * 20,
        b"\x82",  # a method and nothing else
        b"\x00\x03Foo\x03bar",
        b"\x00\x0aconnection\x05close",
    ],
)
def test_a_malformed_head_is_a_declared_error(head: bytes) -> None:
    raw = RawClient()
    with pytest.raises(SessionError):
        raw.send(HeadersFrame(1, head, flags=WHOLE))


# --- windows, pings, settings ----------------------------------------------------------------------------


def test_a_client_that_opens_no_window_holds_a_bounded_queue() -> None:
    raw = RawClient(window=0)
    raw.send(request(raw, 1), request(raw, 3))
    raw.server.start_stream(1, 200, [])
    raw.server.send_data(1, bytes(MAX_PENDING_BYTES))
    assert raw.server.pending(1) == MAX_PENDING_BYTES
    for stream_id in (1, 3):
        with pytest.raises(SessionError):
            raw.server.send_data(stream_id, b"one more")
    raw.send(RstStreamFrame(1, error_code=8))
    assert raw.server.pending(1) == 0
    raw.server.respond(3, 200, [], b"there is room again")
    assert raw.server.pending(3) == 19


def test_a_window_of_one_byte_at_a_time_loses_nothing() -> None:
    raw = RawClient(window=0)
    raw.send(request(raw, 1))
    raw.server.respond(1, 200, [], b"abc")
    got = b""
    for _ in range(3):
        raw.open_window(1, 1)
        got += b"".join(frame.data for frame in raw.frames() if isinstance(frame, DataFrame))
    assert got == b"abc"


def test_a_window_that_shrinks_by_settings_is_respected() -> None:
    raw = RawClient(window=1000)
    raw.send(request(raw, 1))
    raw.server.start_stream(1, 200, [])
    raw.server.send_data(1, bytes(600))
    raw.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 100}))  # 500 in debt
    raw.server.send_data(1, bytes(10))
    assert raw.server.pending(1) == 10
    raw.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2000}))
    assert raw.server.pending(1) == 0


def test_every_ping_is_answered() -> None:
    raw = RawClient()
    raw.read()
    raw.send(*(PingFrame(0, number.to_bytes(8, "big")) for number in range(100)))
    answers = [frame for frame in raw.frames() if isinstance(frame, PingFrame)]
    assert [int.from_bytes(frame.opaque_data, "big") for frame in answers] == list(range(100))
    assert all("ACK" in frame.flags for frame in answers)


def test_a_flood_of_settings_is_acknowledged_and_grows_nothing() -> None:
    raw = RawClient()
    for _ in range(50):
        raw.send(*(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 70_000}) for _ in range(20)))
        raw.read()
    assert raw.send(request(raw, 1))


@pytest.mark.parametrize(
    "frame",
    [
        WindowUpdateFrame(0, window_increment=0),
        WindowUpdateFrame(0, window_increment=2**31 - 1),
        SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 2**31}),
        SettingsFrame(0, settings={SettingsFrame.MAX_FRAME_SIZE: 1}),
        PushPromiseFrame(1, 2, b"\x82", flags=["END_HEADERS"]),
        DataFrame(1, b"for a stream that never was"),
        HeadersFrame(2, b"\x82", flags=WHOLE),
        RstStreamFrame(9, error_code=0),
        ContinuationFrame(1, b"", flags=["END_HEADERS"]),
    ],
)
def test_a_violation_is_a_declared_error(frame: object) -> None:
    raw = RawClient()
    with pytest.raises(SessionError):
        raw.send(frame)  # type: ignore[arg-type]
    assert raw.server.closed
    assert any(isinstance(answer, GoAwayFrame) for answer in raw.frames())


def test_goodbye_is_an_event() -> None:
    (event,) = RawClient().send(GoAwayFrame(0, last_stream_id=0, error_code=2))
    assert isinstance(event, SessionClosed)


@given(st.binary(max_size=300))
def test_hostile_http2_is_events_or_a_declared_error(junk: bytes) -> None:
    raw = RawClient()
    try:
        raw.send_bytes(junk)
    except WireError:
        assert raw.server.closed


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 7), st.binary(max_size=60)),
        max_size=8,
    )
)
def test_hostile_frames_are_events_or_a_declared_error(frames: list[tuple[int, int, int, bytes]]) -> None:
    raw = RawClient()
    raw.send(open_request(raw, 1))
    try:
        for kind, flags, stream_id, body in frames:
            raw.send_bytes(
                len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + body
            )
            raw.server.respond(1, 200, [], b"x")
            raw.read()
    except WireError:
        assert raw.server.closed
