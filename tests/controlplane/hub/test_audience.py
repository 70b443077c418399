"""Who listens: decided without tasks or a database, the time an argument."""

from __future__ import annotations

import json
import struct
from itertools import pairwise
from typing import Any

import zstandard

from controlplane.hub.audience import (
    KEEPALIVE_PLAIN,
    KEEPALIVE_SECONDS,
    KEEPALIVE_SPREAD,
    Audience,
    Subscriber,
)
from controlplane.netmap.incarnations import MAX_SHADOWS, SURE_SECONDS, Seen
from tests.controlplane.hub.world import Stream
from tests.controlplane.snapshots import node
from wire.codec import decode_object


def subscriber(node_id: int, stream: Stream, **values: Any) -> Subscriber:
    return Subscriber(node_id, stream, zstd=values.pop("zstd", False), **values)


def shadow(audience: Audience, disco_key: str, since: float, address: str = "") -> Stream:
    """A machine that uses the keys of node 1 comes at ``since``."""
    one = subscriber(1, stream := Stream(), disco_key=disco_key, since=since, seen=Seen(address, ""))
    audience.add_shadow(one)
    stream.on_closed(lambda: audience.shadows.discard(one))
    return stream


def test_keepalives_are_exact_and_in_time() -> None:
    audience, plain, packed = Audience(), Stream(), Stream(zstd=True)
    audience.seat(subscriber(1, plain, keepalive_due=50.0))
    audience.seat(subscriber(2, packed, keepalive_due=50.0, zstd=True))
    audience.keep_alive(49.0)
    assert plain.frames == packed.frames == []
    audience.keep_alive(50.0)
    audience.keep_alive(50.0 + KEEPALIVE_SECONDS - 1)
    assert plain.frames == [struct.pack("<I", 18) + b'{"KeepAlive":true}']
    (frame,) = packed.frames
    assert zstandard.ZstdDecompressor().decompress(frame[4:]) == b'{"KeepAlive":true}'
    audience.keep_alive(50.0 + KEEPALIVE_SECONDS + KEEPALIVE_SPREAD)
    assert (len(plain.frames), len(packed.frames)) == (2, 2)


def test_the_keepalive_is_json() -> None:
    assert decode_object(KEEPALIVE_PLAIN[4:]) == json.loads('{"KeepAlive": true}')


def test_a_stream_that_lost_its_seat_leaves_nothing() -> None:
    audience = Audience()
    first, second = subscriber(1, Stream()), subscriber(1, Stream())
    audience.seat(first)
    audience.seat(second)
    assert not audience.leave(first)
    assert audience.holds(second)
    assert audience.leave(second)
    assert not audience.follows(second)


def test_only_so_many_shadows_are_kept() -> None:
    audience = Audience()
    streams = [shadow(audience, f"discokey:{number}", float(number)) for number in range(MAX_SHADOWS + 2)]
    assert [stream.is_open for stream in streams] == [False, False] + MAX_SHADOWS * [True]
    assert len(audience.shadows) == MAX_SHADOWS


def test_a_shadow_that_reconnects_has_been_there_all_along() -> None:
    audience = Audience()
    streams = [shadow(audience, "discokey:a", since, "192.0.2.1") for since in (0.0, 3.0, 6.0)]
    assert [stream.is_open for stream in streams] == [False, False, True]
    assert all(not before.is_open for before, _ in pairwise(streams))
    assert audience.clones(SURE_SECONDS) == {1: "192.0.2.1"}


def test_a_shadow_is_a_clone_once_it_has_stayed() -> None:
    audience = Audience()
    audience.seat(subscriber(1, Stream(), seen=Seen("192.0.2.2", "box")))
    shadow(audience, "discokey:a", 100.0, "192.0.2.1")
    assert audience.clones(100.0 + SURE_SECONDS / 2) == {}  # it may be a restarted client's last word
    assert audience.clones(100.0 + SURE_SECONDS) == {1: "192.0.2.2 (box), 192.0.2.1"}


def test_who_comes_when_nobody_holds_the_node_is_the_node() -> None:
    audience, offline = Audience(), node(1, disco_key="discokey:a")
    assert audience.admits(offline, "discokey:b")
    assert audience.admits(offline, "discokey:a")
    audience.seat(subscriber(1, Stream()))
    assert audience.admits(offline, "discokey:b")
    assert not audience.admits(offline, "discokey:a")


def test_a_closed_audience_has_no_stream() -> None:
    audience, stream = Audience(), Stream()
    audience.seat(subscriber(1, stream))
    other = shadow(audience, "discokey:a", 0.0)
    audience.close()
    assert audience.closed
    assert not stream.is_open
    assert not other.is_open
