"""Keys: text and bytes, boxes, redaction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nacl.public import Box
from nacl.public import PrivateKey as NaclPrivate
from nacl.public import PublicKey as NaclPublic

from tests.wire.strategies import entropy, key_bytes, nonces
from wire.errors import DecryptError, KeyFormatError, WireError
from wire.keys import (
    BOX_OVERHEAD,
    ChallengePrivate,
    ChallengePublic,
    DiscoPrivate,
    DiscoPublic,
    MachinePrivate,
    MachinePublic,
    NodePrivate,
    NodePublic,
    PrivateKey,
    PublicKey,
)

PUBLIC: list[type[PublicKey]] = [MachinePublic, NodePublic, DiscoPublic, ChallengePublic]
PRIVATE: list[type[PrivateKey]] = [MachinePrivate, NodePrivate, DiscoPrivate, ChallengePrivate]
LOW_ORDER = bytes(32)


@given(key_bytes, st.sampled_from(PUBLIC))
def test_text_round_trips(raw: bytes, kind: type[PublicKey]) -> None:
    key = kind(raw)
    assert kind.parse(str(key)) == key
    assert str(key) == kind.prefix + raw.hex()
    assert len({key, kind(raw)}) == 1


@given(key_bytes)
def test_keys_of_different_kinds_are_different(raw: bytes) -> None:
    assert MachinePublic(raw) != NodePublic(raw)
    with pytest.raises(KeyFormatError):
        NodePublic.parse(str(MachinePublic(raw)))


@given(st.text(max_size=90))
def test_other_texts_are_refused(text: str) -> None:
    for kind in PUBLIC:
        if text.startswith(kind.prefix) and len(text) == len(kind.prefix) + 64:
            continue
        with pytest.raises(KeyFormatError):
            kind.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "nodekey:" + "A" * 64,
        "nodekey:" + "0" * 63,
        "nodekey:" + "0" * 65,
        "nodekey:" + "٣" * 64,
        "NODEKEY:" + "0" * 64,
    ],
)
def test_only_exact_lowercase_hex_is_a_key(text: str) -> None:
    with pytest.raises(KeyFormatError):
        NodePublic.parse(text)


@given(st.binary(max_size=64).filter(lambda raw: len(raw) != 32))
def test_a_key_has_32_bytes(raw: bytes) -> None:
    for kind in (*PUBLIC, *PRIVATE):
        with pytest.raises(KeyFormatError):
            kind(raw)
    with pytest.raises(KeyFormatError):
        NodePrivate.generate(raw)


@given(entropy, st.sampled_from(PRIVATE))
def test_a_new_key_is_clamped_and_survives_its_file(raw: bytes, kind: type[PrivateKey]) -> None:
    key = kind.generate(raw)
    assert key.raw[0] & 7 == 0
    assert key.raw[31] & 0xC0 == 0x40
    assert kind.parse(key.text()) == key
    assert hash(kind.parse(key.text())) == hash(key)


@given(entropy)
def test_private_keys_do_not_show(raw: bytes) -> None:
    key = NodePrivate.generate(raw)
    assert key.raw.hex() not in repr(key)
    assert "redacted" in repr(key.shared(NodePrivate.generate(bytes(32)).public()))


def test_a_damaged_key_file_is_not_shown_in_the_error() -> None:
    secret = "f" * 63 + "x"
    with pytest.raises(KeyFormatError) as error:
        NodePrivate.parse(f"privkey:{secret}")
    assert secret not in str(error.value)


@given(entropy, entropy, nonces, st.binary(max_size=200))
def test_a_box_is_nacls_and_opens_with_either_half(a: bytes, b: bytes, nonce: bytes, text: bytes) -> None:
    ours, theirs = NodePrivate.generate(a), NodePrivate.generate(b)
    sealed = ours.seal_to(theirs.public(), nonce, text)
    assert len(sealed) == BOX_OVERHEAD + len(text)
    assert theirs.open_from(ours.public(), sealed) == text
    nacl = Box(NaclPrivate(theirs.raw), NaclPublic(ours.public().raw))
    assert nacl.decrypt(sealed) == text
    assert ours.shared(theirs.public()).open(bytes(nacl.encrypt(text, nonce))) == text


@given(entropy, entropy, nonces, st.binary(max_size=60), st.data())
def test_a_touched_box_does_not_open(
    a: bytes, b: bytes, nonce: bytes, text: bytes, data: st.DataObject
) -> None:
    ours, theirs = NodePrivate.generate(a), NodePrivate.generate(b)
    sealed = bytearray(ours.seal_to(theirs.public(), nonce, text))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DecryptError):
        theirs.open_from(ours.public(), bytes(sealed))


@given(st.binary(max_size=120))
def test_bytes_that_are_no_box_fail_as_declared(junk: bytes) -> None:
    with pytest.raises(WireError):
        NodePrivate.generate(bytes(32)).open_from(NodePublic(b"\x09" + bytes(31)), junk)


@pytest.mark.parametrize("operation", ["exchange", "shared"])
def test_a_key_of_low_order_is_refused(operation: str) -> None:
    with pytest.raises(DecryptError):
        getattr(MachinePrivate.generate(bytes(range(32))), operation)(MachinePublic(LOW_ORDER))


def test_how_logs_name_nodes() -> None:
    assert NodePublic(bytes(32)).short() == "[AAAAA]"
    assert DiscoPublic(bytes(range(32))).short() == "d:0001020304050607"
