"""People's places in tailnets: invited, approved, suspended, ranked; always an owner."""

from __future__ import annotations

import pytest
from django.db import IntegrityError, transaction

from accounts.actors import Actor
from accounts.errors import Conflict, Forbidden, Invalid, NotFound
from accounts.models import LOCAL_ISSUER, AuditEvent, Membership, Tailnet, User
from accounts.roles import Role
from accounts.services import people, tailnets
from accounts.services.tokens import authenticate_token, create_api_token
from accounts.tenancy import memberships_of, scope
from tests.accounts import factories

pytestmark = pytest.mark.django_db
ME = Actor.command()
Status = Membership.Status


def membership_of(tailnet: Tailnet, user: User) -> Membership:
    with scope(tailnet=tailnet):
        return Membership.objects.get(user=user)


def test_a_person_made_by_a_command_is_local_and_nobody_s_twin() -> None:
    first = people.create_person(email="Ana@Example.com")
    second = people.create_person(email="ana@example.com")
    assert first.iss == second.iss == LOCAL_ISSUER
    assert first.sub != second.sub
    assert not first.has_usable_password()
    assert people.ensure_local_person(email="ANA@example.com") == first


def test_a_provider_s_person_is_never_found_by_address() -> None:
    theirs = User.objects.create_user(email="ana@example.com", iss="https://accounts.google.com", sub="1")
    assert people.ensure_local_person(email="ana@example.com") != theirs


def test_an_identity_is_one_person() -> None:
    User.objects.create_user(email="a@example.com", iss="https://accounts.google.com", sub="1")
    with pytest.raises(IntegrityError), transaction.atomic():
        User.objects.create_user(email="b@example.com", iss="https://accounts.google.com", sub="1")


@pytest.mark.parametrize("email", ["", "a", "a@", "@b", "a b@example.com"])
def test_an_address_must_be_one(email: str) -> None:
    with pytest.raises(Invalid):
        people.create_person(email=email)


def test_a_place_is_given_once() -> None:
    tailnet, owner = factories.tailnet()
    again = people.add_member(tailnet=tailnet, user=owner, role=Role.MEMBER, by=ME)
    assert again.role == Role.OWNER


def test_a_person_is_suspended_and_restored() -> None:
    tailnet, _ = factories.tailnet()
    member = factories.member(tailnet)
    assert people.suspend_member(membership=member, by=ME).status == Status.SUSPENDED
    assert people.restore_member(membership=member, by=ME).status == Status.ACTIVE
    people.suspend_member(membership=member, by=ME)
    with pytest.raises(Conflict):
        people.approve_member(membership=member, by=ME)


def test_who_waits_is_approved() -> None:
    tailnet, _ = factories.tailnet()
    member = people.add_member(tailnet=tailnet, user=factories.person(), by=ME, needs_approval=True)
    assert not member.is_active
    assert people.approve_member(membership=member, by=ME).is_active


def test_the_last_owner_stays() -> None:
    tailnet, owner = factories.tailnet()
    last = membership_of(tailnet, owner)
    for act in (people.suspend_member, people.remove_member):
        with pytest.raises(Conflict):
            act(membership=last, by=ME)
    with pytest.raises(Conflict):
        people.set_role(membership=last, role=Role.MEMBER, by=ME)


def test_one_acts_on_lower_ranks_only() -> None:
    tailnet, owner = factories.tailnet()
    admin, helper = factories.member(tailnet, Role.ADMIN), factories.member(tailnet, Role.IT_ADMIN)
    member = factories.member(tailnet)
    by_admin, by_helper, by_member = (Actor.person(one.user) for one in (admin, helper, member))
    for membership, by in (
        (membership_of(tailnet, owner), by_admin),
        (admin, by_admin),
        (admin, by_helper),
        (helper, by_member),
        (member, by_member),
    ):
        with pytest.raises(Forbidden):
            people.suspend_member(membership=membership, by=by)
    with pytest.raises(Forbidden):
        people.set_role(membership=member, role=Role.ADMIN, by=by_helper)
    with pytest.raises(Forbidden):
        people.set_role(membership=member, role=Role.OWNER, by=by_admin)
    assert people.set_role(membership=member, role=Role.AUDITOR, by=by_helper).role == Role.AUDITOR
    with pytest.raises(Forbidden):
        people.suspend_member(membership=member, by=Actor.person(factories.person()))


