"""Laws of a peer's path, over any history of events."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from client.magicsock.actions import Actions, Answered, CallPeer, SendDirect, SendRelay, UseDirect, UseRelay
from client.magicsock.candidates import HEARD_FOR, MAX_CANDIDATES, Candidates, parse_address
from client.magicsock.evidence import PATIENCE, TRUST
from client.magicsock.path import ACTIVE, HEARTBEAT, SILENCE, Path
from client.magicsock.pings import PING_TIMEOUT
from client.magicsock.states import TRANSITIONS, PeerInfo, Signal, State
from client.wireguard import PeerStatus
from tests.examples import examples
from wire.disco import CallMeMaybe, Ping, Pong
from wire.keys import DiscoPublic, NodePublic
from wire.paths import Reason

OWN = NodePublic(b"\1" * 32)
DISCO, OTHER_DISCO = DiscoPublic(b"\2" * 32), DiscoPublic(b"\3" * 32)
REGION = 900
ONE, TWO, THREE = ("203.0.113.1", 1000), ("192.168.1.2", 2000), ("2001:db8::3", 3000)
ADDRESSES = st.sampled_from([ONE, TWO, THREE])
DIRECT_STATES = (State.DIRECT, State.DOUBTED)


def entropy() -> itertools.count[int]:
    return itertools.count()


def new_path(*, endpoints: tuple[tuple[str, int], ...] = (ONE, TWO), disco: DiscoPublic = DISCO) -> Path:
    counter = entropy()
    path = Path(own_key=OWN, entropy=lambda n: next(counter).to_bytes(n))
    path.netmap_changed(PeerInfo(disco=disco, home=REGION, endpoints=endpoints), 0.0)
    return path


def pings_to(actions: Actions, address: tuple[str, int] | None) -> list[Ping]:
    """The pings among ``actions``; ``None`` = those by relay."""
    if address is None:
        return [a.message for a in actions if isinstance(a, SendRelay) and isinstance(a.message, Ping)]
    return [
        a.message
        for a in actions
        if isinstance(a, SendDirect) and a.to == address and isinstance(a.message, Ping)
    ]


def answer(path: Path, actions: Actions, address: tuple[str, int] | None, now: float) -> Actions:
    ping = pings_to(actions, address)[-1]
    return path.got_pong(Pong(ping.txid, ("198.51.100.9", 9)), address, REGION, now)


def direct_path(address: tuple[str, int] = ONE, now: float = 0.0) -> Path:
    path = new_path()
    answer(path, path.outgoing(now), address, now + 0.02)
    assert path.endpoint == address
    return path


def run(path: Path, start: float, end: float) -> Actions:
    """Let time pass, with ticks when they are due."""
    actions: Actions = []
    now = start
    while path.deadline is not None and path.deadline <= end:
        now = max(now, path.deadline)
        actions += path.tick(now)
    return actions


# --- any history -----------------------------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Everything that can happen to a path, in any order, answered pings and forged ones."""

    @initialize()
    def begin(self) -> None:
        self.now = 0.0
        self.path = new_path()
        self.used: tuple[str, int] | None = None
        self.pings: list[tuple[Ping, tuple[str, int] | None]] = []
        self.rx = self.tx = 0
        self.quiet_since = 0.0

    def do(self, actions: Actions) -> None:
        for action in actions:
            match action:
                case UseDirect(endpoint):
                    self.used = endpoint
                case UseRelay():
                    self.used = None
                case SendDirect(to, Ping() as ping):
                    self.pings.append((ping, to))
                case SendRelay(_, Ping() as ping):
                    self.pings.append((ping, None))
                case CallPeer(region) | SendRelay(region, _):
                    assert region == REGION
                case SendDirect() | Answered():
                    pass

    @rule(seconds=st.floats(0.01, 90))
    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        for _ in range(10_000):
            if self.path.deadline is None or self.path.deadline > end:
                break
            due = max(self.now, self.path.deadline)
            self.now = due
            self.do(self.path.tick(due))
            assert self.path.deadline is None or self.path.deadline > due, (
                "a tick must not be due again at once"
            )
        else:
            raise AssertionError("time does not pass")
        self.now = end

    @rule(endpoint=st.one_of(st.none(), ADDRESSES, st.just(("127.0.0.1", 7))), rx=st.integers(0, 2))
    def poll(self, endpoint: tuple[str, int] | None, rx: int) -> None:
        self.rx += rx * 100
        seen = PeerStatus(endpoint=endpoint, rx_bytes=self.rx, tx_bytes=self.tx)
        self.do(self.path.polled(seen, self.now, since=self.now))

    @rule()
    def poll_what_was_set(self) -> None:
        seen = PeerStatus(endpoint=self.used, rx_bytes=self.rx, tx_bytes=self.tx)
        self.do(self.path.polled(seen, self.now, since=self.now))

    @rule(size=st.integers(1, 3))
    def send(self, size: int) -> None:
        self.tx += size * 100
        if self.used is None:
            self.do(self.path.outgoing(self.now))

    @rule()
    def relayed(self) -> None:
        self.do(self.path.relayed(REGION, self.now))

    @rule(data=st.data())
    def pong(self, data: st.DataObject) -> None:
        if self.pings:
            ping, to = self.pings.pop(data.draw(st.integers(0, len(self.pings) - 1)))
            self.do(self.path.got_pong(Pong(ping.txid, ONE), to, REGION, self.now))

    @rule(address=st.one_of(st.none(), ADDRESSES))
    def forged_pong(self, address: tuple[str, int] | None) -> None:
        before = self.path.endpoint, self.path.state
        self.do(self.path.got_pong(Pong(b"never sent..", ONE), address, REGION, self.now))
        assert (self.path.endpoint, self.path.state) == before

    @rule(address=st.one_of(st.none(), ADDRESSES), txid=st.binary(min_size=12, max_size=12))
    def ping(self, address: tuple[str, int] | None, txid: bytes) -> None:
        actions = self.path.got_ping(Ping(txid), address, REGION, self.now)
        self.do(actions)
        pongs = [a for a in actions if isinstance(a, SendDirect | SendRelay) and isinstance(a.message, Pong)]
        assert len(pongs) <= 1

    @rule(addresses=st.lists(ADDRESSES, max_size=3))
    def call(self, addresses: list[tuple[str, int]]) -> None:
        self.do(self.path.got_call(CallMeMaybe(tuple(addresses)), REGION, self.now))

    @rule()
    def relay_gone(self) -> None:
        self.path.relay_gone(REGION)

    @rule(disco=st.sampled_from([DISCO, OTHER_DISCO]), addresses=st.lists(ADDRESSES, max_size=3))
    def netmap(self, disco: DiscoPublic, addresses: list[tuple[str, int]]) -> None:
        info = PeerInfo(disco=disco, home=REGION, endpoints=tuple(addresses))
        self.do(self.path.netmap_changed(info, self.now))

    @rule()
    def link(self) -> None:
        self.do(self.path.link_changed(self.now))

    @rule()
    def user_ping(self) -> None:
        self.do(self.path.ping(1, self.now))

    @rule(address=ADDRESSES)
    def adopt(self, address: tuple[str, int]) -> None:
        self.do(self.path.adopt(address, self.now))

    @invariant()
    def every_change_was_announced(self) -> None:
        """The driver that does what it is told has WireGuard where the path is."""
        assert self.used == self.path.endpoint

    @invariant()
    def state_and_endpoint_agree(self) -> None:
        assert (self.path.endpoint is not None) == (self.path.state in DIRECT_STATES)

    @invariant()
    def loopback_is_never_a_direct_endpoint(self) -> None:
        assert self.path.endpoint is None or not self.path.endpoint[0].startswith("127.")

    def teardown(self) -> None:
        """Left alone, every path falls silent."""
        self.wait(ACTIVE + 90)
        sent = len(self.pings)
        self.wait(3600)
        assert len(self.pings) == sent
        assert self.path.deadline is None
        assert self.path.state in (State.RELAYED, State.DOUBTED)


