"""What waits until the netmap knows whose it is."""

from __future__ import annotations

from client.magicsock.early import MAX_SENDERS, Early
from client.magicsock.handshakes import INITIATION, INITIATION_BYTES, RETRY_SECONDS
from tests.client.fakes import key

PACKET = INITIATION.ljust(INITIATION_BYTES, b"x")
SENDER = key(1).public()


def test_the_newest_beginning_is_given_once_and_nothing_else_is_kept() -> None:
    early = Early()
    early.keep(SENDER, [b"\4\0\0\0".ljust(INITIATION_BYTES, b"x"), INITIATION], 0.0)
    assert early.senders == ()
    newer = PACKET[:-1] + b"y"
    early.keep(SENDER, [PACKET, newer], 0.0)
    assert early.senders == (SENDER,)
    assert early.take(SENDER, 1.0) == newer
    assert early.take(SENDER, 1.0) == b""


def test_it_is_worthless_once_the_sender_tries_again() -> None:
    early = Early()
    early.keep(SENDER, [PACKET], 0.0)
    assert early.take(SENDER, RETRY_SECONDS) == b""


def test_of_many_senders_the_newest_are_remembered() -> None:
    early = Early()
    senders = [key(number).public() for number in range(1, MAX_SENDERS + 3)]
    for sender in (*senders, senders[2]):
        early.keep(sender, [PACKET], 0.0)
    assert len(early.senders) == MAX_SENDERS
    assert early.senders[-1] == senders[2]
    assert senders[0] not in early.senders