def test_ownership_moves_and_is_never_lost() -> None:
    tailnet, owner = factories.tailnet()
    admin = factories.member(tailnet, Role.ADMIN)
    with pytest.raises(Forbidden):
        people.transfer_ownership(membership=admin, by=Actor.person(admin.user))
    people.transfer_ownership(membership=admin, by=Actor.person(owner))
    assert membership_of(tailnet, admin.user).role == Role.OWNER
    assert membership_of(tailnet, owner).role == Role.ADMIN
    with scope(tailnet=tailnet):
        assert Membership.objects.filter(role=Role.OWNER).count() == 1


def test_a_waiting_person_is_let_in_with_another_role() -> None:
    tailnet, owner = factories.tailnet()
    waiting = people.add_member(tailnet=tailnet, user=factories.person(), by=ME, needs_approval=True)
    let_in = people.approve_member(membership=waiting, by=Actor.person(owner), role=Role.AUDITOR)
    assert (let_in.role, let_in.is_active) == (Role.AUDITOR, True)


def test_a_role_that_is_none_is_refused() -> None:
    tailnet, _ = factories.tailnet()
    with pytest.raises(Invalid):
        people.set_role(membership=factories.member(tailnet), role="king", by=ME)


def test_one_may_leave_oneself_and_ones_tokens_end() -> None:
    tailnet, owner = factories.tailnet()
    member = factories.member(tailnet)
    token = create_api_token(tailnet=tailnet, user=member.user, by=ME)
    people.remove_member(membership=member, by=Actor.person(member.user))
    people.add_member(tailnet=tailnet, user=member.user, by=ME)
    assert authenticate_token(text=token.text) is None
    with pytest.raises(Conflict):
        people.remove_member(membership=membership_of(tailnet, owner), by=Actor.person(owner))


def test_a_removed_person_is_gone_and_the_log_knows() -> None:
    tailnet, _ = factories.tailnet()
    member = factories.member(tailnet)
    people.remove_member(membership=member, by=ME)
    with scope(tailnet=tailnet):
        assert not Membership.objects.filter(pk=member.pk).exists()
        assert AuditEvent.objects.latest("pk").action == "DELETE"
    with pytest.raises(NotFound):
        people.suspend_member(membership=member, by=ME)


def test_a_first_sign_in_opens_a_tailnet_of_one_s_own() -> None:
    user = User.objects.create_user(email="Ana.Lopez@example.com", iss="https://accounts.google.com", sub="1")
    membership = people.welcome(user=user, hosted_domain=None)
    assert membership is not None
    assert (membership.role, membership.tailnet.name) == (Role.OWNER, "ana-lopez")
    assert people.welcome(user=user, hosted_domain=None) == membership
    twin = User.objects.create_user(email="ana.lopez@example.org", iss="https://accounts.google.com", sub="2")
    again = people.welcome(user=twin, hosted_domain=None)
    assert again is not None
    assert again.tailnet.name.startswith("ana-lopez-")


def test_who_comes_by_an_invitation_gets_no_tailnet_beside_it() -> None:
    user = factories.person()
    assert people.welcome(user=user, hosted_domain=None, invited=True) is None
    assert memberships_of(user.pk) == []
    tailnet, _ = factories.tailnet(google_domain="example.com")
    place = people.welcome(user=user, hosted_domain="example.com", invited=True)
    assert place is not None
    assert place.tailnet == tailnet


@pytest.mark.parametrize(("approval", "status"), [(False, Status.ACTIVE), (True, Status.NEEDS_APPROVAL)])
def test_a_domain_s_people_join_its_tailnet(approval: bool, status: Membership.Status) -> None:
    tailnet, _ = factories.tailnet(google_domain="example.com", users_approval=approval)
    user = factories.person()
    membership = people.welcome(user=user, hosted_domain="Example.com")
    assert membership is not None
    assert (membership.tailnet, membership.role, membership.status) == (tailnet, Role.MEMBER, status)