Histories.TestCase.settings = settings(max_examples=examples(3), stateful_step_count=40)
TestHistories = Histories.TestCase


def test_the_table_leads_everywhere_and_back() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) == set(TRANSITIONS.values())
    assert {signal for _, signal in TRANSITIONS} == set(Signal)


# --- becoming direct -------------------------------------------------------------------------------------


def test_the_first_packet_to_the_relay_starts_discovery_at_once() -> None:
    path = new_path()
    actions = path.outgoing(1.0)
    assert len(pings_to(actions, ONE)) == len(pings_to(actions, TWO)) == 1
    assert CallPeer(REGION) in actions
    assert path.outgoing(1.1) == []


def test_a_pong_makes_direct() -> None:
    path = new_path()
    assert UseDirect(ONE) in answer(path, path.outgoing(0.0), ONE, 0.02)
    assert path.state is State.DIRECT


def test_a_pong_that_is_late_or_comes_another_way_is_worth_nothing() -> None:
    path = new_path()
    actions = path.outgoing(0.0)
    ping = pings_to(actions, ONE)[0]
    assert path.got_pong(Pong(ping.txid, ONE), None, REGION, 0.1) == []
    assert path.got_pong(Pong(ping.txid, ONE), ONE, 0, PING_TIMEOUT + 0.1) == []
    assert path.endpoint is None


