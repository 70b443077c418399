"""Keys in their text and binary forms, and the boxes sealed with them.

Text is a prefix and lowercase hex of exact length. Private keys are Curve25519 scalars, clamped once at
creation; entropy is always an argument. Source: tailscale types/key.
"""

from __future__ import annotations

import base64
from functools import cached_property, total_ordering
from typing import ClassVar, Self

from nacl import bindings
from nacl.exceptions import CryptoError

from wire.errors import DecryptError, KeyFormatError

KEY_BYTES = 32
NONCE_BYTES = 24
TAG_BYTES = 16
BOX_OVERHEAD = NONCE_BYTES + TAG_BYTES
PRIVATE_PREFIX = "privkey:"
HEX_DIGITS = frozenset("0123456789abcdef")


def _from_hex(text: str, prefix: str) -> bytes:
    body = text[len(prefix) :]
    if not text.startswith(prefix) or len(body) != 2 * KEY_BYTES or not HEX_DIGITS.issuperset(body):
        raise KeyFormatError(f"not a {prefix or 'hexadecimal'} key of {2 * KEY_BYTES} lowercase hex digits")
    return bytes.fromhex(body)


def clamp(entropy: bytes) -> bytes:
    """32 random bytes made a Curve25519 scalar (RFC 7748 §5)."""
    if len(entropy) != KEY_BYTES:
        raise KeyFormatError(f"a key is made of {KEY_BYTES} random bytes, not {len(entropy)}")
    scalar = bytearray(entropy)
    scalar[0] &= 0xF8
    scalar[31] = (scalar[31] & 0x7F) | 0x40
    return bytes(scalar)


@total_ordering
class PublicKey:
    """32 bytes with a kind; equal only to a key of the same kind."""

    prefix: ClassVar[str] = ""
    __slots__ = ("_hash", "raw")

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise KeyFormatError(f"a public key has {KEY_BYTES} bytes, not {len(raw)}")
        self.raw = bytes(raw)
        self._hash = hash(self.raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        return cls(_from_hex(text, cls.prefix))

    @classmethod
    def zero(cls) -> Self:
        return cls(bytes(KEY_BYTES))

    @property
    def is_zero(self) -> bool:
        return not any(self.raw)

    @property
    def hex(self) -> str:
        return self.raw.hex()

    def __str__(self) -> str:
        return self.prefix + self.raw.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self})"

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.raw == self.raw

    def __lt__(self, other: Self) -> bool:
        return self.raw < other.raw


class MachinePublic(PublicKey):
    """A machine's identity in the control protocol (Noise static key)."""

    prefix = "mkey:"
    __slots__ = ()


class NodePublic(PublicKey):
    """A node's WireGuard and DERP identity."""

    prefix = "nodekey:"
    __slots__ = ()

    def short(self) -> str:
        """How logs name a node: ``[`` and the first five base64 characters ``]``."""
        return f"[{base64.b64encode(self.raw).decode()[:5]}]"


class DiscoPublic(PublicKey):
    """A node's key for path discovery; new at each start."""

    prefix = "discokey:"
    __slots__ = ()

    def short(self) -> str:
        return f"d:{self.raw.hex()[:16]}"


class ChallengePublic(PublicKey):
    """The public half of a node key challenge (early Noise payload)."""

    prefix = "chalpub:"
    __slots__ = ()


class SharedKey:
    """A precomputed NaCl box key between two parties (curve25519-xsalsa20-poly1305)."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def __repr__(self) -> str:
        return "SharedKey(redacted)"

    def seal(self, nonce: bytes, plaintext: bytes) -> bytes:
        """``nonce`` (24 bytes) ‖ box."""
        return nonce + bindings.crypto_box_easy_afternm(plaintext, nonce, self._key)

    def open(self, sealed: bytes) -> bytes:
        """The inverse of :meth:`seal`; raises :class:`DecryptError`."""
        if len(sealed) < BOX_OVERHEAD:
            raise DecryptError("a box is shorter than its nonce and tag")
        try:
            return bindings.crypto_box_open_easy_afternm(
                sealed[NONCE_BYTES:], sealed[:NONCE_BYTES], self._key
            )
        except CryptoError as error:
            raise DecryptError("a box does not open with these keys") from error


class PrivateKey:
    """A Curve25519 scalar; its text form exists for the key file only."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise KeyFormatError(f"a private key has {KEY_BYTES} bytes, not {len(raw)}")
        self.raw = bytes(raw)

    @classmethod
    def generate(cls, entropy: bytes) -> Self:
        """A new key from 32 random bytes."""
        return cls(clamp(entropy))

    @classmethod
    def parse(cls, text: str) -> Self:
        try:
            return cls(_from_hex(text, PRIVATE_PREFIX))
        except KeyFormatError:
            raise KeyFormatError("not a private key in its text form (privkey: and 64 hex digits)") from None

    def text(self) -> str:
        return PRIVATE_PREFIX + self.raw.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(redacted)"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and bindings.sodium_memcmp(other.raw, self.raw)

    def __hash__(self) -> int:
        return hash((type(self), self._public_raw))

    @cached_property
    def _public_raw(self) -> bytes:
        return bindings.crypto_scalarmult_base(self.raw)

    def exchange(self, public: PublicKey) -> bytes:
        """X25519(private, public); raises :class:`DecryptError` for a low-order public key."""
        try:
            return bindings.crypto_scalarmult(self.raw, public.raw)
        except (CryptoError, RuntimeError) as error:
            raise DecryptError("the public key is of low order") from error

    def shared(self, public: PublicKey) -> SharedKey:
        """The box key with ``public``, computed once for many boxes."""
        try:
            return SharedKey(bindings.crypto_box_beforenm(public.raw, self.raw))
        except (CryptoError, RuntimeError) as error:
            raise DecryptError("the public key is of low order") from error

    def seal_to(self, public: PublicKey, nonce: bytes, plaintext: bytes) -> bytes:
        return self.shared(public).seal(nonce, plaintext)

    def open_from(self, public: PublicKey, sealed: bytes) -> bytes:
        return self.shared(public).open(sealed)


class MachinePrivate(PrivateKey):
    def public(self) -> MachinePublic:
        return MachinePublic(self._public_raw)


class NodePrivate(PrivateKey):
    def public(self) -> NodePublic:
        return NodePublic(self._public_raw)


class DiscoPrivate(PrivateKey):
    def public(self) -> DiscoPublic:
        return DiscoPublic(self._public_raw)


class ChallengePrivate(PrivateKey):
    def public(self) -> ChallengePublic:
        return ChallengePublic(self._public_raw)
