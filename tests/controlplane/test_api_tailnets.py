"""The API's tailnets of a person: listed in pages, made with a client, deleted by their owner."""

from __future__ import annotations

import pytest

from accounts.actors import Actor
from accounts.models import AuditEvent, Membership, Tailnet
from accounts.roles import Role
from accounts.services import tailnets
from accounts.services.people import add_member, suspend_member
from accounts.services.tokens import issue_access_token
from accounts.tenancy import memberships_of, scope
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
MINE = "/organizations/-/tailnets"


def test_a_persons_tailnets_come_in_pages() -> None:
    tailnet, owner = people.tailnet(display_name="First")
    others = [people.tailnet()[0] for _ in range(4)]
    for one in others[:3]:
        place = add_member(tailnet=one, user=owner, role=Role.MEMBER, by=Actor.command())
    suspend_member(membership=place, by=Actor.command())
    api = as_person(tailnet, owner, "account_settings:read")
    whole = api.get(MINE)
    assert whole.keys() == {"tailnets"}  # the Go client can read no other member
    assert [one["id"] for one in whole["tailnets"]] == [str(one.pk) for one in (tailnet, *others[:2])]
    assert whole["tailnets"][0]["displayName"] == "First"
    first = api.get(f"{MINE}?limit=2")
    second = api.get(f"{MINE}?limit=2&cursor={first['cursor']}")
    assert first["totalCount"] == second["totalCount"] == 3
    assert first["tailnets"] + second["tailnets"] == whole["tailnets"]
    assert "cursor" not in second
    assert api.get(f"/organizations/{owner.pk}/tailnets") == whole


def test_one_is_made_with_a_client_for_it() -> None:
    tailnet, owner = people.tailnet()
    api = as_person(tailnet, owner, "account_settings")
    made = api.post(MINE, {"displayName": "Harbour & Sons"})
    row = Tailnet.objects.get(pk=made["id"])
    assert (row.name, row.display_name) == ("harbour-sons", "Harbour & Sons")
    assert made["dnsName"].startswith("harbour-sons.")
    assert made["alreadyExists"] is False
    with scope(tailnet=row):
        (place,) = Membership.objects.all()
        event = AuditEvent.objects.order_by("pk")[0]
    assert (place.user, place.role) == (owner, Role.OWNER)
    assert event.actor_type == "API_TOKEN"
    token = issue_access_token(client_secret=made["oauthClient"]["secret"]).text
    there = Api(token)
    assert there.get(f"/tailnet/{row.name}/settings") == there.get(f"/tailnet/{row.pk}/settings")
    assert there.refusal("GET", f"/tailnet/{tailnet.name}/settings").status == 404
    again = api.post(MINE, {"displayName": "Harbour & Sons"})
    assert (again["id"], again["alreadyExists"]) == (made["id"], True)
    assert "oauthClient" not in again


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.OWNER])
def test_whoever_may_make_one_in_the_panel_may_by_their_token(role: Role) -> None:
    tailnet, _ = people.tailnet()
    user = people.member(tailnet, role).user
    made = as_person(tailnet, user, "account_settings").post(MINE, {"displayName": "Harbour"})
    places = {one.tailnet_id: one.role for one in memberships_of(user.pk)}
    assert places == {tailnet.pk: role, int(made["id"]): Role.OWNER}
    assert [one["id"] for one in as_person(tailnet, user, "all:read").get(MINE)["tailnets"]] == [
        str(tailnet.pk),
        made["id"],
    ]
    assert as_person(tailnet, user, "dns").refusal("POST", MINE, {"displayName": "More"}).status == 403
    assert as_person(tailnet, user, "all:read").refusal("POST", MINE, {"displayName": "More"}).status == 403


def test_a_name_that_is_taken_gets_an_ending() -> None:
    tailnet, owner = people.tailnet()
    people.tailnet("harbour")
    api = as_person(tailnet, owner, "account_settings")
    made = Tailnet.objects.get(pk=api.post(MINE, {"displayName": "Harbour"})["id"])
    assert made.name.startswith("harbour-")
    assert Tailnet.objects.get(pk=api.post(MINE, {"displayName": "港"})["id"]).name == "tailnet"


def test_there_is_an_end_to_them(monkeypatch: pytest.MonkeyPatch) -> None:
    tailnet, owner = people.tailnet()
    monkeypatch.setattr(tailnets, "MAX_OWNED", 1)
    refused = as_person(tailnet, owner).refusal("POST", MINE, {"displayName": "One more"})
    assert refused.status == 409
    assert len(memberships_of(owner.pk)) == 1


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "x" * 201, None, 1, "\0"])
def test_names_that_are_none(name: object) -> None:
    tailnet, owner = people.tailnet()
    assert as_person(tailnet, owner).refusal("POST", MINE, {"displayName": name}).status == 400
    assert len(memberships_of(owner.pk)) == 1


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "cursor=x", "cursor=1%0a1", "page=2"])
def test_pages_that_are_none(query: str) -> None:
    tailnet, owner = people.tailnet()
    assert as_person(tailnet, owner).refusal("GET", f"{MINE}?{query}").status == 400


def test_who_may_not_is_told_so() -> None:
    tailnet, owner = people.tailnet()
    _, other = people.tailnet()
    client = as_client(tailnet)
    for method, path in (("GET", MINE), ("POST", MINE), ("DELETE", "/tailnet/-")):
        assert client.refusal(method, path, {"displayName": "X"}).status == 403
    reads = as_person(tailnet, owner, "account_settings:read")
    assert reads.refusal("POST", MINE, {"displayName": "X"}).status == 403
    assert reads.refusal("DELETE", "/tailnet/-").status == 403
    assert as_person(tailnet, owner, "dns").refusal("GET", MINE).status == 403
    assert reads.refusal("GET", f"/organizations/{other.pk}/tailnets").status == 404
    assert Tailnet.objects.filter(pk=tailnet.pk).exists()


def test_its_owner_alone_deletes_one() -> None:
    tailnet, owner = people.tailnet()
    other, _ = people.tailnet()
    for role in (Role.ADMIN, Role.IT_ADMIN):
        refused = as_person(tailnet, people.member(tailnet, role).user).refusal("DELETE", "/tailnet/-")
        assert refused.status == 403
    api = as_person(tailnet, owner)
    assert api.refusal("DELETE", f"/tailnet/{other.name}").status == 404
    assert api.delete(f"/tailnet/{tailnet.name}") == {}
    assert not Tailnet.objects.filter(pk=tailnet.pk).exists()
    assert Tailnet.objects.filter(pk=other.pk).exists()
    assert api.refusal("GET", MINE).status == 401
