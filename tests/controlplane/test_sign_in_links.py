"""``manage.py signinlink``: whom it signs in, whom it lets in, and what it says of everybody else."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command

from accounts.actors import Actor
from accounts.errors import Gone
from accounts.models import AuditEvent, Invite, Membership, SignInLink, Tailnet
from accounts.roles import Role
from accounts.services.invites import create_invite, find_invite
from accounts.services.people import add_member, suspend_member
from accounts.tenancy import memberships_of, scope
from tests.accounts import factories

pytestmark = pytest.mark.django_db
ME = Actor.command()
ANA = "ana@example.com"
Status = Membership.Status


@pytest.fixture
def tailnet() -> Tailnet:
    return factories.tailnet("ours")[0]


def link(*arguments: str) -> str:
    out = io.StringIO()
    call_command("signinlink", *arguments, "--json", stdout=out)
    return str(json.loads(out.getvalue())["url"])


def refusal(*arguments: str) -> str:
    error = io.StringIO()
    with pytest.raises(SystemExit):
        call_command("signinlink", *arguments, stderr=error)
    assert not SignInLink.objects.exists()
    return error.getvalue()


def place_of(email: str) -> Any:
    with scope(tailnet=Tailnet.objects.get(name="ours")):
        return Membership.objects.get(user__email=email)


def test_nobody_known_by_the_address(tailnet: Tailnet) -> None:
    assert "nobody in the tailnet ours has the address ana@example.com" in refusal(ANA)
    assert "/sign-in/link/" in link(ANA, "--create")
    assert (place_of(ANA).role, place_of(ANA).status) == (Role.MEMBER, Status.ACTIVE)


def test_somebody_invited_is_not_let_in_by_the_way(tailnet: Tailnet) -> None:
    invite = create_invite(tailnet=tailnet, email=ANA, role=Role.AUDITOR, by=ME)
    assert "is invited to ours" in refusal(ANA)
    assert link("ANA@example.com", "--create")
    assert place_of("ANA@example.com").role == Role.AUDITOR, "what the invitation promised"
    with scope(tailnet=tailnet):
        assert not Invite.objects.exists()
    with pytest.raises(Gone):
        find_invite(token=invite.link.rpartition("/")[2])


def test_somebody_who_waits_is_approved_only_when_told(tailnet: Tailnet) -> None:
    person = factories.person(ANA)
    add_member(tailnet=tailnet, user=person, by=ME, needs_approval=True)
    assert "waits for approval in ours" in refusal(ANA)
    assert link(ANA, "--create", "--role", "auditor")
    assert (place_of(ANA).role, place_of(ANA).status) == (Role.AUDITOR, Status.ACTIVE)
    with scope(tailnet=tailnet):
        assert AuditEvent.objects.filter(action="APPROVE", target_id=str(person.pk)).exists()


def test_somebody_suspended_stays_so(tailnet: Tailnet) -> None:
    person = factories.person(ANA)
    suspend_member(membership=add_member(tailnet=tailnet, user=person, by=ME), by=ME)
    for more in ((), ("--create",)):
        assert "is suspended in ours: restore them" in refusal(ANA, *more)


def test_a_member_gets_a_link_to_their_own_tailnet_and_keeps_their_role(tailnet: Tailnet) -> None:
    other, _owner = factories.tailnet("theirs")
    person = factories.person(ANA)
    suspend_member(membership=add_member(tailnet=tailnet, user=person, by=ME), by=ME)
    add_member(tailnet=other, user=person, role=Role.AUDITOR, by=ME)
    assert link(f" {ANA} ", "--create")
    assert SignInLink.objects.get().tailnet == other
    assert [one.status for one in memberships_of(person.pk)] == [Status.SUSPENDED, Status.ACTIVE]


def test_of_two_with_one_address_it_is_the_one_whom_a_command_made(tailnet: Tailnet) -> None:
    mine, theirs = factories.person(ANA), factories.person(ANA)
    type(theirs).objects.filter(pk=theirs.pk).update(iss="https://id.example.com")
    for person in (theirs, mine):
        add_member(tailnet=tailnet, user=person, by=ME)
    assert link(ANA)
    assert SignInLink.objects.get().user == mine
