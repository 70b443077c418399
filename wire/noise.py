"""Noise_IK_25519_ChaChaPoly_BLAKE2s as the control protocol uses it, and its record layer.

The client initiates and knows the server's static key. Messages: initiation (101 bytes), response (51),
records of at most 4096 bytes whose nonce is a big-endian counter. Source: tailscale
control/controlbase/handshake.go and conn.go; the Noise Protocol Framework, revision 34, §7.5.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wire.errors import DecryptError, FrameError, HandshakeError
from wire.keys import MachinePrivate, MachinePublic

PROTOCOL_NAME = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
PROLOGUE = b"Tailscale Control Protocol v"

INITIATION, RESPONSE, ERROR, RECORD = 1, 2, 3, 4
INITIATION_BYTES = 101
RESPONSE_BYTES = 51
HEADER_BYTES = 3
TAG_BYTES = 16
MAX_FRAME_BYTES = 4096
MAX_CIPHERTEXT = MAX_FRAME_BYTES - HEADER_BYTES
MAX_PLAINTEXT = MAX_CIPHERTEXT - TAG_BYTES
MAX_ERROR_BYTES = 4096
ZERO_NONCE = bytes(12)
# A counter this high never comes; the reference implementation ends the connection there, too.
MAX_COUNTER = 2**64 - 1


def _blake2s(data: bytes) -> bytes:
    return hashlib.blake2s(data).digest()


def _hmac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.blake2s).digest()


def _hkdf(chaining_key: bytes, material: bytes) -> tuple[bytes, bytes]:
    """HKDF-BLAKE2s with empty info: 64 bytes, as two keys (RFC 5869)."""
    secret = _hmac(chaining_key, material)
    first = _hmac(secret, b"\x01")
    return first, _hmac(secret, first + b"\x02")


class _Symmetric:
    """The running hash and chaining key of a handshake (Noise §5.2)."""

    def __init__(self, version: int, server: MachinePublic) -> None:
        self.hash = self.chaining_key = _blake2s(PROTOCOL_NAME)
        self.mix_hash(PROLOGUE + str(version).encode())
        self.mix_hash(server.raw)

    def mix_hash(self, data: bytes) -> None:
        self.hash = _blake2s(self.hash + data)

    def mix_dh(self, private: MachinePrivate, public: MachinePublic) -> ChaCha20Poly1305:
        try:
            secret = private.exchange(public)
        except DecryptError as error:
            raise HandshakeError("a handshake key is of low order") from error
        self.chaining_key, key = _hkdf(self.chaining_key, secret)
        return ChaCha20Poly1305(key)

    def seal(self, aead: ChaCha20Poly1305, plaintext: bytes) -> bytes:
        sealed = aead.encrypt(ZERO_NONCE, plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, aead: ChaCha20Poly1305, sealed: bytes) -> bytes:
        try:
            plaintext = aead.decrypt(ZERO_NONCE, sealed, self.hash)
        except InvalidTag as error:
            raise HandshakeError("the handshake does not authenticate (wrong server key?)") from error
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """The transport keys: client to server, server to client."""
        return _hkdf(self.chaining_key, b"")


class Transport:
    """The record layer after the handshake: any bytes out as records, records in as bytes."""

    def __init__(self, send_key: bytes, receive_key: bytes) -> None:
        self._send = ChaCha20Poly1305(send_key)
        self._receive = ChaCha20Poly1305(receive_key)
        self._sent = 0
        self._received = 0
        self._buffer = bytearray()

    def __repr__(self) -> str:
        return f"Transport(sent={self._sent}, received={self._received})"

    def encrypt(self, plaintext: bytes) -> bytes:
        """``plaintext`` of any length as records ready to send; an empty one gives one empty record."""
        if len(plaintext) <= MAX_PLAINTEXT:
            return self._record(plaintext)
        view = memoryview(plaintext)
        pieces = (view[at : at + MAX_PLAINTEXT] for at in range(0, len(plaintext), MAX_PLAINTEXT))
        return b"".join(self._record(piece) for piece in pieces)

    def _record(self, plaintext: bytes | memoryview) -> bytes:
        if self._sent >= MAX_COUNTER:
            raise DecryptError("the record counter is used up")
        sealed = self._send.encrypt(struct.pack(">4xQ", self._sent), plaintext, None)
        self._sent += 1
        return struct.pack(">BH", RECORD, len(sealed)) + sealed

    def receive(self, data: bytes) -> bytes:
        """Bytes from the peer, cut anywhere; returns what they decrypt to so far.

        Raises :class:`FrameError`, :class:`DecryptError`: both end the connection.
        """
        self._buffer += data
        pieces: list[bytes] = []
        at, size = 0, len(self._buffer)
        while size - at >= HEADER_BYTES:
            kind, length = struct.unpack_from(">BH", self._buffer, at)
            self._check_header(kind, length)
            if size - at < HEADER_BYTES + length:
                break
            start = at + HEADER_BYTES
            pieces.append(self._open(bytes(self._buffer[start : start + length])))
            at = start + length
        if at:
            del self._buffer[:at]
        return b"".join(pieces)

    def _check_header(self, kind: int, length: int) -> None:
        if kind == ERROR:
            raise FrameError("the peer ended the connection with an error record")
        if kind != RECORD:
            raise FrameError(f"record type {kind} where {RECORD} is expected")
        if not TAG_BYTES <= length <= MAX_CIPHERTEXT:
            raise FrameError(f"record of {length} bytes (allowed: {TAG_BYTES} to {MAX_CIPHERTEXT})")

    def _open(self, sealed: bytes) -> bytes:
        try:
            plaintext = self._receive.decrypt(struct.pack(">4xQ", self._received), sealed, None)
        except InvalidTag as error:
            raise DecryptError("a record does not authenticate") from error
        self._received += 1
        return plaintext


class Initiator:
    """The client's side of one handshake. ``ephemeral``: 32 random bytes; ``version``: its capability."""

    def __init__(
        self, machine: MachinePrivate, server: MachinePublic, version: int, ephemeral: bytes
    ) -> None:
        self._machine = machine
        self._server = server
        self._version = version
        self._ephemeral = MachinePrivate.generate(ephemeral)
        self._state = _Symmetric(version, server)

    def initiation(self) -> bytes:
        """The 101 bytes to send first; tokens e, es, s, ss."""
        state, public = self._state, self._ephemeral.public()
        state.mix_hash(public.raw)
        sealed_static = state.seal(state.mix_dh(self._ephemeral, self._server), self._machine.public().raw)
        tag = state.seal(state.mix_dh(self._machine, self._server), b"")
        body = public.raw + sealed_static + tag
        return struct.pack(">HBH", self._version, INITIATION, len(body)) + body

    def finish(self, response: bytes) -> Transport:
        """Take the server's 51 bytes; tokens e, ee, se. Raises :class:`HandshakeError`."""
        if response[:1] == bytes([ERROR]):
            raise HandshakeError(f"the server refused: {error_text(response)}")
        if len(response) != RESPONSE_BYTES or struct.unpack_from(">BH", response) != (RESPONSE, 48):
            raise HandshakeError("not a Noise response")
        state, public = self._state, MachinePublic(response[3:35])
        state.mix_hash(public.raw)
        state.mix_dh(self._ephemeral, public)
        state.open(state.mix_dh(self._machine, public), response[35:51])
        send, receive = state.split()
        return Transport(send, receive)


