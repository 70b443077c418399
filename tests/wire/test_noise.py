"""Noise: against the reference's recording, against the framework's text, and against hostile bytes."""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.recordings import MACHINE, RECORDINGS, SERVER, SERVER_EPHEMERAL, VERSION
from tests.wire.strategies import cuts, entropy
from wire.errors import DecryptError, FrameError, HandshakeError, WireError
from wire.keys import MachinePrivate, MachinePublic, clamp
from wire.noise import (
    ERROR,
    HEADER_BYTES,
    INITIATION_BYTES,
    MAX_CIPHERTEXT,
    MAX_COUNTER,
    MAX_FRAME_BYTES,
    MAX_PLAINTEXT,
    RESPONSE_BYTES,
    TAG_BYTES,
    Initiator,
    Responder,
    Transport,
    error_message,
)


def handshake(client: bytes, server: bytes, version: int = VERSION) -> tuple[Transport, Transport]:
    """Both record layers of one handshake; the arguments are the ephemeral keys' entropy."""
    initiator = Initiator(MACHINE, SERVER.public(), version, client)
    accepted = Responder(SERVER, server).receive(initiator.initiation())
    return initiator.finish(accepted.response), accepted.transport


def pair() -> tuple[Transport, Transport]:
    return handshake(bytes(range(100, 132)), SERVER_EPHEMERAL)


# --- golden ----------------------------------------------------------------------------------------------


def test_the_references_client_is_answered_as_recorded() -> None:
    told = RECORDINGS["noise"]
    accepted = Responder(SERVER, SERVER_EPHEMERAL).receive(bytes.fromhex(told["initiation"]))
    assert (accepted.peer, accepted.version) == (MACHINE.public(), VERSION)
    assert accepted.response.hex() == told["response"]
    assert accepted.transport.receive(bytes.fromhex(told["first_record"])) == b"hello"
    reply = accepted.transport.encrypt(b"good ") + accepted.transport.encrypt(b"day!")
    assert reply.hex() == told["reply"], "the reference's client has read these bytes"


def test_the_references_records_are_cut_as_ours_are() -> None:
    told = RECORDINGS["noise"]
    accepted = Responder(SERVER, SERVER_EPHEMERAL).receive(bytes.fromhex(told["initiation"]))
    # What the client sent is what a record layer with its keys must send: same keys, same counter, same cuts.
    client = _same_direction(accepted.transport)
    sent = client.encrypt(b"hello") + client.encrypt(b"x" * 5000)
    assert hashlib.sha256(sent).hexdigest() == told["records_sha256"]


def _same_direction(server: Transport) -> Transport:
    """A record layer that sends with the keys that ``server`` receives with."""
    client = object.__new__(Transport)
    client._send, client._receive = server._receive, server._send
    client._sent = client._received = 0
    client._buffer = bytearray()
    return client


# --- the framework's text (revision 34), computed step by step --------------------------------------------


@dataclass
class Symmetric:
    """§5.2 of the Noise specification in its own words, on other primitives than the code under test."""

    h: bytes = hashlib.blake2s(b"Noise_IK_25519_ChaChaPoly_BLAKE2s").digest()
    ck: bytes = field(init=False)
    key: bytes = b""

    def __post_init__(self) -> None:
        self.ck = self.h

    def mix_hash(self, data: bytes) -> None:
        self.h = hashlib.blake2s(self.h + data).digest()

    def hkdf(self, material: bytes) -> tuple[bytes, bytes]:
        temp = hmac.digest(self.ck, material, "blake2s")
        one = hmac.digest(temp, b"\x01", "blake2s")
        return one, hmac.digest(temp, one + b"\x02", "blake2s")

    def mix_key(self, private: bytes, public: bytes) -> None:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(
            X25519PublicKey.from_public_bytes(public)
        )
        self.ck, self.key = self.hkdf(shared)

    def encrypt_and_hash(self, plaintext: bytes) -> bytes:
        sealed = ChaCha20Poly1305(self.key).encrypt(bytes(12), plaintext, self.h)
        self.mix_hash(sealed)
        return sealed


