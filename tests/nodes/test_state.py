"""The table of a node's life, and the node that the services keep, against a model of it."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import pytest
from django.core.cache import cache
from django.utils import timezone
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from accounts.actors import Actor
from accounts.errors import ApplicationError, Conflict
from accounts.tenancy import scope
from nodes.models import Node
from nodes.services import lifecycle
from nodes.services.enrolment import Machine
from nodes.services.logins import confirm_login, find_login
from nodes.services.registration import Outcome, RegistrationRequest, RegistrationResult, answer_registration
from nodes.state import (
    KEY_IS_GOOD,
    TRANSITIONS,
    ForbiddenTransition,
    NodeEvent,
    NodeState,
    login_event,
    next_state,
)
from tests.accounts import factories as people
from tests.examples import examples
from tests.nodes import factories

LONG_AGO = datetime.fromisoformat("1970-01-01T00:02:03+00:00")
BY_PEOPLE = [
    NodeEvent.APPROVE,
    NodeEvent.UNAPPROVE,
    NodeEvent.EXPIRE,
    NodeEvent.REJECT,
    NodeEvent.DELETE,
]
PAIRS = list(itertools.product(NodeState, NodeEvent))


@pytest.mark.parametrize(("state", "event"), PAIRS)
def test_each_pair_is_a_row_or_refused(state: NodeState, event: NodeEvent) -> None:
    if (state, event) in TRANSITIONS:
        assert next_state(state, event) is TRANSITIONS[state, event]
    else:
        with pytest.raises(ForbiddenTransition):
            next_state(state, event)


def test_nothing_leaves_deleted_and_everything_reaches_it() -> None:
    assert not [state for state, _ in TRANSITIONS if state is NodeState.DELETED]
    for state in set(NodeState) - {NodeState.DELETED}:
        assert next_state(state, NodeEvent.DELETE) is NodeState.DELETED


def test_only_a_login_or_approval_makes_active() -> None:
    into = {event for (_, event), after in TRANSITIONS.items() if after is NodeState.ACTIVE}
    assert into == {NodeEvent.LOGIN, NodeEvent.APPROVE, NodeEvent.RESTART, NodeEvent.ROTATE}
    for event in (NodeEvent.RESTART, NodeEvent.ROTATE):
        assert {state for state, found in TRANSITIONS if found is event} == KEY_IS_GOOD


def test_a_good_key_never_needs_a_login_and_a_bad_one_always_does() -> None:
    for state in (NodeState.EXPIRED, NodeState.LOGGED_OUT):
        ways_back = {
            event for (found, event), after in TRANSITIONS.items() if found is state and after in KEY_IS_GOOD
        }
        assert ways_back == {NodeEvent.LOGIN, NodeEvent.LOGIN_UNAPPROVED}


def test_a_device_that_is_no_longer_approved_waits_or_needs_a_login() -> None:
    after = {state: end for (state, event), end in TRANSITIONS.items() if event is NodeEvent.UNAPPROVE}
    assert after.pop(NodeState.ACTIVE) is NodeState.PENDING
    assert all(state is end for state, end in after.items())


def test_approval_decides_which_login_it_is() -> None:
    assert login_event(approved=True) is NodeEvent.LOGIN
    assert login_event(approved=False) is NodeEvent.LOGIN_UNAPPROVED


class NodeLife(RuleBasedStateMachine):
    """One machine of one person, whatever happens to it, and in which order; time only moves by rule."""

    @initialize()
    def begin(self) -> None:
        cache.clear()
        self.asked = itertools.count()
        self.tailnet, self.owner = people.tailnet()
        self.now = timezone.now()
        self.machine_key, self.key = factories.machine_key(), factories.node_key()
        self.old_keys: list[str] = []
        self.state = NodeState.DELETED
        self.approved = False
        self.expiry = self.now
        self.identity: tuple[int, str, str] | None = None
        self.deleted_ids: set[int] = set()

    # --- helpers -----------------------------------------------------------------------------------------

    def ask(self, key: str | None = None, **values: object) -> RegistrationResult:
        expiry = values.pop("expiry", None)
        machine = Machine(
            machine_key=self.machine_key,
            node_key=key or self.key,
            hostinfo={"Hostname": "h"},
            expiry=expiry,  # type: ignore[arg-type]
        )
        # Each time from elsewhere: one place may not ask as often as this.
        number = next(self.asked)
        place = f"198.18.{number // 256}.{number % 256}"
        request = RegistrationRequest(machine=machine, client_address=place, **values)  # type: ignore[arg-type]
        return answer_registration(request=request, now=self.now)

    def node(self) -> Node:
        with scope(tailnet=self.tailnet):
            return Node.objects.get()

    def key_is_good(self) -> bool:
        return self.state in KEY_IS_GOOD and self.expiry > self.now

    def logged_in(self, key: str) -> None:
        if self.key != key:
            self.old_keys.append(self.key)
        self.key = key
        self.state = NodeState.ACTIVE if self.approved else NodeState.PENDING
        self.expiry = self.now + timedelta(days=180)

    def gone(self) -> None:
        assert self.identity is not None
        self.deleted_ids.add(self.identity[0])
        self.identity, self.state, self.approved = None, NodeState.DELETED, False

    # --- what the machine does ---------------------------------------------------------------------------

    @rule()
    def restarts(self) -> None:
        result = self.ask()
        if self.key_is_good():
            assert result.outcome is Outcome.REGISTERED
        elif self.state is NodeState.DELETED:
            assert result.outcome is Outcome.AUTH_URL
        else:
            assert result.outcome is Outcome.KEY_EXPIRED

    @rule(preauthorized=st.booleans())
    def joins_by_key(self, preauthorized: bool) -> None:
        key = factories.node_key()
        text = factories.auth_key(self.tailnet, self.owner, preauthorized=preauthorized)
        with scope(tailnet=self.tailnet):
            lives = self.tailnet.auth_keys.latest("pk")
            type(lives).objects.filter(pk=lives.pk).update(expires=self.now + timedelta(days=1))
        assert self.ask(key, auth_key=text).outcome is Outcome.REGISTERED
        self.approved = self.approved or preauthorized
        self.logged_in(key)

    @rule()
    def logs_in_with_a_person(self) -> None:
        key = factories.node_key()
        result = self.ask(key, old_node_key=self.key)
        assert result.outcome is Outcome.AUTH_URL
        pending = find_login(token=result.token, now=self.now)
        confirm_login(pending=pending, user=self.owner, tailnet=self.tailnet, now=self.now)
        assert self.ask(key, followup=result.token).outcome is Outcome.REGISTERED
        self.logged_in(key)

    @rule()
    def rotates(self) -> None:
        key = factories.node_key()
        result = self.ask(key, old_node_key=self.key, rotate=True)
        if self.key_is_good():
            assert result.outcome is Outcome.REGISTERED
            self.old_keys.append(self.key)
            self.key = key
        else:
            assert result.outcome is Outcome.AUTH_URL

    @precondition(lambda self: self.old_keys)
    @rule()
    def comes_back_with_an_old_key(self) -> None:
        assert self.ask(self.old_keys[-1]).outcome is Outcome.AUTH_URL

    @rule()
    def logs_out(self) -> None:
        assert self.ask(expiry=LONG_AGO).outcome is Outcome.KEY_EXPIRED
        if self.state is not NodeState.DELETED:
            if self.state is not NodeState.LOGGED_OUT:
                self.expiry = self.now
            self.state = NodeState.LOGGED_OUT

    @rule(days=st.integers(1, 400))
    def asks_for_an_expiry(self, days: int) -> None:
        wanted = self.now + timedelta(days=days)
        self.ask(expiry=wanted)
        if self.key_is_good():
            self.expiry = min(self.expiry, wanted)

    # --- what people and time do -------------------------------------------------------------------------

    @rule(days=st.integers(1, 120))
    def time_passes(self, days: int) -> None:
        self.now += timedelta(days=days)

    @rule()
    def the_sweep_runs(self) -> None:
        lifecycle.expire_due(tailnet=self.tailnet, now=self.now)
        if self.state in KEY_IS_GOOD and self.expiry <= self.now:
            self.state = NodeState.EXPIRED

    @precondition(lambda self: self.state is not NodeState.DELETED)
    @rule(event=st.sampled_from(BY_PEOPLE))
    def a_person_acts(self, event: NodeEvent) -> None:
        services = {
            NodeEvent.APPROVE: lambda node: lifecycle.approve_node(
                node=node, by=Actor.command(), now=self.now
            ),
            NodeEvent.UNAPPROVE: lambda node: lifecycle.unapprove_node(node=node, by=Actor.command()),
            NodeEvent.EXPIRE: lambda node: lifecycle.expire_node(node=node, by=Actor.command(), now=self.now),
            NodeEvent.REJECT: lambda node: lifecycle.reject_node(node=node, by=Actor.command()),
            NodeEvent.DELETE: lambda node: lifecycle.delete_node(node=node, by=Actor.command()),
        }
        allowed = (self.state, event) in TRANSITIONS
        try:
            services[event](self.node())
        except ApplicationError:
            assert not allowed
            return
        assert allowed
        self.state = TRANSITIONS[self.state, event]
        self.approved = event is NodeEvent.APPROVE or (self.approved and event is not NodeEvent.UNAPPROVE)
        if event is NodeEvent.EXPIRE:
            self.expiry = self.now
        if self.state is NodeState.DELETED:
            self.gone()

    @precondition(lambda self: self.state is not NodeState.DELETED)
    @rule(days=st.integers(1, 100))
    def an_administrator_extends(self, days: int) -> None:
        wanted = self.now + timedelta(days=days)
        try:
            lifecycle.set_expiry(node=self.node(), by=Actor.command(), expires=wanted, now=self.now)
        except Conflict:
            assert self.state is NodeState.LOGGED_OUT
            return
        self.expiry = wanted
        if self.state is NodeState.EXPIRED:
            self.state = NodeState.ACTIVE if self.approved else NodeState.PENDING

    # --- what always holds -------------------------------------------------------------------------------

    @invariant()
    def the_node_is_as_the_model_says(self) -> None:
        with scope(tailnet=self.tailnet):
            rows = list(Node.objects.all())
        if self.state is NodeState.DELETED:
            assert rows == []
            return
        (row,) = rows
        assert (row.life, row.is_approved, row.node_key) == (self.state, self.approved, self.key)
        assert row.key_expiry == self.expiry
        assert row.key_is_good(self.now) is self.key_is_good()
        identity = (row.pk, row.stable_id, row.ipv4)
        assert self.identity in (None, identity), "a login never changes who the node is"
        assert row.pk not in self.deleted_ids, "IDs are never used again"
        self.identity = identity


@pytest.mark.django_db
@pytest.mark.hypothesis
def test_a_node_lives_as_the_table_says() -> None:
    slow = list(HealthCheck)
    run_state_machine_as_test(
        NodeLife,
        settings=settings(max_examples=examples(), stateful_step_count=25, suppress_health_check=slow),
    )
