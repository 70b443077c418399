"""What people do to devices, what devices report, and what sweeps tidy."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from accounts.actors import Actor
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import AuditEvent, Lease, Membership, Tailnet, User
from accounts.roles import Role
from accounts.services import audit
from accounts.tasks import holder
from accounts.tenancy import scope
from nodes import tasks
from nodes.access import NodeAction, key_for, may, node_for, visible_keys, visible_nodes
from nodes.models import Node, PendingLogin, PreAuthKey, Presence, Route
from nodes.selectors import find_node, is_online, nodes
from nodes.services import lifecycle, presence, routes
from nodes.services.authkeys import create_auth_key, revoke_auth_key
from nodes.services.logins import begin_login
from nodes.services.volatile import Volatile, update_node_state, write_volatile
from nodes.state import NodeState
from tests.accounts import factories as people
from tests.nodes import factories

pytestmark = pytest.mark.django_db
ME = Actor.command()


@pytest.fixture
def home() -> tuple[Tailnet, User]:
    return people.tailnet()


def fresh(node: Node) -> Node:
    return Node._base_manager.get(pk=node.pk)


def exists(node: Node) -> bool:
    return Node._base_manager.filter(pk=node.pk).exists()


# --- people and devices ----------------------------------------------------------------------------------


def test_approving_twice_changes_nothing(home: tuple[Tailnet, User]) -> None:
    node = factories.node(*home)
    first = lifecycle.approve_node(node=node, by=ME)
    before = Tailnet.objects.get(pk=home[0].pk).netmap_version
    assert lifecycle.approve_node(node=node, by=ME).approved_at == first.approved_at
    assert Tailnet.objects.get(pk=home[0].pk).netmap_version == before


def test_only_a_pending_device_is_rejected(home: tuple[Tailnet, User]) -> None:
    pending, active = factories.node(*home), factories.node(*home, preapproved=True)
    lifecycle.reject_node(node=pending, by=ME)
    assert not exists(pending)
    with pytest.raises(Conflict):
        lifecycle.reject_node(node=active, by=ME)
    with pytest.raises(NotFound):
        lifecycle.approve_node(node=pending, by=ME)


def test_a_chosen_name_outlives_the_host_name(home: tuple[Tailnet, User]) -> None:
    node, other = factories.node(*home), factories.node(*home)
    assert (node.name, other.name) == ("box", "box-1")
    with pytest.raises(Conflict):
        lifecycle.rename_node(node=node, name="BOX-1", by=ME)
    for bad in ("a b", "-a", "a.b", "a" * 64):
        with pytest.raises(Invalid):
            lifecycle.rename_node(node=node, name=bad, by=ME)
    lifecycle.rename_node(node=node, name="Attic", by=ME)
    update_node_state(tailnet=home[0], report=Volatile(node_id=node.pk, hostinfo={"Hostname": "new"}))
    assert (fresh(node).name, fresh(node).hostname) == ("attic", "new")
    assert lifecycle.rename_node(node=node, name="", by=ME).name == "new"


def test_expiry_is_switched_off_and_on(home: tuple[Tailnet, User]) -> None:
    node = factories.node(*home, preapproved=True)
    later = timezone.now() + timedelta(days=200)
    off = lifecycle.set_expiry(node=node, disabled=True, by=ME)
    assert off.expires is None
    assert off.key_is_good(later)
    on = lifecycle.set_expiry(node=node, disabled=False, by=ME, now=later)
    assert on.key_expiry == later + timedelta(days=180), "nothing is cut off at once"
    gone = lifecycle.set_expiry(node=node, expires=later - timedelta(days=1), by=ME, now=later)
    assert gone.life is NodeState.EXPIRED


def test_a_tagged_device_belongs_to_nobody(home: tuple[Tailnet, User]) -> None:
    node = factories.node(*home)
    tagged = lifecycle.set_tags(node=node, tags=["tag:web", "tag:web"], by=ME)
    assert (tagged.user_id, tagged.tags, tagged.expires) == (None, ["tag:web"], None)
    twin = factories.node(*home, machine_key=node.machine_key)
    with pytest.raises(Conflict):
        lifecycle.set_tags(node=twin, tags=["tag:db"], by=ME)
    for bad in ([], ["web"]):
        with pytest.raises(Invalid):
            lifecycle.set_tags(node=twin, tags=bad, by=ME)


def test_a_person_s_devices_go_with_them(home: tuple[Tailnet, User]) -> None:
    member = people.member(home[0])
    theirs = [factories.node(home[0], member.user) for _ in range(2)]
    mine = factories.node(*home)
    assert lifecycle.delete_nodes_of(tailnet=home[0], user=member.user, by=ME) == 2
    assert [exists(node) for node in (*theirs, mine)] == [False, False, True]


# --- routes ----------------------------------------------------------------------------------------------


def test_routes_are_approved_and_lapse_with_the_offer(home: tuple[Tailnet, User]) -> None:
    offer = {"Hostname": "r", "RoutableIPs": ["10.0.0.0/8", "0.0.0.0/0", "::/0"]}
    node = factories.node(*home, hostinfo=offer)
    with pytest.raises(Conflict):
        routes.set_approved_routes(node=node, prefixes=["192.168.0.0/16"], by=ME)
    routes.set_approved_routes(node=node, prefixes=["10.0.0.0/8"], by=ME)
    routes.set_exit_node(node=node, enabled=True, by=ME)

    def approved() -> set[str]:
        with scope(tailnet=home[0]):
            return {route.prefix for route in Route.objects.filter(approved_at__isnull=False)}

    assert approved() == {"10.0.0.0/8", "0.0.0.0/0", "::/0"}
    routes.set_exit_node(node=node, enabled=False, by=ME)
    assert approved() == {"10.0.0.0/8"}
    withdrawn = {"Hostname": "r", "RoutableIPs": ["0.0.0.0/0", "::/0"]}
    for hostinfo in (withdrawn, offer):
        update_node_state(tailnet=home[0], report=Volatile(node_id=node.pk, hostinfo=hostinfo))
    assert approved() == set(), "an offer that comes back asks again"


# --- reports and presence --------------------------------------------------------------------------------


def test_reports_are_written_together_and_only_where_they_belong(home: tuple[Tailnet, User]) -> None:
    mine, other = factories.node(*home), factories.node(*people.tailnet())
    reports = [
        Volatile(node_id=mine.pk, home_derp=900, endpoints=("192.0.2.1:1",), endpoint_types=(2,)),
        Volatile(node_id=other.pk, home_derp=901),
    ]
    assert write_volatile(tailnet=home[0], reports=reports) == 1
    assert (fresh(mine).home_derp, fresh(mine).endpoint_types, fresh(other).home_derp) == (900, [2], 0)
    write_volatile(tailnet=home[0], reports=[Volatile(node_id=mine.pk, hostinfo={"Hostname": "box"})])
    assert fresh(mine).home_derp == 900, "a report without NetInfo keeps the home relay"


def test_a_new_host_name_and_other_routes_are_in_the_audit_log(home: tuple[Tailnet, User]) -> None:
    node = factories.node(*home)
    offers = {"Hostname": "attic", "RoutableIPs": ["10.0.0.0/8"]}
    for _ in range(2):  # the second says nothing new
        update_node_state(tailnet=home[0], report=Volatile(node_id=node.pk, hostinfo=offers))
    with scope(tailnet=home[0]):
        events = AuditEvent.objects.filter(action="UPDATE", actor_type="NODE", target_id=node.stable_id)
        changes = {event.target_property: (event.old, event.new) for event in events}
        assert len(events) == 3
        assert audit.check_chain(tailnet=home[0]).broken is None
    assert changes == {
        "HOSTNAME": ("box", "attic"),
        "MACHINE_NAME": ("box", "attic"),
        "OFFERED_ROUTES": ([], ["10.0.0.0/8"]),
    }


def test_a_report_of_a_deleted_node_is_nothing(home: tuple[Tailnet, User]) -> None:
    assert update_node_state(tailnet=home[0], report=Volatile(node_id=10**9, hostinfo={})) is None


def test_a_newer_stream_is_not_ended_by_an_older_one(home: tuple[Tailnet, User]) -> None:
    node, now = factories.node(*home), timezone.now()
    old = presence.claim_presence(tailnet=home[0], node_id=node.pk, worker="a", now=now)
    new = presence.claim_presence(tailnet=home[0], node_id=node.pk, worker="b", now=now)
    assert new > old
    assert not presence.release_presence(tailnet=home[0], node_id=node.pk, epoch=old)
    with scope(tailnet=home[0]):
        assert is_online(nodes().get(), now)
        assert presence.renew_presence(tailnet=home[0], worker="a", node_ids=[node.pk]) == 0
        assert presence.renew_presence(tailnet=home[0], worker="b", node_ids=[node.pk], now=now) == 1
        assert not is_online(nodes().get(), now + timedelta(seconds=31)), "a dead worker's lease ends"
    assert presence.release_presence(tailnet=home[0], node_id=node.pk, epoch=new, now=now)
    assert fresh(node).last_seen == now
    third = presence.claim_presence(tailnet=home[0], node_id=node.pk, worker="a", now=now)
    assert third > new, "an epoch is never used again"


def test_a_stream_that_follows_another_in_time_is_no_break(home: tuple[Tailnet, User]) -> None:
    node, start = factories.node(*home), timezone.now()

    def claim(seconds: float) -> presence.Claim:
        now = start + timedelta(seconds=seconds)
        return presence.claim_presences(tailnet=home[0], node_ids=[node.pk], worker="a", now=now)[node.pk]

    assert claim(0).since == start
    kept = claim(20)
    assert kept.since == start, "a reconnect, or a restarted server"
    assert claim(60).since == start + timedelta(seconds=60), "its lease had run out"
    presence.release_presence(tailnet=home[0], node_id=node.pk, epoch=claim(61).epoch)
    assert claim(62).since == start + timedelta(seconds=62), "it had gone"
    assert claim(63).epoch > kept.epoch


def test_a_worker_that_starts_anew_holds_nothing(home: tuple[Tailnet, User]) -> None:
    node = factories.node(*home)
    presence.claim_presence(tailnet=home[0], node_id=node.pk, worker="a")
    assert presence.release_worker(worker="b") == 0
    assert presence.release_worker(worker="a") == 1
    with scope(tailnet=home[0]):
        assert not is_online(nodes().get(), timezone.now())
        assert Presence.objects.count() == 1


# --- sweeps ----------------------------------------------------------------------------------------------


def test_expiry_is_marked_once(home: tuple[Tailnet, User]) -> None:
    due = factories.node(*home, now=timezone.now() - timedelta(days=181))
    never = factories.node(home[0], tags=["tag:x"], now=timezone.now() - timedelta(days=181))
    fine = factories.node(*home)
    assert not due.key_is_good(timezone.now()), "time decides, not the sweep"
    assert tasks.expire_due() == 1
    assert tasks.expire_due() == 0
    assert [fresh(node).state for node in (due, never, fine)] == ["expired", "pending", "pending"]


def _lease(held_for: timedelta) -> None:
    now = timezone.now()
    Lease.objects.create(
        name="nodes.ephemeral",
        holder=holder(),
        since=now - held_for,
        expires=now + timedelta(seconds=60),
    )


def _away(tailnet: Tailnet, user: User, minutes: float) -> Node:
    """An ephemeral node whose stream ended so long ago."""
    then = timezone.now() - timedelta(minutes=minutes)
    node = factories.node(tailnet, user, ephemeral=True, now=then - timedelta(minutes=10))
    epoch = presence.claim_presence(tailnet=tailnet, node_id=node.pk, worker="a", now=then)
    presence.release_presence(tailnet=tailnet, node_id=node.pk, epoch=epoch, now=then)
    return node


def test_ephemeral_devices_go_when_they_are_away(home: tuple[Tailnet, User]) -> None:
    _lease(timedelta(hours=1))
    gone, back = _away(*home, minutes=6), _away(*home, minutes=4)
    online = _away(*home, minutes=60)
    presence.claim_presence(tailnet=home[0], node_id=online.pk, worker="a")
    new = factories.node(*home, ephemeral=True)
    lasting = factories.node(*home, now=timezone.now() - timedelta(days=1))
    assert tasks.delete_inactive_ephemeral() == 1
    assert [exists(node) for node in (gone, back, online, new, lasting)] == [False, True, True, True, True]


def test_after_an_outage_ephemeral_devices_get_their_time_to_come_back(home: tuple[Tailnet, User]) -> None:
    node = _away(*home, minutes=60)
    assert tasks.delete_inactive_ephemeral() == 0, "the sweep has only just begun to run"
    Lease.objects.update(since=timezone.now() - timedelta(minutes=6))
    assert tasks.delete_inactive_ephemeral() == 1
    assert not exists(node)


def test_logins_are_cleaned_when_they_have_run_out() -> None:
    begin_login(machine=factories.machine(), now=timezone.now() - timedelta(hours=2))
    begin_login(machine=factories.machine())
    assert tasks.clean_logins() == 1
    assert PendingLogin.objects.count() == 1


# --- keys and access -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "own", "other", "tagged", "preauthorized"),
    [
        (Role.OWNER, True, True, True, True),
        (Role.ADMIN, True, True, True, True),
        (Role.IT_ADMIN, True, True, False, True),
        (Role.NETWORK_ADMIN, True, True, False, False),
        (Role.AUDITOR, False, False, False, False),
        (Role.BILLING_ADMIN, False, False, False, False),
        (Role.MEMBER, True, False, False, False),
    ],
)
def test_who_makes_which_key(role: Role, own: bool, other: bool, tagged: bool, preauthorized: bool) -> None:
    tailnet, owner = people.tailnet()
    by = Actor.person(owner if role is Role.OWNER else people.member(tailnet, role).user)
    someone = people.member(tailnet).user

    def allowed(**values: object) -> bool:
        try:
            create_auth_key(tailnet=tailnet, by=by, **values)  # type: ignore[arg-type]
        except Forbidden:
            return False
        return True

    assert (allowed(), allowed(user=someone)) == (own, other)
    assert (allowed(tags=["tag:x"]), allowed(preauthorized=True)) == (tagged, preauthorized)


def test_a_key_s_text_is_stored_nowhere(home: tuple[Tailnet, User]) -> None:
    made = create_auth_key(tailnet=home[0], by=Actor.person(home[1]))
    assert made.text.startswith(f"tskey-auth-{made.key.public_id}-")
    assert made.text not in repr(made)
    with scope(tailnet=home[0]):
        assert made.text not in str(PreAuthKey.objects.values())


def test_a_key_is_bounded(home: tuple[Tailnet, User]) -> None:
    for values in (
        {"lifetime": timedelta(days=91)},
        {"lifetime": timedelta(0)},
        {"tags": ["x"]},
        {"tags": [f"tag:a{n}" for n in range(51)]},
        {"description": "x" * 201},
        {"user": people.person()},
    ):
        with pytest.raises(Invalid):
            create_auth_key(tailnet=home[0], by=Actor.person(home[1]), **values)  # type: ignore[arg-type]


def see(membership: Membership) -> set[int]:
    with scope(tailnet=membership.tailnet):
        return set(visible_nodes(membership).values_list("pk", flat=True))


def test_members_see_their_own_and_administrators_all(home: tuple[Tailnet, User]) -> None:
    tailnet, owner = home
    member, auditor = people.member(tailnet), people.member(tailnet, Role.AUDITOR)
    billing = people.member(tailnet, Role.BILLING_ADMIN)
    mine, other = factories.node(tailnet, owner), factories.node(tailnet, member.user)
    foreign_tailnet, stranger = people.tailnet()
    foreign = factories.node(foreign_tailnet, stranger)
    assert see(member) == {other.pk}
    assert see(auditor) == {mine.pk, other.pk}
    assert see(billing) == set()
    with scope(tailnet=tailnet):
        assert node_for(membership=member, node_id=other.stable_id, action=NodeAction.RENAME) == other
        with pytest.raises(Forbidden):
            node_for(membership=member, node_id=other.pk, action=NodeAction.APPROVE)
        with pytest.raises(Forbidden):
            node_for(membership=auditor, node_id=other.pk, action=NodeAction.DELETE)
        texts = set()
        for hidden in (mine.pk, mine.stable_id, foreign.pk, foreign.stable_id, 10**9, "", "x", "²"):
            with pytest.raises(NotFound) as refused:
                node_for(membership=member, node_id=hidden)
            texts.add(str(refused.value))
        assert len(texts) == 1, "missing and forbidden look alike"
        assert not may(member, NodeAction.SEE, foreign)


def test_members_see_and_revoke_their_own_keys(home: tuple[Tailnet, User]) -> None:
    tailnet, owner = home
    member = people.member(tailnet)
    theirs = create_auth_key(tailnet=tailnet, by=Actor.person(member.user)).key
    mine = create_auth_key(tailnet=tailnet, by=Actor.person(owner)).key
    with scope(tailnet=tailnet):
        assert list(visible_keys(member)) == [theirs]
        assert key_for(membership=member, public_id=theirs.public_id, revoke=True) == theirs
        with pytest.raises(NotFound):
            key_for(membership=member, public_id=mine.public_id)
    revoked = revoke_auth_key(key=theirs, by=Actor.person(member.user))
    assert not revoked.is_valid(timezone.now())


def test_a_device_is_found_by_any_of_its_names(home: tuple[Tailnet, User]) -> None:
    node = factories.node(*home, hostname="Ana's PC")
    with scope(tailnet=home[0]):
        for reference in (str(node.pk), node.stable_id, node.name, node.name.upper() + ".x.y.", "Ana's PC"):
            assert find_node(reference) == node
        assert find_node(node.ipv4) == find_node(node.ipv6) == node
        assert find_node("") is None
        assert find_node("100.64.0.0") is None
