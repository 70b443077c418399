"""When an initiation is sent once more."""

from __future__ import annotations

from client.magicsock.handshakes import INITIATION, INITIATION_BYTES, MAX_COPIES, RETRY_SECONDS, Handshake

PACKET = INITIATION.ljust(INITIATION_BYTES, b"x")
DATA = b"\4\0\0\0".ljust(INITIATION_BYTES, b"x")


def test_only_an_initiation_is_kept_and_the_newest() -> None:
    handshake = Handshake()
    assert handshake.copy(0.0) == b""
    handshake.sent([DATA, b""], 0.0)
    assert handshake.copy(0.0) == b""
    newer = PACKET[:-1] + b"y"
    handshake.sent([PACKET, DATA, newer], 0.0)
    assert handshake.copy(0.0) == newer


def test_it_is_worthless_once_wireguard_tries_again_or_the_peer_is_heard() -> None:
    handshake = Handshake()
    handshake.sent([PACKET], 0.0)
    assert handshake.copy(RETRY_SECONDS) == b""
    handshake.sent([PACKET], 10.0)
    handshake.heard()
    assert handshake.copy(10.0) == b""


def test_copies_are_few() -> None:
    handshake = Handshake()
    handshake.sent([PACKET], 0.0)
    assert [bool(handshake.copy(1.0)) for _ in range(MAX_COPIES + 1)] == [True] * MAX_COPIES + [False]
