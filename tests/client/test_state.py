"""The backend's states, and what each makes the node do."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.state import (
    EXPIRY_GRACE,
    Duties,
    Facts,
    State,
    duties,
    is_expired,
    next_expiry,
    state_of,
    without_expired,
)
from tests.client.fakes import netmap, node

JOINED = Facts(has_key=True, want_running=True, has_netmap=True, authorized=True, tunnel_up=True)
NOW = datetime(2026, 1, 1, tzinfo=UTC)
any_facts = st.builds(Facts, **{field.name: st.booleans() for field in fields(Facts)})


@pytest.mark.parametrize(
    ("facts", "state"),
    [
        (Facts(started=False), State.NO_STATE),
        (Facts(), State.NEEDS_LOGIN),
        (Facts(want_running=True), State.NEEDS_LOGIN),
        (replace(JOINED, want_running=False), State.STOPPED),
        (replace(JOINED, want_running=False, key_good=False), State.STOPPED),
        (replace(JOINED, key_good=False), State.NEEDS_LOGIN),
        (replace(JOINED, has_netmap=False, tunnel_up=False), State.STARTING),
        (replace(JOINED, authorized=False), State.NEEDS_MACHINE_AUTH),
        (replace(JOINED, authorized=False, tunnel_up=False), State.NEEDS_MACHINE_AUTH),
        (replace(JOINED, tunnel_up=False), State.STARTING),
        (JOINED, State.RUNNING),
        (replace(JOINED, login_open=True), State.RUNNING),
    ],
)
def test_facts_name_one_state(facts: Facts, state: State) -> None:
    assert state_of(facts) is state


def test_an_expired_node_listens_for_an_extension_but_carries_nothing() -> None:
    assert duties(replace(JOINED, key_good=False)) == Duties(control=True, tunnel=False)


def test_a_pending_node_has_its_tunnel_up_with_nobody_in_it() -> None:
    assert duties(replace(JOINED, authorized=False)) == Duties(control=True, tunnel=True)


def test_a_stopped_node_does_nothing_until_a_login_is_open() -> None:
    stopped = replace(JOINED, want_running=False)
    assert duties(stopped) == Duties(control=False, tunnel=False)
    assert duties(replace(stopped, login_open=True)) == Duties(control=True, tunnel=False)


@given(any_facts)
def test_a_running_node_has_both_duties(facts: Facts) -> None:
    if state_of(facts) is State.RUNNING:
        assert duties(facts) == Duties(control=True, tunnel=True)


@given(any_facts)
def test_no_tunnel_without_a_good_key_and_the_wish_to_run(facts: Facts) -> None:
    if duties(facts).tunnel:
        assert facts.has_key
        assert facts.key_good
        assert facts.want_running


@pytest.mark.parametrize(
    ("expiry", "expired"),
    [
        (None, False),
        (NOW + timedelta(seconds=1), False),
        (NOW, False),
        (NOW - EXPIRY_GRACE, True),
        (NOW - timedelta(days=1), True),
    ],
)
def test_a_key_expires_a_little_after_the_server_says(expiry: datetime | None, expired: bool) -> None:
    assert is_expired(netmap(own=node(1, key_expiry=expiry)), NOW) is expired


def test_the_servers_word_that_a_key_is_expired_counts_at_once() -> None:
    assert is_expired(netmap(own=node(1, expired=True)), NOW)


LATEST = datetime.max.replace(tzinfo=UTC)


def test_peers_whose_keys_have_run_out_are_marked_and_no_others() -> None:
    over, near = node(2, key_expiry=NOW - EXPIRY_GRACE), node(3, key_expiry=NOW)
    shown = netmap(over, near, node(4), node(5, key_expiry=LATEST))
    assert [peer.id for peer in without_expired(shown, NOW).peers.values() if peer.expired] == [2]
    assert without_expired(netmap(near, node(4)), NOW) == netmap(near, node(4))


def test_the_next_expiry_is_the_first_that_is_still_to_come() -> None:
    hour = timedelta(hours=1)
    shown = netmap(
        node(2, key_expiry=NOW + hour), node(3, key_expiry=NOW - hour), own=node(1, key_expiry=LATEST)
    )
    assert next_expiry(shown, NOW) == hour + EXPIRY_GRACE
    assert next_expiry(netmap(node(2)), NOW) is None


def test_the_last_moment_that_there_is_overflows_nothing() -> None:
    shown = netmap(own=node(1, key_expiry=LATEST))
    assert not is_expired(shown, NOW)
    assert next_expiry(shown, NOW) is not None