def test_the_better_address_wins_and_equal_ones_do_not_alternate() -> None:
    path = new_path()
    actions = path.outgoing(0.0)
    answer(path, actions, ONE, 0.020)
    assert UseDirect(TWO) in answer(path, actions, TWO, 0.021)  # private: about as quick, and nearer
    path = new_path(endpoints=(ONE, ("203.0.113.9", 9)))
    actions = path.outgoing(0.0)
    answer(path, actions, ONE, 0.0200)
    assert answer(path, actions, ("203.0.113.9", 9), 0.0199) == []


def test_a_ping_from_an_unknown_address_makes_it_a_candidate_and_is_answered_with_a_ping() -> None:
    path = new_path(endpoints=())
    path.outgoing(0.0)
    actions = path.got_ping(Ping(b"x" * 12), THREE, 0, 1.0)
    assert SendDirect(THREE, Pong(b"x" * 12, THREE)) in actions
    assert len(pings_to(actions, THREE)) == 1
    assert path.got_ping(Ping(b"x" * 12), THREE, 0, 1.1) == []  # the same ping once more


def test_an_idle_node_answers_pings_but_does_not_ping_back() -> None:
    path = new_path(endpoints=())
    actions = path.got_ping(Ping(b"x" * 12), THREE, 0, 1.0)
    assert actions == [SendDirect(THREE, Pong(b"x" * 12, THREE))]


def test_a_call_makes_us_ping_all_even_when_idle_and_just_pinged() -> None:
    path = new_path()
    path.outgoing(0.0)
    actions = path.got_call(CallMeMaybe((ONE, THREE)), REGION, 1.5)
    assert all(len(pings_to(actions, address)) == 1 for address in (ONE, TWO, THREE))
    assert len(pings_to(path.got_call(CallMeMaybe((ONE, THREE)), REGION, 1.6), ONE)) == 0


def test_a_peer_without_disco_is_never_pinged() -> None:
    path = new_path(disco=DiscoPublic.zero())
    actions = path.outgoing(0.0) + run(path, 0.0, 100.0)
    assert not [a for a in actions if isinstance(a, SendDirect | SendRelay | CallPeer)]
    assert path.reason(1.0) is Reason.NO_DISCO


# --- trust -----------------------------------------------------------------------------------------------


def poll(path: Path, now: float, rx: int, endpoint: tuple[str, int] | None = ONE) -> Actions:
    return path.polled(PeerStatus(endpoint=endpoint, rx_bytes=rx, tx_bytes=rx), now, since=now)


def test_without_pongs_trust_ends_but_the_relay_must_be_there_first() -> None:
    path = direct_path()
    actions = run(path, 0.02, TRUST + 1)
    assert path.state is State.DOUBTED
    assert path.endpoint == ONE
    assert UseRelay() not in actions
    assert UseRelay() in answer(path, actions, None, TRUST + 1.1)
    assert path.state is State.PROBING


def test_an_address_that_just_failed_gets_a_moment_before_the_relay_takes_over() -> None:
    path = direct_path()
    actions = path.link_changed(1.0)
    assert UseRelay() not in answer(path, actions, None, 1.05)
    assert path.state is State.DOUBTED
    assert UseRelay() in run(path, 1.05, 2.0)


def test_an_address_that_still_works_survives_a_change_of_links() -> None:
    path = direct_path()
    actions = path.link_changed(1.0)
    answer(path, actions, ONE, 1.02)
    answer(path, actions, None, 1.05)
    assert UseRelay() not in run(path, 1.05, 3.0)
    assert path.state is State.DIRECT


def test_bytes_that_come_in_vouch_for_the_address_while_the_daemon_is_dead() -> None:
    path = direct_path()
    for second in range(1, 120):
        run(path, second - 1, second)
        poll(path, float(second), rx=second * 100)
        assert path.state is State.DIRECT


def test_bytes_that_were_injected_from_the_relay_vouch_for_nothing() -> None:
    path = direct_path()
    for second in range(1, 12):
        run(path, second - 1, second)
        path.relayed(REGION, second - 0.2)
        poll(path, float(second), rx=second * 100)
    assert path.endpoint is None


def test_injected_bytes_do_not_confirm_an_address_in_doubt() -> None:
    path = direct_path()
    poll(path, 1.0, 100)
    path.link_changed(2.0)
    path.relayed(REGION, 2.1)
    poll(path, 2.2, 200)
    assert path.state is not State.DIRECT