@dataclass(frozen=True, slots=True)
class Accepted:
    """A finished handshake on the server: what to send, the record layer, who the peer is, its version."""

    response: bytes
    transport: Transport
    peer: MachinePublic
    version: int


class Responder:
    """The server's side of one handshake. ``ephemeral`` is 32 random bytes."""

    def __init__(self, static: MachinePrivate, ephemeral: bytes) -> None:
        self._static = static
        self._ephemeral = MachinePrivate.generate(ephemeral)

    def receive(self, initiation: bytes) -> Accepted:
        """Take a client's 101 bytes; raises :class:`HandshakeError`."""
        if len(initiation) != INITIATION_BYTES:
            raise HandshakeError(f"a Noise initiation has {INITIATION_BYTES} bytes, not {len(initiation)}")
        version, kind, length = struct.unpack_from(">HBH", initiation)
        if (kind, length) != (INITIATION, 96):
            raise HandshakeError("not a Noise initiation")
        state = _Symmetric(version, self._static.public())
        client_ephemeral = MachinePublic(initiation[5:37])
        state.mix_hash(client_ephemeral.raw)
        peer = MachinePublic(state.open(state.mix_dh(self._static, client_ephemeral), initiation[37:85]))
        state.open(state.mix_dh(self._static, peer), initiation[85:101])
        return self._respond(state, client_ephemeral, peer, version)

    def _respond(
        self, state: _Symmetric, client_ephemeral: MachinePublic, peer: MachinePublic, version: int
    ) -> Accepted:
        public = self._ephemeral.public()
        state.mix_hash(public.raw)
        state.mix_dh(self._ephemeral, client_ephemeral)
        tag = state.seal(state.mix_dh(self._ephemeral, peer), b"")
        receive, send = state.split()
        response = struct.pack(">BH", RESPONSE, 48) + public.raw + tag
        return Accepted(response, Transport(send, receive), peer, version)


def error_message(text: str) -> bytes:
    """An unauthenticated refusal, sent instead of a response."""
    body = text.encode()[:MAX_ERROR_BYTES]
    return struct.pack(">BH", ERROR, len(body)) + body


def error_text(message: bytes) -> str:
    """The text of an error message (bounded, undecodable bytes replaced)."""
    return message[HEADER_BYTES : HEADER_BYTES + MAX_ERROR_BYTES].decode("utf-8", "replace")
