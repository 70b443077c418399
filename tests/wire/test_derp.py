"""DERP: frames cut anywhere, the handshake both ways, payloads, hostile bytes."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.strategies import addresses, cuts, entropy, json_values, node_keys, nonces
from wire import derp
from wire.codec import encode_json
from wire.derp import ClientHandshake, ClientInfo, FrameDecoder, FrameType, PeerPresent, ServerInfo
from wire.errors import FrameError, HandshakeError, WireError
from wire.keys import NodePrivate, NodePublic

frames = st.tuples(st.integers(0, 255), st.binary(max_size=300))
client_infos = st.builds(
    ClientInfo,
    version=st.integers(0, 5),
    mesh_key=st.just("") | st.just("ab" * 32),
    can_ack_pings=st.booleans(),
    is_prober=st.booleans(),
)
SERVER = NodePrivate.generate(bytes(range(32)))
CLIENT = NodePrivate.generate(bytes(range(32, 64)))
NONCE = bytes(24)


def only_frame(data: bytes) -> tuple[int, bytes]:
    (frame,) = FrameDecoder().receive(data)
    return frame


@given(st.lists(frames, max_size=6), st.lists(st.integers(0, 4000), max_size=12))
def test_frames_cut_anywhere_are_the_same_frames(sent: list[tuple[int, bytes]], places: list[int]) -> None:
    stream = b"".join(derp.encode_frame(kind, payload) for kind, payload in sent)
    decoder = FrameDecoder()
    assert [frame for piece in cuts(stream, places) for frame in decoder.receive(piece)] == sent
    assert decoder.buffered == b""


def test_a_frame_is_type_length_payload() -> None:
    assert derp.encode_frame(FrameType.PING, b"12345678") == b"\x12\x00\x00\x00\x0812345678"
    assert derp.server_key_frame(NodePublic(bytes([7]) * 32)) == bytes.fromhex(
        "01 00000028 44455250f09f9491" + "07" * 32
    )


@given(st.integers(derp.MAX_FRAME_BYTES + 1, 2**32 - 1))
def test_a_frame_over_the_bound_is_refused_by_its_header(length: int) -> None:
    with pytest.raises(FrameError):
        FrameDecoder().receive(struct.pack(">BI", 4, length))


@given(st.binary(max_size=600))
def test_a_decoder_keeps_no_more_than_it_was_given(junk: bytes) -> None:
    decoder = FrameDecoder()
    try:
        decoder.receive(junk)
    except FrameError:
        return
    assert len(decoder.buffered) <= len(junk)


@given(entropy, entropy, nonces, nonces, client_infos, st.integers(0, 10**9))
def test_the_handshake_proves_who_connects(
    a: bytes, b: bytes, nonce: bytes, nonce2: bytes, info: ClientInfo, rate: int
) -> None:
    server, node = NodePrivate.generate(a), NodePrivate.generate(b)
    client = ClientHandshake(node, nonce, info)
    hello = client.receive(*only_frame(derp.server_key_frame(server.public())))
    kind, payload = only_frame(hello)
    assert kind == FrameType.CLIENT_INFO
    assert derp.parse_client_info(payload, server) == (node.public(), info)
    told = ServerInfo(bytes_per_second=rate, bytes_burst=2 * rate)
    answer = derp.server_info_frame(server, node.public(), nonce2, told)
    assert client.receive(*only_frame(answer)) == b""
    assert client.done
    assert client.server_info == told


def test_frames_before_server_info_are_passed_over() -> None:
    client = ClientHandshake(CLIENT, NONCE)
    client.receive(*only_frame(derp.server_key_frame(SERVER.public())))
    assert client.receive(FrameType.KEEP_ALIVE, b"") == b""
    assert not client.done


@given(st.integers(0, 255), st.binary(max_size=100))
def test_another_first_frame_is_refused(kind: int, payload: bytes) -> None:
    with pytest.raises(HandshakeError):
        ClientHandshake(CLIENT, NONCE).receive(kind, payload)


@given(st.binary(max_size=200))
def test_a_hostile_client_info_is_a_declared_error(junk: bytes) -> None:
    with pytest.raises(WireError):
        derp.parse_client_info(junk, SERVER)
    with pytest.raises(WireError):
        derp.parse_client_info(CLIENT.public().raw + junk, SERVER)


@given(st.binary(max_size=60) | json_values.map(encode_json))
def test_hostile_info_inside_a_good_box_is_a_declared_error_or_defaults(content: bytes) -> None:
    sealed = CLIENT.seal_to(SERVER.public(), NONCE, content)
    for parse in (
        lambda: derp.parse_client_info(CLIENT.public().raw + sealed, SERVER),
        lambda: derp.parse_server_info(
            SERVER.seal_to(CLIENT.public(), NONCE, content), CLIENT, SERVER.public()
        ),
    ):
        with contextlib.suppress(WireError):
            parse()


def test_deeply_nested_info_is_a_declared_error() -> None:
    with pytest.raises(WireError):
        ClientInfo.parse(b"[" * 100_000)
    with pytest.raises(WireError):
        ServerInfo.parse(b'{"a":' * 100_000)


@given(node_keys, node_keys, st.binary(max_size=100))
def test_packets_round_trip(source: NodePublic, destination: NodePublic, packet: bytes) -> None:
    kind, payload = only_frame(derp.send_packet_frame(destination, packet))
    assert (kind, derp.parse_keyed(payload)) == (FrameType.SEND_PACKET, (destination, packet))
    kind, payload = only_frame(derp.recv_packet_frame(source, packet))
    assert (kind, derp.parse_keyed(payload)) == (FrameType.RECV_PACKET, (source, packet))
    kind, payload = only_frame(derp.forward_packet_frame(source, destination, packet))
    assert (kind, derp.parse_forward(payload)) == (FrameType.FORWARD_PACKET, (source, destination, packet))


def test_a_packet_over_the_bound_is_not_sent() -> None:
    key = CLIENT.public()
    assert derp.send_packet_frame(key, bytes(derp.MAX_PACKET_BYTES))
    with pytest.raises(FrameError):
        derp.send_packet_frame(key, bytes(derp.MAX_PACKET_BYTES + 1))


@given(node_keys, addresses, st.integers(0, 15))
def test_peer_present_round_trips(peer: NodePublic, address: tuple[str, int], flags: int) -> None:
    sent = PeerPresent(peer, *address, derp.PeerPresentFlags(flags))
    assert PeerPresent.parse(only_frame(sent.frame())[1]) == sent


@given(node_keys, st.sampled_from(list(derp.PeerGoneReason)))
def test_peer_gone_round_trips(peer: NodePublic, reason: derp.PeerGoneReason) -> None:
    assert derp.parse_peer_gone(only_frame(derp.peer_gone_frame(peer, reason))[1]) == (peer, reason)


@given(st.binary(max_size=70))
def test_hostile_payloads_are_values_or_declared_errors(junk: bytes) -> None:
    for parse in (derp.parse_keyed, derp.parse_forward, derp.parse_peer_gone, PeerPresent.parse):
        with contextlib.suppress(WireError):
            parse(junk)


def test_small_frames() -> None:
    assert derp.note_preferred_frame(True)[-1:] == b"\x01"
    assert derp.note_preferred_frame(False)[-1:] == b"\x00"
    assert only_frame(derp.ping_frame(b"12345678")) == (FrameType.PING, b"12345678")
    assert only_frame(derp.pong_frame(b"12345678")) == (FrameType.PONG, b"12345678")


def test_a_mesh_key_does_not_show() -> None:
    assert "ab" * 32 not in repr(ClientInfo(mesh_key="ab" * 32))
