"""Invitations: a link that works once, for a week, and while its sender may still invite."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.core import mail
from django.utils import timezone

from accounts import tasks
from accounts.actors import Actor
from accounts.errors import Conflict, Forbidden, Gone, Invalid, NotFound
from accounts.models import AuditEvent, Invite, Membership, Outbox, Tailnet, User
from accounts.roles import Role
from accounts.services import invites, people
from accounts.tenancy import scope
from tests.accounts import factories

pytestmark = pytest.mark.django_db
ME = Actor.command()


def token_of(made: invites.NewInvite) -> str:
    return made.link.rpartition("/")[2]


def invite(
    tailnet: Tailnet, by: User | None = None, email: str = "new@example.com", role: str = Role.AUDITOR
) -> invites.NewInvite:
    return invites.create_invite(
        tailnet=tailnet, email=email, role=role, by=Actor.person(by) if by is not None else ME
    )


def mails(tailnet: Tailnet) -> list[Outbox]:
    with scope(tailnet=tailnet):
        return list(Outbox.objects.order_by("pk"))


def test_an_invitation_works_once_and_within_its_time() -> None:
    tailnet, owner = factories.tailnet()
    made = invite(tailnet, owner)
    assert token_of(made) not in str(vars(made.invite))
    assert token_of(made) not in repr(made)
    guest = factories.person()
    place = invites.accept_invite(token=token_of(made), user=guest)
    assert (place.user, place.role, place.is_active) == (guest, Role.AUDITOR, True)
    with pytest.raises(Gone):
        invites.accept_invite(token=token_of(made), user=factories.person())
    late = invite(tailnet, owner, "late@example.com")
    with pytest.raises(Gone):
        invites.accept_invite(token=token_of(late), user=guest, now=timezone.now() + timedelta(days=8))
    with pytest.raises(Gone):
        invites.accept_invite(token="unknown", user=guest)


def test_a_server_that_sends_no_mail_notes_none() -> None:
    tailnet, owner = factories.tailnet()
    assert not invite(tailnet, owner).mailed
    assert mails(tailnet) == []


def test_a_tailnet_mails_so_many_a_day_whatever_it_withdraws_and_gives_the_other_links_by_hand(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.MAIL_IS_SET_UP = True
    monkeypatch.setattr(invites, "MAX_MAILED", 2)
    tailnet, owner = factories.tailnet()
    first = invite(tailnet, owner, "a@example.com")
    assert first.mailed
    invites.revoke_invite(invite=first.invite, by=ME)
    second = invite(tailnet, owner, "b@example.com")
    assert second.mailed
    assert not invites.renew_invite(invite=second.invite, by=ME).mailed
    third = invite(tailnet, owner, "c@example.com")
    assert not third.mailed
    assert invites.accept_invite(token=token_of(third), user=factories.person()).is_active
    with scope(tailnet=tailnet):
        AuditEvent.objects.update(event_time=timezone.now() - timedelta(days=2))
    assert invite(tailnet, owner, "d@example.com").mailed


def test_its_mail_has_the_link_until_it_is_of_no_use(settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True
    tailnet, owner = factories.tailnet()
    made = invite(tailnet, owner)
    assert made.mailed
    (note,) = mails(tailnet)
    assert (note.kind, note.target) == (Outbox.Kind.MAIL, "new@example.com")
    assert made.link in note.payload["text"]
    assert tailnet.title in note.subject
    again = invites.renew_invite(invite=made.invite, by=Actor.person(owner))
    (note,) = mails(tailnet)
    assert again.link in note.payload["text"]
    assert made.link not in note.payload["text"]
    invites.accept_invite(token=token_of(again), user=factories.person())
    assert mails(tailnet) == []


def test_one_sent_again_has_a_new_link_and_a_new_week() -> None:
    tailnet, owner = factories.tailnet()
    made = invite(tailnet, owner)
    later = timezone.now() + timedelta(days=10)
    again = invites.renew_invite(invite=made.invite, by=Actor.person(owner), now=later)
    assert again.invite.expires == later + invites.LIFETIME
    with pytest.raises(Gone):
        invites.find_invite(token=token_of(made), now=later)
    assert invites.find_invite(token=token_of(again), now=later) == made.invite


def test_one_withdrawn_is_gone_with_its_mail(settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True
    tailnet, owner = factories.tailnet()
    made = invite(tailnet, owner)
    invites.revoke_invite(invite=made.invite, by=Actor.person(owner))
    with pytest.raises(Gone):
        invites.find_invite(token=token_of(made))
    with pytest.raises(NotFound):
        invites.revoke_invite(invite=made.invite, by=ME)
    assert mails(tailnet) == []
    with scope(tailnet=tailnet):
        actions = AuditEvent.objects.filter(target_type="USER_INVITE").values_list("action", flat=True)
        assert list(actions.order_by("pk")) == ["CREATE", "REVOKE"]


def test_an_accepted_one_is_settled() -> None:
    tailnet, owner = factories.tailnet()
    made = invite(tailnet, owner)
    invites.accept_invite(token=token_of(made), user=factories.person())
    for act in (invites.renew_invite, invites.revoke_invite):
        with pytest.raises(Conflict):
            act(invite=made.invite, by=ME)


@pytest.mark.parametrize(
    ("inviter", "role"),
    [
        (Role.IT_ADMIN, Role.ADMIN),
        (Role.IT_ADMIN, Role.NETWORK_ADMIN),
        (Role.ADMIN, Role.OWNER),
        (Role.OWNER, Role.OWNER),
        (Role.NETWORK_ADMIN, Role.MEMBER),
        (Role.MEMBER, Role.MEMBER),
    ],
)
def test_nobody_invites_to_what_is_not_theirs_to_give(inviter: Role, role: Role) -> None:
    tailnet, owner = factories.tailnet()
    by = owner if inviter == Role.OWNER else factories.member(tailnet, inviter).user
    with pytest.raises(Forbidden):
        invite(tailnet, by, role=role)


def test_what_cannot_be_an_invitation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet, owner = factories.tailnet()
    with pytest.raises(Invalid):
        invite(tailnet, owner, "no address")
    with pytest.raises(Invalid):
        invite(tailnet, owner, role="king")
    invite(tailnet, owner)
    with pytest.raises(Conflict):
        invite(tailnet, owner, "NEW@example.com")
    monkeypatch.setattr(invites, "MAX_OPEN", 1)
    with pytest.raises(Invalid):
        invite(tailnet, owner, "more@example.com")


@pytest.mark.parametrize("deed", ["suspended", "removed", "demoted"])
def test_it_holds_only_while_its_sender_may_invite(deed: str) -> None:
    tailnet, _ = factories.tailnet()
    sender = factories.member(tailnet, Role.ADMIN)
    made = invite(tailnet, sender.user, role=Role.IT_ADMIN)
    assert invites.find_invite(token=token_of(made))
    if deed == "suspended":
        people.suspend_member(membership=sender, by=ME)
    elif deed == "removed":
        people.remove_member(membership=sender, by=ME)
    else:
        people.set_role(membership=sender, role=Role.IT_ADMIN, by=ME)
    with pytest.raises(Gone):
        invites.accept_invite(token=token_of(made), user=factories.person())


def test_who_is_in_already_uses_it_up_for_nobody() -> None:
    tailnet, owner = factories.tailnet()
    made = invite(tailnet, owner)
    member = factories.member(tailnet)
    with pytest.raises(Conflict):
        invites.accept_invite(token=token_of(made), user=member.user)
    people.suspend_member(membership=member, by=ME)
    with pytest.raises(Conflict):
        invites.accept_invite(token=token_of(made), user=member.user)
    with scope(tailnet=tailnet):
        assert Membership.objects.get(pk=member.pk).status == Membership.Status.SUSPENDED
        assert Invite.objects.get().accepted_at is None


def test_who_waits_is_let_in_by_it() -> None:
    tailnet, owner = factories.tailnet()
    waiting = people.add_member(tailnet=tailnet, user=factories.person(), by=ME, needs_approval=True)
    place = invites.accept_invite(token=token_of(invite(tailnet, owner)), user=waiting.user)
    assert (place.pk, place.role, place.is_active) == (waiting.pk, Role.AUDITOR, True)


def test_the_mail_is_delivered_and_its_link_kept_nowhere(settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True
    tailnet, owner = factories.tailnet()
    made = invite(tailnet, owner)
    assert tasks.deliver_outbox() == 1
    (sent,) = mail.outbox
    assert (sent.to, made.link in str(sent.body)) == (["new@example.com"], True)
    (row,) = mails(tailnet)
    assert made.link not in str(row.payload)
    assert invites.find_invite(token=token_of(made))
