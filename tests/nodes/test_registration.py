"""What ``/machine/register`` answers: the flows of the wire reference, one test for each sentence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from django.core.cache import cache
from django.utils import timezone

from accounts.actors import Actor
from accounts.errors import Forbidden, Gone, Invalid
from accounts.models import AuditEvent, Membership, Tailnet, User
from accounts.services.people import add_member, suspend_member
from accounts.tenancy import scope
from nodes.models import Node, PendingLogin, PreAuthKey, Route
from nodes.services.authkeys import revoke_auth_key
from nodes.services.enrolment import Machine
from nodes.services.lifecycle import approve_node, delete_node, expire_node, set_expiry
from nodes.services.logins import confirm_login, find_login, reject_login
from nodes.services.registration import (
    MAX_FAILED_KEYS_PER_MINUTE,
    Outcome,
    RegistrationRequest,
    RegistrationResult,
    answer_registration,
)
from nodes.state import NodeState
from tests.accounts import factories as people
from tests.nodes import factories

pytestmark = pytest.mark.django_db

LONG_AGO = datetime(1970, 1, 1, 0, 2, 3, tzinfo=UTC)  # what Go sends to log out


@pytest.fixture(autouse=True)
def _no_counts() -> None:
    cache.clear()


@pytest.fixture
def home() -> tuple[Tailnet, User]:
    return people.tailnet()


def ask(machine: Machine, **values: Any) -> RegistrationResult:
    now = values.pop("now", None)
    return answer_registration(request=RegistrationRequest(machine=machine, **values), now=now)


def again(machine: Machine, **values: Any) -> Machine:
    """The same machine saying something else."""
    given = {name: getattr(machine, name) for name in machine.__slots__}
    return Machine(**(given | values))


def join(tailnet: Tailnet, user: User | None = None, **key: Any) -> tuple[Machine, Node]:
    machine = factories.machine()
    result = ask(machine, auth_key=factories.auth_key(tailnet, user, **key))
    assert result.outcome is Outcome.REGISTERED, result
    assert result.node is not None
    return machine, result.node


def fresh(node: Node) -> Node:
    return Node._base_manager.get(pk=node.pk)


# --- auth keys -------------------------------------------------------------------------------------------


def test_an_auth_key_lets_a_machine_in_pending(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    assert (node.life, node.user, node.machine_key) == (NodeState.PENDING, home[1], machine.machine_key)
    assert node.name == "box"


def test_a_preapproved_key_lets_it_in_approved(home: tuple[Tailnet, User]) -> None:
    assert join(*home, preauthorized=True)[1].life is NodeState.ACTIVE


def test_without_device_approval_everybody_is_approved() -> None:
    tailnet, owner = people.tailnet(device_approval=False)
    assert join(tailnet, owner)[1].life is NodeState.ACTIVE


@pytest.mark.parametrize("spoil", ["unknown", "used", "revoked", "expired"])
def test_a_bad_key_is_refused_with_a_text(home: tuple[Tailnet, User], spoil: str) -> None:
    tailnet, owner = home
    text, now = factories.auth_key(tailnet, owner), timezone.now()
    with scope(tailnet=tailnet):
        key = PreAuthKey.objects.get()
    if spoil == "unknown":
        text += "x"
    elif spoil == "used":
        ask(factories.machine(), auth_key=text)
    elif spoil == "revoked":
        revoke_auth_key(key=key, by=Actor.command())
    else:
        now += timedelta(days=91)
    result = ask(factories.machine(), auth_key=text, now=now)
    assert result.outcome is Outcome.REFUSED
    assert result.message.startswith("invalid key")


def test_a_reusable_key_lets_in_many(home: tuple[Tailnet, User]) -> None:
    text = factories.auth_key(*home, reusable=True)
    nodes = [ask(factories.machine(), auth_key=text).node for _ in range(3)]
    assert [node.name for node in nodes if node] == ["box", "box-1", "box-2"]


def test_a_restart_with_the_used_key_succeeds_unchecked(home: tuple[Tailnet, User]) -> None:
    text, machine = factories.auth_key(*home), factories.machine()
    first = ask(machine, auth_key=text)
    second = ask(machine, auth_key=text)
    assert second.outcome is Outcome.REGISTERED
    assert second.node == first.node


def test_a_used_key_does_not_carry_a_new_node_key(home: tuple[Tailnet, User]) -> None:
    text, machine = factories.auth_key(*home), factories.machine()
    ask(machine, auth_key=text)
    assert ask(again(machine, node_key=factories.node_key()), auth_key=text).outcome is Outcome.REFUSED


def test_a_failed_registration_leaves_the_key_unused(home: tuple[Tailnet, User]) -> None:
    text = factories.auth_key(*home)
    wants_tags = factories.machine(hostinfo={"Hostname": "x", "RequestTags": ["tag:a"]})
    result = ask(wants_tags, auth_key=text)
    assert result.message == "requested tags [tag:a] are invalid or not permitted"
    assert ask(factories.machine(), auth_key=text).outcome is Outcome.REGISTERED


def test_a_tagged_key_makes_a_node_of_nobody_that_never_expires(home: tuple[Tailnet, User]) -> None:
    _, node = join(home[0], tags=["tag:web", "tag:db"])
    assert (node.user, node.tags, node.expires) == (None, ["tag:db", "tag:web"], None)


def test_the_owner_of_a_key_must_be_active(home: tuple[Tailnet, User]) -> None:
    member = people.member(home[0])
    text = factories.auth_key(home[0], member.user)
    suspend_member(membership=member, by=Actor.command())
    assert ask(factories.machine(), auth_key=text).outcome is Outcome.REFUSED


def test_failed_keys_are_limited_and_good_restarts_are_not(home: tuple[Tailnet, User]) -> None:
    machine, _ = join(*home)
    now = timezone.now()
    for _ in range(MAX_FAILED_KEYS_PER_MINUTE):
        ask(factories.machine(), auth_key="tskey-auth-x-y", client_address="192.0.2.7", now=now)
    limited = ask(factories.machine(), auth_key="tskey-auth-x-y", client_address="192.0.2.7", now=now)
    assert limited.outcome is Outcome.LIMITED
    assert 0 < limited.retry_after <= 60
    assert ask(machine, client_address="192.0.2.7", now=now).outcome is Outcome.REGISTERED
    other = ask(factories.machine(), auth_key="tskey-auth-x-y", client_address="192.0.2.8", now=now)
    assert other.outcome is Outcome.REFUSED


# --- keys and machines -----------------------------------------------------------------------------------


def test_a_node_key_on_another_machine_is_an_error(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    thief = factories.machine(node_key=machine.node_key)
    for values in ({}, {"auth_key": factories.auth_key(*home)}, {"followup": "x"}, {"rotate": True}):
        assert ask(thief, **values).outcome is Outcome.REFUSED
    assert ask(again(thief, expiry=LONG_AGO)).outcome is Outcome.REFUSED
    assert fresh(node).life is NodeState.PENDING


def test_a_node_key_belongs_to_one_tailnet_only(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    result = ask(machine, auth_key=factories.auth_key(*people.tailnet()))
    assert result.node == node


def test_another_user_on_the_same_machine_is_another_node(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    other = people.member(home[0]).user
    second = ask(
        again(machine, node_key=factories.node_key()), auth_key=factories.auth_key(home[0], other)
    ).node
    assert second is not None
    assert second.pk != node.pk
    assert second.ipv4 != node.ipv4


def test_the_same_user_keeps_id_name_addresses_and_approval(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    approve_node(node=node, by=Actor.command())
    key = factories.node_key()
    second = ask(
        again(machine, node_key=key), old_node_key=machine.node_key, auth_key=factories.auth_key(*home)
    ).node
    assert second is not None
    assert (second.pk, second.stable_id, second.ipv4, second.ipv6, second.name) == (
        node.pk,
        node.stable_id,
        node.ipv4,
        node.ipv6,
        node.name,
    )
    assert (second.node_key, second.life) == (key, NodeState.ACTIVE)


# --- restart, expiry, logout -----------------------------------------------------------------------------


def test_a_restart_does_not_touch_the_expiry(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    result = ask(machine, now=timezone.now() + timedelta(days=100))
    assert result.outcome is Outcome.REGISTERED
    assert fresh(node).key_expiry == node.key_expiry


@pytest.mark.parametrize(("days", "taken"), [(10, True), (1000, False)])
def test_a_client_may_shorten_its_expiry_but_never_extend_it(
    home: tuple[Tailnet, User], days: int, taken: bool
) -> None:
    machine, node = join(*home)
    wanted = timezone.now() + timedelta(days=days)
    assert ask(again(machine, expiry=wanted)).outcome is Outcome.REGISTERED
    assert fresh(node).key_expiry == (wanted if taken else node.key_expiry)


def test_an_expired_key_needs_a_new_one_and_then_a_login(home: tuple[Tailnet, User]) -> None:
    machine, _node = join(*home)
    later = timezone.now() + timedelta(days=181)
    assert ask(machine, now=later).outcome is Outcome.KEY_EXPIRED
    renewed = again(machine, node_key=factories.node_key())
    assert ask(renewed, old_node_key=machine.node_key, now=later).outcome is Outcome.AUTH_URL


def test_auto_renew_lets_a_live_node_start_afresh() -> None:
    tailnet, owner = people.tailnet(auto_renew=True)
    machine, node = join(tailnet, owner, preauthorized=True)
    later = timezone.now() + timedelta(days=100)
    ask(machine, now=later)
    assert fresh(node).key_expiry == later + timedelta(days=180)


def test_logout_comes_first_even_with_an_auth_key(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    result = ask(again(machine, expiry=LONG_AGO), auth_key=factories.auth_key(*home))
    assert result.outcome is Outcome.KEY_EXPIRED
    assert fresh(node).life is NodeState.LOGGED_OUT
    assert ask(machine).outcome is Outcome.KEY_EXPIRED


def test_logging_out_twice_or_unknown_is_harmless(home: tuple[Tailnet, User]) -> None:
    machine, _ = join(*home)
    for _ in range(2):
        assert ask(again(machine, expiry=LONG_AGO)).outcome is Outcome.KEY_EXPIRED
    assert ask(factories.machine(expiry=LONG_AGO)).outcome is Outcome.KEY_EXPIRED


def test_an_ephemeral_node_is_deleted_when_it_logs_out(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home, ephemeral=True)
    ask(again(machine, expiry=LONG_AGO))
    assert not Node._base_manager.filter(pk=node.pk).exists()


def test_a_suspended_person_s_node_does_not_restart(home: tuple[Tailnet, User]) -> None:
    member = people.member(home[0])
    machine, _ = join(home[0], member.user)
    suspend_member(membership=member, by=Actor.command())
    assert ask(machine).outcome is Outcome.REFUSED


def test_a_deleted_node_logs_in_as_a_new_one(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    delete_node(node=node, by=Actor.command())
    assert ask(machine).outcome is Outcome.AUTH_URL
    second = ask(machine, auth_key=factories.auth_key(*home)).node
    assert second is not None
    assert second.pk > node.pk
    assert second.stable_id != node.stable_id


def test_an_administrator_s_extension_lets_an_expired_node_back(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home, preauthorized=True)
    expire_node(node=node, by=Actor.command())
    assert ask(machine).outcome is Outcome.KEY_EXPIRED
    set_expiry(node=node, by=Actor.command(), expires=timezone.now() + timedelta(days=5))
    assert ask(machine).outcome is Outcome.REGISTERED
    assert fresh(node).life is NodeState.ACTIVE


# --- rotation --------------------------------------------------------------------------------------------


def test_rotation_keeps_expiry_addresses_and_approval(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home, preauthorized=True)
    key = factories.node_key()
    later = timezone.now() + timedelta(days=3)
    result = ask(again(machine, node_key=key), old_node_key=machine.node_key, rotate=True, now=later)
    assert result.outcome is Outcome.REGISTERED
    now = fresh(node)
    assert (now.node_key, now.key_expiry, now.ipv4, now.life) == (
        key,
        node.key_expiry,
        node.ipv4,
        NodeState.ACTIVE,
    )
    assert now.key_rotated_at == later
    repeated = ask(again(machine, node_key=key), old_node_key=machine.node_key, rotate=True, now=later)
    assert repeated.outcome is Outcome.REGISTERED, "a lost answer is asked for again"


def test_without_our_own_member_an_old_key_means_a_login(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    result = ask(again(machine, node_key=factories.node_key()), old_node_key=machine.node_key)
    assert result.outcome is Outcome.AUTH_URL
    assert fresh(node).node_key == machine.node_key, "the old key works until a person confirms"
    assert ask(machine).outcome is Outcome.REGISTERED


def test_an_expired_key_rotates_nothing(home: tuple[Tailnet, User]) -> None:
    machine, _ = join(*home)
    later = timezone.now() + timedelta(days=181)
    rotated = again(machine, node_key=factories.node_key())
    assert ask(rotated, old_node_key=machine.node_key, rotate=True, now=later).outcome is Outcome.AUTH_URL


def test_nobody_rotates_another_machine_s_key(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    result = ask(factories.machine(), old_node_key=machine.node_key, rotate=True)
    assert result.outcome is Outcome.REFUSED
    assert fresh(node).node_key == machine.node_key


# --- interactive -----------------------------------------------------------------------------------------


def begin(machine: Machine, **values: Any) -> tuple[str, PendingLogin]:
    result = ask(machine, **values)
    assert result.outcome is Outcome.AUTH_URL
    return result.token, find_login(token=result.token)


def test_a_login_waits_and_is_then_confirmed(home: tuple[Tailnet, User]) -> None:
    machine = factories.machine()
    token, pending = begin(machine, client_address="192.0.2.9")
    assert (pending.hostname, pending.client_address) == ("box", "192.0.2.9")
    waiting = ask(machine, followup=token)
    assert (waiting.outcome, waiting.login_id) == (Outcome.WAIT, pending.pk)
    node = confirm_login(pending=pending, user=home[1], tailnet=home[0])
    done = ask(machine, followup=token)
    assert (done.outcome, done.node) == (Outcome.REGISTERED, node)
    assert node.life is NodeState.PENDING


def test_the_token_is_not_stored() -> None:
    token, pending = begin(factories.machine())
    assert token not in str(vars(pending))


def test_a_login_is_confirmed_once(home: tuple[Tailnet, User]) -> None:
    token, pending = begin(factories.machine())
    confirm_login(pending=pending, user=home[1], tailnet=home[0])
    with pytest.raises(Gone):
        confirm_login(pending=pending, user=home[1], tailnet=home[0])
    with pytest.raises(Gone):
        reject_login(pending=pending)
    with pytest.raises(Gone):
        find_login(token=token)


def test_a_rejected_login_says_so() -> None:
    machine = factories.machine()
    token, pending = begin(machine)
    reject_login(pending=pending)
    assert ask(machine, followup=token).outcome is Outcome.REFUSED


def test_an_expired_or_unknown_follow_up_gets_a_fresh_url() -> None:
    machine = factories.machine()
    token, _ = begin(machine)
    later = timezone.now() + timedelta(hours=1, seconds=1)
    for values in ({"followup": token, "now": later}, {"followup": "unknown"}):
        result = ask(machine, **values)
        assert result.outcome is Outcome.AUTH_URL
        assert result.token != token


def test_a_follow_up_from_another_machine_or_key_is_not_its_login(home: tuple[Tailnet, User]) -> None:
    machine = factories.machine()
    token, pending = begin(machine)
    confirm_login(pending=pending, user=home[1], tailnet=home[0])
    other = factories.machine()
    assert ask(other, followup=token).outcome is Outcome.AUTH_URL
    assert ask(again(machine, node_key=factories.node_key()), followup=token).outcome is Outcome.AUTH_URL


def test_only_an_active_member_confirms(home: tuple[Tailnet, User]) -> None:
    _, pending = begin(factories.machine())
    with pytest.raises(Forbidden):
        confirm_login(pending=pending, user=people.person(), tailnet=home[0])
    waiting = add_member(tailnet=home[0], user=people.person(), by=Actor.command(), needs_approval=True)
    with pytest.raises(Forbidden):
        confirm_login(pending=pending, user=waiting.user, tailnet=home[0])


def test_re_authentication_sets_a_fresh_expiry_and_keeps_the_node(home: tuple[Tailnet, User]) -> None:
    machine, node = join(*home)
    later = timezone.now() + timedelta(days=100)
    renewed = again(machine, node_key=factories.node_key())
    result = ask(renewed, old_node_key=machine.node_key, now=later)
    pending = find_login(token=result.token, now=later)
    second = confirm_login(pending=pending, user=home[1], tailnet=home[0], now=later)
    assert (second.pk, second.ipv4) == (node.pk, node.ipv4)
    assert second.node_key == renewed.node_key
    assert second.key_expiry == later + timedelta(days=180)


def test_tags_by_login_need_a_policy(home: tuple[Tailnet, User]) -> None:
    machine = factories.machine(hostinfo={"Hostname": "x", "RequestTags": ["tag:a"]})
    token, pending = begin(machine)
    with pytest.raises(Invalid):
        confirm_login(pending=pending, user=home[1], tailnet=home[0])
    assert "not permitted" in ask(machine, followup=token).message


def test_open_logins_of_one_machine_are_bounded() -> None:
    machine = factories.machine()
    for _ in range(20):
        begin(machine)
    assert PendingLogin.objects.filter(machine_key=machine.machine_key).count() == 8


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::{:x}"])
def test_open_logins_of_one_place_are_bounded_whatever_the_rate(address: str) -> None:
    """An IPv6 /64 is one place, whichever of its addresses ask."""
    begun = timezone.now()
    numbers = count(1)

    def outcome(minutes: int) -> Outcome:
        now = begun + timedelta(minutes=minutes)
        return ask(factories.machine(), client_address=address.format(next(numbers)), now=now).outcome

    for minute in range(6):
        assert {outcome(minute) for _ in range(50)} == {Outcome.AUTH_URL}
    assert outcome(7) is Outcome.LIMITED
    assert outcome(61) is Outcome.AUTH_URL


def test_new_logins_are_limited_per_address() -> None:
    now = timezone.now()
    outcomes = [ask(factories.machine(), client_address="2001:db8::1", now=now).outcome for _ in range(61)]
    assert outcomes[59] is Outcome.AUTH_URL
    assert outcomes[60] is Outcome.LIMITED
    neighbour = ask(factories.machine(), client_address="2001:db8::2", now=now)
    assert neighbour.outcome is Outcome.LIMITED, "an IPv6 /64 is one place"


# --- what else a registration leaves behind --------------------------------------------------------------


def test_offered_routes_wait_for_approval_and_lapse_when_withdrawn(home: tuple[Tailnet, User]) -> None:
    info = {"Hostname": "r", "RoutableIPs": ["10.1.2.3/24", "0.0.0.0/0", "::/0", "nonsense"]}
    machine = factories.machine(hostinfo=info)
    ask(machine, auth_key=factories.auth_key(*home))
    with scope(tailnet=home[0]):
        assert list(Route.objects.order_by("prefix").values_list("prefix", "approved_at")) == [
            ("0.0.0.0/0", None),
            ("10.1.2.0/24", None),
            ("::/0", None),
        ]


def test_each_registration_is_in_the_log_without_its_secret(home: tuple[Tailnet, User]) -> None:
    text = factories.auth_key(*home)
    ask(factories.machine(), auth_key=text)
    with scope(tailnet=home[0]):
        events = list(AuditEvent.objects.filter(target_type="NODE").values())
        assert [event["action"] for event in events] == ["CREATE"]
        assert text not in str(events)


def test_a_hostile_hostinfo_is_stored_bounded(home: tuple[Tailnet, User]) -> None:
    from nodes.hostinfo import cleaned

    wild = {
        "Hostname": "a\x00b" * 5000,
        "Deep": [[[[[[[[[1]]]]]]]]],
        "Wide": {str(n): "x" * 900 for n in range(500)},
    }
    kept = cleaned(wild)
    assert set(kept) == {"Hostname"}
    machine = factories.machine(hostinfo=kept)
    node = ask(machine, auth_key=factories.auth_key(*home)).node
    assert node is not None
    assert "\x00" not in node.hostname
    assert len(node.name) <= 63


def test_membership_of_the_right_tailnet_counts(home: tuple[Tailnet, User]) -> None:
    other, _ = people.tailnet()
    with scope(tailnet=other):
        Membership.objects.create(tailnet=other, user=home[1])
    _, pending = begin(factories.machine())
    node = confirm_login(pending=pending, user=home[1], tailnet=other)
    assert node.tailnet == other