def public_of(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


@given(entropy, entropy, st.integers(0, 65535))
def test_both_messages_and_keys_follow_the_specification(client: bytes, server: bytes, version: int) -> None:
    s, rs = MACHINE.raw, SERVER.public().raw
    e, re = clamp(client), clamp(server)
    state = Symmetric()
    state.mix_hash(b"Tailscale Control Protocol v%d" % version)
    state.mix_hash(rs)
    state.mix_hash(public_of(e))  # -> e
    state.mix_key(e, rs)  # es
    sealed_s = state.encrypt_and_hash(public_of(s))  # s
    state.mix_key(s, rs)  # ss
    tag = state.encrypt_and_hash(b"")
    expected = struct.pack(">HBH", version, 1, 96) + public_of(e) + sealed_s + tag
    initiator = Initiator(MACHINE, SERVER.public(), version, client)
    initiation = initiator.initiation()
    assert initiation == expected

    state.mix_hash(public_of(re))  # <- e
    state.mix_key(re, public_of(e))  # ee
    state.mix_key(re, public_of(s))  # se
    answer = struct.pack(">BH", 2, 48) + public_of(re) + state.encrypt_and_hash(b"")
    accepted = Responder(SERVER, server).receive(initiation)
    assert accepted.response == answer
    to_server, to_client = state.hkdf(b"")
    assert initiator.finish(answer).encrypt(b"first") == _record(to_server, 0, b"first")
    assert accepted.transport.encrypt(b"a") + accepted.transport.encrypt(b"b") == _record(
        to_client, 0, b"a"
    ) + _record(to_client, 1, b"b")


def _record(key: bytes, counter: int, plaintext: bytes) -> bytes:
    sealed = ChaCha20Poly1305(key).encrypt(struct.pack(">4xQ", counter), plaintext, None)
    return struct.pack(">BH", 4, len(sealed)) + sealed


# --- records ---------------------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=9000), max_size=4), st.lists(st.integers(0, 40000), max_size=12))
def test_records_cut_anywhere_give_the_same_bytes(messages: list[bytes], places: list[int]) -> None:
    client, server = pair()
    stream = b"".join(client.encrypt(message) for message in messages)
    assert b"".join(server.receive(piece) for piece in cuts(stream, places)) == b"".join(messages)


def test_records_survive_a_cut_at_every_byte() -> None:
    client, server = pair()
    stream = client.encrypt(b"one") + client.encrypt(b"") + client.encrypt(b"three")
    assert b"".join(server.receive(bytes([byte])) for byte in stream) == b"onethree"


@given(st.integers(0, 3 * MAX_PLAINTEXT))
def test_a_record_never_exceeds_its_frame(size: int) -> None:
    client, _ = pair()
    stream, seen = client.encrypt(bytes(size)), 0
    while stream:
        (length,) = struct.unpack_from(">H", stream, 1)
        assert HEADER_BYTES + length <= MAX_FRAME_BYTES
        seen += length - TAG_BYTES
        stream = stream[HEADER_BYTES + length :]
    assert seen == size


@given(st.data())
def test_a_touched_record_ends_the_connection(data: st.DataObject) -> None:
    client, server = pair()
    record = bytearray(client.encrypt(data.draw(st.binary(max_size=50))))
    at = data.draw(st.integers(HEADER_BYTES, len(record) - 1))
    record[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecryptError):
        server.receive(bytes(record))


def test_records_out_of_order_or_repeated_do_not_open() -> None:
    client, server = pair()
    first, second = client.encrypt(b"1"), client.encrypt(b"2")
    with pytest.raises(DecryptError):
        server.receive(second)
    client, server = pair()
    first = client.encrypt(b"1")
    assert server.receive(first) == b"1"
    with pytest.raises(DecryptError):
        server.receive(first)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack(">BH", 4, MAX_CIPHERTEXT + 1),
        struct.pack(">BH", 4, TAG_BYTES - 1),
        struct.pack(">BH", 4, 0),
        struct.pack(">BH", 5, 20),
        struct.pack(">BH", ERROR, 0),
        error_message("go away"),
    ],
)
def test_a_bad_header_is_refused_at_once(header: bytes) -> None:
    with pytest.raises(FrameError):
        pair()[1].receive(header)