def test_bytes_do_not_vouch_when_the_daemon_answers_by_relay_only() -> None:
    path, now, rx = direct_path(), 0.02, 0
    while path.endpoint is not None and now < 60:
        now, rx = now + 0.5, rx + 100
        for action in run(path, now - 0.5, now):
            if isinstance(action, SendRelay) and isinstance(action.message, Ping):
                path.got_pong(Pong(action.message.txid, ONE), None, REGION, now)
        poll(path, now, rx)
    assert PATIENCE < now < PATIENCE + TRUST + 5


def test_a_failed_address_does_not_lure_us_back_until_it_answers() -> None:
    path = direct_path()
    actions = run(path, 0.02, TRUST + 1)
    answer(path, actions, None, 8.0)
    assert path.endpoint is None
    assert poll(path, 9.0, 100, ONE)[-1] == UseRelay()
    assert UseDirect(ONE) in answer(path, path.got_call(CallMeMaybe((ONE,)), REGION, 9.5), ONE, 9.52)


# --- the engine ------------------------------------------------------------------------------------------


def test_where_wireguard_roamed_to_is_followed_and_asked() -> None:
    path = direct_path()
    poll(path, 1.0, 100)
    actions = poll(path, 2.0, 200, THREE)
    assert UseDirect(THREE) in actions
    assert len(pings_to(actions, THREE)) == 1


def test_a_tunnel_that_snapped_back_to_the_relay_is_put_right() -> None:
    path = direct_path()
    poll(path, 1.0, 100)
    assert UseDirect(ONE) in poll(path, 2.0, 200, None)


def test_an_endpoint_that_is_nobodys_is_put_right() -> None:
    path = new_path()
    assert UseRelay() in poll(path, 2.0, 0, ("127.0.0.1", 5))


def test_what_was_seen_before_the_last_change_is_old_news() -> None:
    path = direct_path(now=5.0)
    seen = PeerStatus(endpoint=None, rx_bytes=0, tx_bytes=0)
    assert path.polled(seen, 5.1, since=4.9) == []


def test_a_running_tunnel_is_adopted_and_asked() -> None:
    path = new_path()
    actions = path.adopt(THREE, 100.0)
    assert UseDirect(THREE) in actions
    assert len(pings_to(actions, THREE)) == 1
    assert path.state is State.DIRECT


def test_a_rotated_key_begins_its_counters_anew_and_counts_as_nothing() -> None:
    path = direct_path()
    poll(path, 1.0, 5000)
    poll(path, 2.0, 100)
    run(path, 2.0, TRUST + 1)
    assert path.state is State.DOUBTED


def test_an_adopted_address_that_never_answers_gives_way_to_one_that_does() -> None:
    path = new_path()
    path.adopt(THREE, 100.0)
    for second in range(101, 108):
        run(path, second - 1, second)
        poll(path, float(second), second * 100, THREE)
    assert UseDirect(ONE) in answer(path, path.got_call(CallMeMaybe((ONE,)), REGION, 108.0), ONE, 108.1)


# --- sessions --------------------------------------------------------------------------------------------


def test_heartbeats_go_to_the_address_in_use_only() -> None:
    path = direct_path()
    for second in range(1, 30):
        poll(path, float(second), second * 100)
        for action in run(path, second, second + 1):
            if isinstance(action, SendDirect) and isinstance(action.message, Ping):
                assert action.to == ONE
                path.got_pong(Pong(action.message.txid, ONE), ONE, 0, second + 1.0)
    assert path.state is State.DIRECT


def test_a_better_address_is_looked_for_once_a_minute() -> None:
    path, looked = direct_path(), []
    for second in range(1, 200):
        poll(path, second + 0.5, second * 100)
        for action in run(path, second, second + 1):
            if isinstance(action, SendDirect) and isinstance(action.message, Ping):
                if action.to == TWO:
                    looked.append(second)
                else:
                    path.got_pong(Pong(action.message.txid, ONE), action.to, 0, second + 1.02)
    assert 3 <= len(looked) <= 4


def test_an_idle_session_goes_back_to_the_relay_once_the_peer_is_known_to_be_there() -> None:
    path, now = direct_path(), 0.02
    relay_asked = 0
    while now < 2 * ACTIVE:
        now += 0.5
        for action in run(path, now - 0.5, now):
            if isinstance(action, SendDirect) and isinstance(action.message, Ping):
                path.got_pong(Pong(action.message.txid, ONE), action.to, 0, now)
            elif isinstance(action, SendRelay) and isinstance(action.message, Ping):
                relay_asked += 1
                path.got_pong(Pong(action.message.txid, ONE), None, REGION, now)
    assert path.state is State.RELAYED
    assert relay_asked <= 2
    assert path.deadline is None


