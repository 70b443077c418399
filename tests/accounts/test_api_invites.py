"""``/tailnet/{tailnet}/user-invites`` and ``/user-invites/{id}``."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts import tasks
from accounts.actors import Actor
from accounts.errors import Gone
from accounts.models import AuditEvent, Invite, Outbox, Tailnet, User
from accounts.roles import Role
from accounts.services import invites
from accounts.tenancy import scope
from tests.accounts import factories
from tests.api import as_client, as_person
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
LIST = "/tailnet/-/user-invites"


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def test_several_are_invited_at_once_and_each_link_is_shown_once(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)
    wanted = [{"email": "ana@example.com", "role": "admin"}, {"email": "bea@example.com"}]
    first, second = api.post(LIST, wanted)
    assert first["inviteUrl"] != second["inviteUrl"]
    assert first == {
        "id": first["id"],
        "role": "admin",
        "tailnetId": tailnet.pk,
        "email": "ana@example.com",
        "inviterId": owner.pk,
        "inviteUrl": first["inviteUrl"],
    }
    assert second["role"] == "member"
    del first["inviteUrl"], second["inviteUrl"]
    assert api.get(LIST) == [second, first]
    assert api.get(f"/user-invites/{first['id']}") == first
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.latest("pk")
    assert (event.actor_type, event.target_type, event.action) == ("API_TOKEN", "USER_INVITE", "CREATE")


def test_one_link_works_and_one_sent_again_has_another(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)
    (made,) = api.post(LIST, [{"email": "ana@example.com"}])
    again = api.post(f"/user-invites/{made['id']}/resend")
    assert again["id"] == made["id"]
    with pytest.raises(Gone):
        invites.find_invite(token=made["inviteUrl"].rpartition("/")[2])
    invites.accept_invite(token=again["inviteUrl"].rpartition("/")[2], user=factories.person())
    assert api.get(LIST) == []
    assert api.refusal("GET", f"/user-invites/{made['id']}").status == 404


def test_one_withdrawn_is_gone(place: tuple[Tailnet, User]) -> None:
    api = as_person(*place)
    (made,) = api.post(LIST, [{"email": "ana@example.com"}])
    path = f"/user-invites/{made['id']}"
    assert api.delete(path) == {}
    assert [api.refusal(method, path).status for method in ("GET", "DELETE")] == [404, 404]
    assert api.refusal("POST", f"{path}/resend").status == 404


def test_when_the_mail_went_out_is_told(place: tuple[Tailnet, User], settings: Any) -> None:
    settings.MAIL_IS_SET_UP = True
    api = as_person(*place)
    mailed, waiting = api.post(LIST, [{"email": "ana@example.com"}, {"email": "bea@example.com"}])[0], None
    assert "lastEmailSentAt" not in mailed
    tasks.deliver_outbox()
    for found in (*api.get(LIST), api.get(f"/user-invites/{mailed['id']}")):
        assert found["lastEmailSentAt"].endswith("Z")
    (waiting,) = api.post(LIST, [{"email": "eva@example.com"}])
    assert "lastEmailSentAt" not in api.get(f"/user-invites/{waiting['id']}")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({}, 400, "list"),
        ([{"email": ""}], 400, "email"),
        ([{"email": "nobody"}], 400, "email: write it like"),
        ([{"email": "a@example.com\n"}], 400, "email: write it like"),
        ([{"email": "a@example.com", "role": "owner"}], 400, "role: is none of the values there are"),
        ([{"email": "a@example.com", "colour": 1}], 400, "colour"),
        ([{"email": f"a{n}@example.com"} for n in range(101)], 409, "100"),
        ([{"email": "a@example.com"}, {"email": "A@example.com"}], 409, "open invitation already"),
        ([{"email": "b@example.com"}, {"email": "a@example.com", "role": "admin"}], 403, "rank below"),
    ],
)
def test_a_wrong_list_invites_nobody(place: tuple[Tailnet, User], body: Any, status: int, words: str) -> None:
    tailnet, _ = place
    api = as_person(tailnet, factories.member(tailnet, Role.ADMIN).user)
    refused = api.refusal("POST", LIST, body)
    assert (refused.status, words in refused.message) == (status, True), refused
    with scope(tailnet=tailnet):
        assert not Invite.objects.exists()


def test_without_an_address_the_link_is_the_callers_to_pass_on(
    place: tuple[Tailnet, User], settings: Any
) -> None:
    settings.MAIL_IS_SET_UP = True
    tailnet, owner = place
    api = as_person(tailnet, owner)
    first, second = api.post(LIST, [{}, {"role": "auditor"}])
    assert (first["role"], second["role"], "email" in first) == ("member", "auditor", False)
    with scope(tailnet=tailnet):
        assert not Outbox.objects.exists()
    page = Visitor(owner).get("/users/invitations").content.decode()
    assert "Withdraw whoever has the link" in page
    assert invites.accept_invite(token=second["inviteUrl"].rpartition("/")[2], user=factories.person())


def test_nobody_is_invited_is_an_empty_list(place: tuple[Tailnet, User]) -> None:
    assert as_person(*place).post(LIST, []) == []


def test_who_may_what(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    (high,) = as_person(tailnet, owner).post(LIST, [{"email": "a@example.com", "role": "admin"}])
    path = f"/user-invites/{high['id']}"
    for low in (as_client(tailnet, "users"), as_person(tailnet, factories.member(tailnet, Role.ADMIN).user)):
        assert low.get(path)["email"] == "a@example.com"
        assert low.refusal("DELETE", path).status == 403
        assert low.refusal("POST", f"{path}/resend").status == 403
        assert low.refusal("POST", LIST, [{"email": "b@example.com", "role": "admin"}]).status == 403
    (made,) = as_client(tailnet, "users").post(LIST, [{"email": "c@example.com", "role": "it-admin"}])
    assert "inviterId" not in made
    auditor = as_person(tailnet, factories.member(tailnet, Role.AUDITOR).user)
    assert len(auditor.get(LIST)) == 2
    assert auditor.refusal("DELETE", path).status == 403
    member = as_person(tailnet, factories.member(tailnet).user)
    assert member.refusal("GET", LIST).status == 403
    assert as_person(tailnet, owner, "users:read").refusal("POST", LIST, []).status == 403
    assert as_person(tailnet, owner, "dns").refusal("GET", LIST).status == 403


def test_those_of_another_tailnet_are_not_there(place: tuple[Tailnet, User]) -> None:
    other, _ = factories.tailnet()
    theirs = invites.create_invite(tailnet=other, email="a@example.com", by=Actor.command()).invite
    api = as_person(*place)
    for wrong in (theirs.pk, "0", "-1", "x", "9" * 30, "%00", "1%20"):
        for method in ("GET", "DELETE"):
            assert api.refusal(method, f"/user-invites/{wrong}").status == 404
        assert api.refusal("POST", f"/user-invites/{wrong}/resend").status == 404
    assert api.get(LIST) == []


def test_a_list_of_any_length_costs_the_same(place: tuple[Tailnet, User]) -> None:
    api = as_person(*place)

    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as found:
            api.get(LIST)
        return len(found)

    api.post(LIST, [{"email": "a@example.com"}])
    few = queries()
    api.post(LIST, [{"email": f"a{n}@example.com"} for n in range(20)])
    assert queries() == few
