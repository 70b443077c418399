"""The list of people, a person's page, what is done to one or several, and invitations in the panel."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import ApiToken, AuditEvent, Invite, Membership, Tailnet
from accounts.roles import Role
from accounts.services import invites, people
from accounts.services.tokens import create_api_token
from accounts.tenancy import scope
from nodes.models import Node, PreAuthKey
from nodes.services.presence import claim_presence
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()
Status = Membership.Status


def named(of: Tailnet, name: str, role: str = Role.MEMBER) -> Membership:
    made = people.add_member(tailnet=of, user=factories.person(f"{name}@example.com"), role=role, by=ME)
    made.user.display_name = name.title()
    made.user.save()
    return made


def waiting(of: Tailnet, name: str) -> Membership:
    return people.add_member(
        tailnet=of, user=factories.person(f"{name}@example.com"), by=ME, needs_approval=True
    )


def current(place: Membership) -> Membership:
    with scope(tailnet=place.tailnet):
        return Membership.objects.get(pk=place.pk)


def names_in(answer: Any) -> list[str]:
    return re.findall(r'class="thing-name"[^>]*>([^<]+)<', answer.content.decode())


# --- the list ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_who_sees_people(role: Role) -> None:
    tailnet, owner = factories.tailnet()
    other = named(tailnet, "other")
    visitor = Visitor(owner) if role == Role.OWNER else Visitor.of(factories.member(tailnet, role))
    sees = role not in (Role.MEMBER, Role.BILLING_ADMIN)
    for path in ("/users", "/users/invitations", f"/users/{other.user_id}"):
        assert visitor.get(path).status_code == (200 if sees else 404)
    row = visitor.fragment(f"/users/{other.user_id}/row")
    assert (row.status_code, bool(row.content)) == (200, sees)


def test_one_sees_oneself() -> None:
    tailnet, _ = factories.tailnet()
    member = named(tailnet, "ana")
    assert Visitor.of(member).get(f"/users/{member.user_id}").status_code == 200


def test_nobody_sees_people_of_another_tailnet() -> None:
    _, owner = factories.tailnet()
    foreign, stranger = factories.tailnet()
    named(foreign, "canary")
    visitor = Visitor(owner)
    assert "canary" not in visitor.get("/users").content.decode().lower()
    for action in ("", "/suspend", "/delete", "/role", "/row"):
        answer = visitor.get(f"/users/{stranger.pk}{action}")
        assert answer.status_code == 404 or not answer.content


def test_filters_search_and_order_are_in_the_url() -> None:
    tailnet, owner = factories.tailnet()
    people.User.objects.filter(pk=owner.pk).update(display_name="Zoe")
    ana, ben = named(tailnet, "ana", Role.ADMIN), named(tailnet, "ben")
    people.suspend_member(membership=ben, by=ME)
    waiting(tailnet, "carl")
    machines.node(tailnet, ana.user)
    visitor = Visitor(owner)

    def shown(query: str) -> list[str]:
        return names_in(visitor.fragment(f"/users?{query}", target="people-list", page="/users"))

    assert shown("") == ["carl", "Ana", "Ben", "Zoe"]
    assert shown("sort=name") == ["Ana", "Ben", "carl", "Zoe"]
    assert shown("sort=-name") == ["Zoe", "carl", "Ben", "Ana"]
    assert shown("sort=role") == ["Zoe", "Ana", "Ben", "carl"]
    assert shown("sort=devices")[0] == "Ana"
    assert shown("sort=-devices")[-1] == "Ana"
    assert shown("sort=joined")[0] == "carl"
    assert shown("status=suspended") == ["Ben"]
    assert shown("role=admin") == ["Ana"]
    assert shown("q=BEN@") == ["Ben"]
    assert shown("q=%00x%25") == []
    assert len(shown("status=x&role=y&sort=z&page=99")) == 4


def test_presence_and_last_seen_are_those_of_their_devices() -> None:
    tailnet, owner = factories.tailnet()
    here, gone = named(tailnet, "here"), named(tailnet, "gone")
    claim_presence(tailnet=tailnet, node_id=machines.node(tailnet, here.user).pk, worker="w")
    node = machines.node(tailnet, gone.user, hostname="away")
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(last_seen=timezone.now() - timedelta(days=3))
    visitor = Visitor(owner)
    assert "Online" in visitor.fragment(f"/users/{here.user_id}/row").content.decode()
    away = visitor.fragment(f"/users/{gone.user_id}/row").content.decode()
    assert "Online" not in away
    assert "3\xa0days" in away
    rows = names_in(visitor.fragment("/users?sort=seen", target="people-list"))
    assert rows[:2] == ["Here", "Gone"]


def test_the_list_costs_the_same_however_many_there_are() -> None:
    tailnet, owner = factories.tailnet()
    visitor = Visitor(owner)
    counts = []
    for number in (2, 12):
        for index in range(number):
            machines.node(tailnet, named(tailnet, f"p{number}x{index}").user, hostname=f"h{number}x{index}")
        visitor.get("/users")
        with CaptureQueriesContext(
            connection,
        ) as queries:
            assert visitor.get("/users").status_code == 200
        counts.append(len(queries))
    assert counts[0] == counts[1]


def test_the_invitations_cost_the_same_however_many_there_are() -> None:
    tailnet, owner = factories.tailnet()
    visitor, by = Visitor(owner), Actor.person(owner)
    counts = []
    for number in (2, 12):
        for index in range(number):
            invites.create_invite(tailnet=tailnet, email=f"p{number}x{index}@example.com", by=by)
        visitor.get("/users/invitations")
        with CaptureQueriesContext(connection) as queries:
            assert f"p{number}x1@example.com" in visitor.get("/users/invitations").content.decode()
        counts.append(len(queries))
    assert counts[0] == counts[1]


# --- one person --------------------------------------------------------------------------------------------


def test_a_person_s_page_shows_devices_and_what_happened() -> None:
    tailnet, owner = factories.tailnet()
    ana = named(tailnet, "ana")
    machines.node(tailnet, ana.user, hostname="laptop")
    people.set_role(membership=ana, role=Role.AUDITOR, by=Actor.person(owner))
    page = Visitor(owner).get(f"/users/{ana.user_id}").content.decode()
    for words in ("Ana", "ana@example.com", "laptop", "Joined as Member", "From Member to Auditor"):
        assert words in page


@pytest.mark.parametrize(
    ("action", "before", "after"),
    [
        ("approve", Status.NEEDS_APPROVAL, Status.ACTIVE),
        ("suspend", Status.ACTIVE, Status.SUSPENDED),
        ("suspend", Status.NEEDS_APPROVAL, Status.SUSPENDED),
        ("restore", Status.SUSPENDED, Status.ACTIVE),
    ],
)
def test_a_state_changes_on_the_list_and_on_the_page(action: str, before: str, after: str) -> None:
    tailnet, owner = factories.tailnet()
    visitor = Visitor(owner)
    for page in ("/users", "/users/{}", ""):
        member = named(tailnet, f"m{len(page)}")
        with scope(tailnet=tailnet):
            Membership.objects.filter(pk=member.pk).update(status=before)
        path = f"/users/{member.user_id}/{action}"
        assert visitor.get(path).status_code == 200
        answer = visitor.submit(path, page=page.format(member.user_id))
        assert answer.status_code == (200 if page else 302)
        assert current(member).status == after
        with scope(tailnet=tailnet):
            event = AuditEvent.objects.latest("pk")
        assert (event.target_id, event.old, event.new) == (str(member.user_id), before, after)


def test_what_does_not_fit_the_state_is_out_of_step() -> None:
    tailnet, owner = factories.tailnet()
    member = named(tailnet, "ana")
    visitor = Visitor(owner)
    for action in ("approve", "restore"):
        assert visitor.submit(f"/users/{member.user_id}/{action}").status_code == 409
    assert visitor.submit(f"/users/{member.user_id}/explode").status_code == 404
    assert visitor.submit(f"/users/{owner.pk}/suspend").status_code == 403
    assert current(member).is_active


@pytest.mark.parametrize("actor", Role)
@pytest.mark.parametrize("target", Role)
def test_one_acts_on_lower_ranks_only(actor: Role, target: Role) -> None:
    tailnet, owner = factories.tailnet()

    def place(role: Role) -> Membership:
        if role != Role.OWNER:
            return factories.member(tailnet, role)
        with scope(tailnet=tailnet):
            return Membership.objects.select_related("user", "tailnet").get(user=owner)

    reader, person = place(actor), place(target)
    ranks = {Role.OWNER: 3, Role.ADMIN: 2, Role.IT_ADMIN: 1, Role.NETWORK_ADMIN: 1}
    may = actor in (Role.OWNER, Role.ADMIN, Role.IT_ADMIN) and ranks[actor] > ranks.get(target, 0)
    visitor = Visitor.of(reader)
    for action, more in (("suspend", {}), ("role", {"role": Role.MEMBER.value}), ("delete", {})):
        answer = visitor.submit(f"/users/{person.user_id}/{action}", **more)
        assert (answer.status_code in (302, 409)) == may, (action, answer.status_code)
        if not may:
            assert answer.status_code in (403, 404)
    with scope(tailnet=tailnet):
        assert Membership.objects.filter(pk=person.pk).exists() != may


def test_a_role_is_changed_to_one_below_ones_own() -> None:
    tailnet, owner = factories.tailnet()
    helper, member = named(tailnet, "helper", Role.IT_ADMIN), named(tailnet, "ana")
    visitor = Visitor.of(helper)
    dialog = visitor.get(f"/users/{member.user_id}/role").content.decode()
    assert re.findall(r'name="role" value="([a-z-]+)"', dialog) == ["member", "billing-admin", "auditor"]
    path = f"/users/{member.user_id}/role"
    assert visitor.submit(path, role="auditor").status_code == 302
    for role, status in (("admin", 403), ("owner", 403), ("it-admin", 403), ("king", 422), ("", 422)):
        assert visitor.submit(path, role=role).status_code == status
    assert current(member).role == Role.AUDITOR
    assert Visitor(owner).submit(path, role="admin").status_code == 302


def test_whoever_is_removed_takes_devices_keys_and_tokens_along() -> None:
    tailnet, owner = factories.tailnet()
    member = named(tailnet, "ana")
    for index in range(2):
        machines.node(tailnet, member.user, hostname=f"laptop{index}")
    machines.node(tailnet, tags=["tag:server"], hostname="server")
    machines.auth_key(tailnet, member.user)
    create_api_token(tailnet=tailnet, user=member.user, by=ME)
    visitor = Visitor(owner)
    path = f"/users/{member.user_id}/delete"
    assert "2 devices of theirs are deleted" in visitor.get(path).content.decode()
    answer = visitor.submit(path, page=f"/users/{member.user_id}")
    assert answer["HX-Redirect"] == "/users"
    with scope(tailnet=tailnet):
        assert [node.hostname for node in Node.objects.all()] == ["server"]
        assert PreAuthKey.objects.get().revoked_at is not None
        assert ApiToken.objects.get().revoked_at is not None
        assert not Membership.objects.filter(user=member.user).exists()
    assert visitor.fragment(f"/users/{member.user_id}", page=f"/users/{member.user_id}")["HX-Redirect"]


# --- several -----------------------------------------------------------------------------------------------


def test_several_are_asked_about_first_then_acted_on() -> None:
    tailnet, owner = factories.tailnet()
    chosen = [named(tailnet, name) for name in ("ana", "ben")]
    out = named(tailnet, "carl")
    people.suspend_member(membership=out, by=ME)
    visitor = Visitor(owner)
    ids = [one.user_id for one in (*chosen, out)] + [owner.pk, 10**15, "x"]
    dialog = visitor.submit("/users/bulk", page="/users", action="suspend", user=ids)
    text = dialog.content.decode()
    assert "Suspend 2 people?" in text
    assert "2 more stay as they are" in text
    assert all(current(one).is_active for one in chosen)
    done = visitor.submit("/users/bulk", page="/users", action="suspend", user=ids, sure="1")
    assert "2 people are suspended." in done["HX-Trigger"]
    assert [current(one).status for one in chosen] == [Status.SUSPENDED] * 2
    restored = visitor.submit("/users/bulk", action="restore", user=ids, sure="1")
    assert restored["Location"] == "/users"
    assert all(current(one).is_active for one in (*chosen, out))


def test_several_get_another_role_and_several_are_removed() -> None:
    tailnet, owner = factories.tailnet()
    chosen = [named(tailnet, name) for name in ("ana", "ben")]
    ids = [one.user_id for one in chosen]
    visitor = Visitor(owner)
    asked = visitor.submit("/users/bulk", page="/users", action="role", user=ids, sure="1")
    assert "Choose a role" in asked.content.decode()
    visitor.submit("/users/bulk", page="/users", action="role", user=ids, sure="1", role="auditor")
    assert {current(one).role for one in chosen} == {Role.AUDITOR}
    visitor.submit("/users/bulk", page="/users", action="delete", user=ids, sure="1")
    with scope(tailnet=tailnet):
        assert Membership.objects.count() == 1


def test_a_bulk_action_needs_somebody_it_fits_and_the_right() -> None:
    tailnet, owner = factories.tailnet()
    member = named(tailnet, "ana")
    assert "Nobody is chosen" in Visitor(owner).submit("/users/bulk", action="approve").content.decode()
    nothing = Visitor(owner).submit("/users/bulk", action="approve", user=[member.user_id], sure="1")
    assert "Nothing to do" in nothing.content.decode()
    auditor = Visitor.of(named(tailnet, "eva", Role.AUDITOR))
    assert auditor.submit("/users/bulk", action="suspend", user=[member.user_id]).status_code == 403
    assert Visitor.of(member).submit("/users/bulk", action="suspend").status_code == 404


# --- invitations -------------------------------------------------------------------------------------------


def test_somebody_is_invited_and_the_link_shown_once() -> None:
    _, owner = factories.tailnet()
    visitor = Visitor(owner)
    assert "colleague@example.com" in visitor.get("/users/invite").content.decode()
    made = visitor.submit("/users/invite", page="/users", email="new@example.com", role="auditor")
    link = re.search(r"/invite/([\w-]{40,})", made.content.decode())
    assert link is not None
    listed = visitor.get("/users/invitations").content.decode()
    assert "new@example.com" in listed
    assert link[1] not in listed
    assert invites.find_invite(token=link[1]).role == Role.AUDITOR


@pytest.mark.parametrize(
    ("email", "role"), [("", "member"), ("x", "member"), ("a@example.com", "owner"), ("a@example.com", "x")]
)
def test_a_wrong_invitation_keeps_the_dialog_open(email: str, role: str) -> None:
    tailnet, owner = factories.tailnet()
    assert Visitor(owner).submit("/users/invite", page="/users", email=email, role=role).status_code == 422
    with scope(tailnet=tailnet):
        assert not Invite.objects.exists()


def test_one_is_sent_again_and_withdrawn() -> None:
    tailnet, owner = factories.tailnet()
    made = invites.create_invite(tailnet=tailnet, email="new@example.com", by=Actor.person(owner))
    visitor = Visitor(owner)
    base = f"/users/invitations/{made.invite.pk}"
    assert visitor.get(f"{base}/resend").status_code == 200
    again = visitor.submit(f"{base}/resend", page="/users/invitations").content.decode()
    assert made.link not in again
    assert "/invite/" in again
    assert visitor.get(f"{base}/revoke").status_code == 200
    assert "withdrawn" in visitor.submit(f"{base}/revoke", page="/users/invitations")["HX-Trigger"]
    assert visitor.get(f"{base}/revoke").status_code == 404


def test_who_may_not_invite_sees_the_list_alone() -> None:
    tailnet, owner = factories.tailnet()
    made = invites.create_invite(tailnet=tailnet, email="new@example.com", by=Actor.person(owner))
    auditor = Visitor.of(factories.member(tailnet, Role.AUDITOR))
    assert "new@example.com" in auditor.get("/users/invitations").content.decode()
    assert auditor.get("/users/invite").status_code == 404
    assert auditor.submit(f"/users/invitations/{made.invite.pk}/revoke").status_code == 403
    _, stranger = factories.tailnet()
    assert Visitor(stranger).submit(f"/users/invitations/{made.invite.pk}/revoke").status_code == 404


def test_the_list_says_which_no_longer_work() -> None:
    tailnet, owner = factories.tailnet()
    sender = factories.member(tailnet, Role.ADMIN)
    invites.create_invite(
        tailnet=tailnet, email="old@example.com", by=ME, now=timezone.now() - timedelta(days=9)
    )
    invites.create_invite(tailnet=tailnet, email="void@example.com", by=Actor.person(sender.user))
    people.suspend_member(membership=sender, by=ME)
    page = Visitor(owner).get("/users/invitations").content.decode()
    assert "Ran out" in page
    assert "may no longer invite" in page