def test_an_address_alone_joins_no_domain() -> None:
    factories.tailnet(google_domain="example.com")
    user = factories.person("someone@example.com")
    membership = people.welcome(user=user, hosted_domain=None)
    assert membership is not None
    assert membership.role == Role.OWNER


@pytest.mark.parametrize("name", ["", "A", "a b", "-a", "a-", "a.b", "a" * 64, "ñ"])
def test_a_tailnet_s_name_is_a_label(name: str) -> None:
    with pytest.raises(Invalid):
        tailnets.create_tailnet(name=name, owner=factories.person(), by=ME)


def test_settings_are_checked_and_logged() -> None:
    tailnet, owner = factories.tailnet()
    by = Actor.person(owner)
    assert tailnets.update_settings(tailnet=tailnet, by=by, key_duration_days=30).key_duration_days == 30
    wrong = ({"key_duration_days": 0}, {"key_duration_days": 181}, {"rotation_days": -1}, {"name": "x"})
    for values in wrong:
        with pytest.raises(Invalid):
            tailnets.update_settings(tailnet=tailnet, by=by, **values)
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
        assert (event.old, event.new) == ({"key_duration_days": 180}, {"key_duration_days": 30})


def test_a_setting_needs_the_right_at_the_moment_of_the_change() -> None:
    tailnet, _ = factories.tailnet()
    by = Actor.person(factories.member(tailnet, Role.NETWORK_ADMIN).user)
    with pytest.raises(Forbidden):
        tailnets.update_settings(tailnet=tailnet, by=by, device_approval=False)
    with pytest.raises(Forbidden):
        tailnets.rename_tailnet(tailnet=tailnet, name="other", by=by)


def test_a_tailnet_is_renamed_to_a_free_name() -> None:
    tailnet, owner = factories.tailnet()
    taken, _ = factories.tailnet()
    by = Actor.person(owner)
    old = tailnet.name
    assert tailnets.rename_tailnet(tailnet=tailnet, name="harbour", by=by).name == "harbour"
    with pytest.raises(Conflict):
        tailnets.rename_tailnet(tailnet=tailnet, name=taken.name, by=by)
    with pytest.raises(Invalid):
        tailnets.rename_tailnet(tailnet=tailnet, name="No Label", by=by)
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
        assert (event.target_property, event.old, event.new) == ("NAME", {"name": old}, {"name": "harbour"})


def test_nobody_owns_more_tailnets_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tailnets, "MAX_OWNED", 2)
    owner = factories.person()
    by = Actor.person(owner)
    for name in ("one", "two"):
        tailnets.create_tailnet(name=name, owner=owner, by=by)
    with pytest.raises(Conflict):
        tailnets.create_tailnet(name="three", owner=owner, by=by)


def test_only_its_owner_deletes_a_tailnet_and_the_log_says_who(caplog: pytest.LogCaptureFixture) -> None:
    tailnet, owner = factories.tailnet()
    pk = tailnet.pk
    admin = factories.member(tailnet, Role.ADMIN)
    with pytest.raises(Forbidden):
        tailnets.delete_tailnet(tailnet=tailnet, by=Actor.person(admin.user))
    head = Tailnet.objects.get(pk=tailnet.pk).audit_head
    tailnets.delete_tailnet(tailnet=tailnet, by=Actor.person(owner))
    assert f"{tailnet.name} ({pk}) was deleted by USER {owner.login_name}" in caplog.text
    assert head in caplog.text
    assert not Tailnet.objects.filter(pk=pk).exists()
    assert User.objects.filter(pk=owner.pk).exists()


def test_the_first_start_makes_the_default_tailnet_once() -> None:
    made = tailnets.first_start(owner_email="owner@localhost")
    assert made is not None
    assert (made[0].name, made[1].email) == ("default", "owner@localhost")
    assert tailnets.first_start(owner_email="owner@localhost") is None