@given(st.binary(max_size=200))
def test_a_record_layer_keeps_less_than_one_frame_of_hostile_bytes(junk: bytes) -> None:
    _, server = pair()
    try:
        server.receive(junk)
    except WireError:
        return
    assert len(server._buffer) < MAX_FRAME_BYTES


def test_a_used_up_counter_sends_nothing_more() -> None:
    client, _ = pair()
    client._sent = MAX_COUNTER
    with pytest.raises(DecryptError):
        client.encrypt(b"x")


# --- hostile handshakes ----------------------------------------------------------------------------------


@given(st.binary(max_size=150) | st.binary(min_size=INITIATION_BYTES, max_size=INITIATION_BYTES))
def test_bytes_that_are_no_initiation_fail_as_declared(junk: bytes) -> None:
    with pytest.raises(HandshakeError):
        Responder(SERVER, SERVER_EPHEMERAL).receive(junk)


@given(st.integers(0, INITIATION_BYTES - 1), st.integers(1, 255))
def test_an_initiation_touched_anywhere_is_refused(at: int, flip: int) -> None:
    initiation = bytearray(Initiator(MACHINE, SERVER.public(), VERSION, bytes(32)).initiation())
    initiation[at] ^= flip
    with pytest.raises(HandshakeError):
        Responder(SERVER, SERVER_EPHEMERAL).receive(bytes(initiation))


@given(st.integers(0, RESPONSE_BYTES - 1), st.integers(1, 255))
def test_a_response_touched_anywhere_is_refused(at: int, flip: int) -> None:
    initiator = Initiator(MACHINE, SERVER.public(), VERSION, bytes(32))
    response = bytearray(Responder(SERVER, SERVER_EPHEMERAL).receive(initiator.initiation()).response)
    response[at] ^= flip
    with pytest.raises(HandshakeError):
        initiator.finish(bytes(response))


@given(st.binary(max_size=120))
def test_bytes_that_are_no_response_fail_as_declared(junk: bytes) -> None:
    initiator = Initiator(MACHINE, SERVER.public(), VERSION, bytes(32))
    initiator.initiation()
    with pytest.raises(HandshakeError):
        initiator.finish(junk)


def test_a_refusal_is_shown_in_words() -> None:
    initiator = Initiator(MACHINE, SERVER.public(), VERSION, bytes(32))
    initiator.initiation()
    with pytest.raises(HandshakeError, match="too old"):
        initiator.finish(error_message("too old"))
    with pytest.raises(HandshakeError):
        initiator.finish(bytes([ERROR]))


def test_a_client_that_expects_another_server_is_refused() -> None:
    other = MachinePrivate.generate(bytes(range(1, 33)))
    initiation = Initiator(MACHINE, other.public(), VERSION, bytes(32)).initiation()
    with pytest.raises(HandshakeError, match="server key"):
        Responder(SERVER, SERVER_EPHEMERAL).receive(initiation)


def test_a_key_of_low_order_makes_no_handshake() -> None:
    initiation = Initiator(MACHINE, SERVER.public(), VERSION, bytes(32)).initiation()
    with pytest.raises(HandshakeError):
        Responder(SERVER, SERVER_EPHEMERAL).receive(initiation[:5] + bytes(32) + initiation[37:])
    with pytest.raises(HandshakeError):
        Initiator(MACHINE, MachinePublic(bytes(32)), VERSION, bytes(32)).initiation()


def test_the_version_is_bound_to_the_handshake() -> None:
    initiation = Initiator(MACHINE, SERVER.public(), VERSION, bytes(32)).initiation()
    with pytest.raises(HandshakeError):
        Responder(SERVER, SERVER_EPHEMERAL).receive(struct.pack(">H", VERSION + 1) + initiation[2:])
