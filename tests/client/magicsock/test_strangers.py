"""Who is heard without a session is greeted once a session that only begins would be there."""

from __future__ import annotations

from client.magicsock.path import Path
from client.magicsock.peers import Peer
from client.magicsock.strangers import RETRY_SECONDS, SETTLE_SECONDS, Strangers, in_session
from client.wireguard import PeerStatus
from tests.client.fakes import key, node

SHAKEN = PeerStatus(last_handshake=1_800_000_000.0)


def peer(number: int = 2) -> Peer:
    return Peer(node(number), Path(own_key=key(1).public(), entropy=bytes))


def test_a_peer_without_a_session_is_greeted_after_a_moment_and_not_at_once_again() -> None:
    strangers, ben, cem = Strangers(), peer(2), peer(3)
    assert strangers.heard(ben, 10.0)
    assert not strangers.heard(ben, 10.1)
    assert strangers.expects
    assert strangers.due([ben, cem], 10.0 + SETTLE_SECONDS / 2) == []
    now = 10.0 + SETTLE_SECONDS
    assert strangers.due([ben, cem], now) == [ben]
    assert not strangers.expects
    assert not strangers.heard(ben, now + RETRY_SECONDS / 2)
    assert strangers.heard(ben, now + RETRY_SECONDS)


def test_a_session_that_was_only_beginning_is_left_alone() -> None:
    strangers, ben = Strangers(), peer()
    strangers.heard(ben, 10.0)
    ben.status = SHAKEN
    assert strangers.due([ben], 20.0) == []
    assert not strangers.expects
    assert not strangers.heard(ben, 30.0)


def test_who_left_is_forgotten() -> None:
    strangers, ben = Strangers(), peer()
    strangers.heard(ben, 10.0)
    strangers.forget(ben)
    assert not strangers.expects


def test_only_messages_within_a_session_are_a_sign_of_one() -> None:
    assert in_session(b"\x04\0\0\0rest")
    assert not in_session(b"\x01\0\0\0rest")
    assert not in_session(b"\x04")