def test_silence_on_the_relay_sends_the_next_session_to_the_last_good_address() -> None:
    path = direct_path()
    run(path, 0.02, 60.0)
    path.got_ping(Ping(b"r" * 12), None, REGION, 60.0)
    assert path.state is State.RELAYED
    path.outgoing(1000.0)
    actions = run(path, 1000.0, 1000.0 + SILENCE)
    assert UseDirect(ONE) in actions
    assert path.state is State.DOUBTED
    assert UseRelay() in path.relayed(REGION, 1006.5) + run(path, 1006.5, 1008.0)


def test_relay_traffic_while_direct_makes_us_ping_but_not_for_every_packet() -> None:
    path = direct_path()
    run(path, 0.02, HEARTBEAT)
    actions = path.relayed(REGION, HEARTBEAT + 0.1)
    assert len(pings_to(actions, ONE)) == 1
    assert path.relayed(REGION, HEARTBEAT + 0.2) == []


# --- people ----------------------------------------------------------------------------------------------


def test_a_persons_ping_tries_every_way_and_reports_each_answer() -> None:
    path = new_path()
    actions = path.ping(7, 1.0)
    assert pings_to(actions, None)
    assert pings_to(actions, ONE)
    first = pings_to(actions, None)[0]
    got = path.got_pong(Pong(first.txid, ONE), None, REGION, 1.25)
    assert Answered(7, 0.25, None, REGION) in got


def test_a_persons_ping_uses_the_trusted_path_only() -> None:
    path = direct_path()
    actions = path.ping(7, 1.0)
    assert len(pings_to(actions, ONE)) == 1
    assert not pings_to(actions, TWO)
    assert not pings_to(actions, None)


# --- netmaps ---------------------------------------------------------------------------------------------


def test_a_peer_that_gets_its_relay_in_the_middle_of_a_session_is_called() -> None:
    path = new_path()
    path.netmap_changed(PeerInfo(disco=DISCO, home=0, endpoints=(ONE,)), 0.0)
    assert not [action for action in path.outgoing(1.0) if isinstance(action, CallPeer)]
    assert CallPeer(REGION) in path.netmap_changed(PeerInfo(disco=DISCO, home=REGION, endpoints=(ONE,)), 1.2)


def test_a_new_endpoint_is_tried_at_once_while_a_path_is_looked_for() -> None:
    path = new_path()
    path.outgoing(1.0)
    actions = path.netmap_changed(PeerInfo(disco=DISCO, home=REGION, endpoints=(ONE, THREE)), 1.2)
    assert len(pings_to(actions, THREE)) == 1
    assert not pings_to(actions, ONE)


def test_a_restarted_peer_is_asked_anew_under_its_new_key() -> None:
    path = new_path()
    old = pings_to(path.outgoing(1.0), ONE)[0]
    actions = path.netmap_changed(PeerInfo(disco=OTHER_DISCO, home=REGION, endpoints=(ONE, TWO)), 1.5)
    assert len(pings_to(actions, ONE)) == len(pings_to(actions, TWO)) == 1
    assert path.got_pong(Pong(old.txid, ONE), ONE, 0, 1.6) == []
    assert path.endpoint is None


def test_a_peer_that_moves_all_the_time_fills_no_memory() -> None:
    candidates = Candidates()
    for second in range(10 * MAX_CANDIDATES):
        candidates.keep((f"198.51.100.{second % 250 + 1}", second + 1), float(second))
    assert len(candidates) <= HEARD_FOR + 2


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1:5", ("192.0.2.1", 5)),
        ("[2001:db8::1]:5", ("2001:db8::1", 5)),
        ("[::ffff:127.0.0.1]:5", ("127.0.0.1", 5)),
        ("[2001:db8::1%eth0]:5", None),
        ("[2001:db8::1%a\nb]:5", None),
        ("name.example.com:5", None),
    ],
)
def test_endpoints_are_addresses_and_ports(text: str, address: tuple[str, int] | None) -> None:
    assert parse_address(text) == address


def test_a_session_that_begins_right_after_a_call_also_ends() -> None:
    path = new_path()
    answer(path, path.got_call(CallMeMaybe(()), REGION, 0.0), ONE, 0.0)
    path.relayed(REGION, 0.0)
    run(path, 0.0, ACTIVE + 90)
    assert not run(path, ACTIVE + 90, 3600.0)
