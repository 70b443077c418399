"""``/tailnet/{tailnet}/users`` and ``/users/{id}``."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AuditEvent, Membership, Tailnet, User
from accounts.roles import Role
from accounts.tenancy import scope
from nodes.models import Node, Presence
from tests.accounts import factories
from tests.api import as_client, as_person
from tests.nodes import factories as machines
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
USERS = "/tailnet/-/users"
ACTIONS = ("approve", "suspend", "restore", "delete")


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def status_of(person: Membership) -> str:
    with scope(tailnet=person.tailnet):
        return str(Membership.objects.get(pk=person.pk).status)


def test_a_person_is_told_with_what_their_devices_do(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    machines.node(tailnet, owner)
    node = machines.node(tailnet, owner)
    api, now = as_person(tailnet, owner), timezone.now()
    found = api.get(f"/users/{owner.pk}")
    assert found == {
        "id": str(owner.pk),
        "displayName": owner.name,
        "loginName": owner.login_name,
        "profilePicUrl": "",
        "tailnetId": str(tailnet.pk),
        "created": found["created"],
        "type": "member",
        "role": "owner",
        "status": "active",
        "deviceCount": 2,
        "currentlyConnected": False,
    }
    with scope(tailnet=tailnet):
        Presence.objects.create(tailnet=tailnet, node=node, expires=now + timedelta(minutes=1))
    online = api.get(f"/users/{owner.pk}")
    assert online["currentlyConnected"] is True
    assert online["lastSeen"] >= now.strftime("%Y-%m-%dT%H:%M:%SZ")


@pytest.mark.parametrize(
    ("joined", "page", "device", "connected", "status"),
    [
        (27, None, None, False, "active"),
        (29, None, None, False, "idle"),
        (99, 27, None, False, "active"),
        (99, 29, 27, False, "active"),
        (99, 29, 30, False, "idle"),
        (99, None, 30, True, "active"),
    ],
)
def test_whom_nobody_has_seen_for_four_weeks_is_idle(
    place: tuple[Tailnet, User],
    joined: int,
    page: int | None,
    device: int | None,
    connected: bool,
    status: str,
) -> None:
    tailnet, owner = place
    person, now = factories.member(tailnet), timezone.now()

    def ago(days: int | None) -> Any:
        return now - timedelta(days=days) if days is not None else None

    node = machines.node(tailnet, person.user)
    with scope(tailnet=tailnet):
        Membership.objects.filter(pk=person.pk).update(created=ago(joined), last_seen=ago(page))
        Node.objects.filter(pk=node.pk).update(last_seen=ago(device))
        if connected:
            Presence.objects.create(tailnet=tailnet, node=node, expires=now + timedelta(minutes=1))
    found = as_person(tailnet, owner).get(f"/users/{person.user_id}")
    assert found["status"] == status
    assert ("lastSeen" in found) == bool(page or device or connected)


def test_the_list_is_narrowed_by_type_and_role(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    admin, member = factories.member(tailnet, Role.ADMIN), factories.member(tailnet)
    api = as_person(tailnet, owner)

    def listed(query: str = "") -> set[str]:
        return {user["id"] for user in api.get(USERS + query)["users"]}

    everybody = {str(owner.pk), str(admin.user_id), str(member.user_id)}
    assert listed() == listed("?type=member") == listed("?type=all&role=all") == everybody
    assert listed("?type=shared") == set()
    assert listed("?role=admin") == {str(admin.user_id)}
    assert listed("?role=auditor") == set()
    for wrong in ("?role=king", "?type=", "?colour=1"):
        assert api.refusal("GET", USERS + wrong).status == 400


def test_a_person_is_let_in_cut_off_brought_back_and_removed(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    person = factories.member(tailnet)
    machines.node(tailnet, person.user)
    with scope(tailnet=tailnet):
        Membership.objects.filter(pk=person.pk).update(status="needs-approval")
    api, path = as_person(tailnet, owner), f"/users/{person.user_id}"
    assert api.get(path)["status"] == "needs-approval"
    assert api.refusal("POST", f"{path}/restore").status == 409
    for action, status in (("approve", "active"), ("suspend", "suspended"), ("restore", "active")):
        assert api.post(f"{path}/{action}") == {}
        assert api.get(path)["status"] == status
        assert api.post(f"{path}/{action}") == {}, "once more is nothing"
        with scope(tailnet=tailnet):
            event = AuditEvent.objects.latest("pk")
        assert (event.action, event.actor_type) == (action.upper(), "API_TOKEN")
    api.post(f"{path}/suspend")
    assert api.refusal("POST", f"{path}/approve").status == 409
    assert api.post(f"{path}/role", {"role": "auditor"}) == {}
    assert api.get(path)["role"] == "auditor"
    assert api.post(f"{path}/delete") == {}
    assert api.refusal("GET", path).status == 404
    with scope(tailnet=tailnet):
        assert not Node.objects.exists()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"role": "king"}, 400),
        ({"role": 1}, 400),
        ({"role": "member", "colour": 1}, 400),
        ({"role": "owner"}, 403),
    ],
)
def test_a_wrong_role_is_not_given(place: tuple[Tailnet, User], body: Any, status: int) -> None:
    tailnet, owner = place
    person = factories.member(tailnet)
    api = as_person(tailnet, owner)
    assert api.refusal("POST", f"/users/{person.user_id}/role", body).status == status
    assert api.get(f"/users/{person.user_id}")["role"] == "member"


def test_nobody_acts_on_themselves_or_on_who_ranks_as_high(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    admins = [factories.member(tailnet, Role.ADMIN) for _ in range(2)]
    member = factories.member(tailnet)
    for api in (as_person(tailnet, admins[0].user), as_client(tailnet, "users"), as_client(tailnet, "all")):
        for target in (owner.pk, admins[0].user_id, admins[1].user_id):
            for action in ACTIONS:
                assert api.refusal("POST", f"/users/{target}/{action}").status == 403
            assert api.refusal("POST", f"/users/{target}/role", {"role": "member"}).status == 403
        for role in ("admin", "owner"):
            refused = api.refusal("POST", f"/users/{member.user_id}/role", {"role": role})
            assert refused.status == 403
        assert api.post(f"/users/{member.user_id}/role", {"role": "it-admin"}) == {}
        assert api.post(f"/users/{member.user_id}/role", {"role": "member"}) == {}
    assert status_of(admins[1]) == "active"
    own = as_person(tailnet, owner)
    for action in ACTIONS:
        assert own.refusal("POST", f"/users/{owner.pk}/{action}").status == 403


def test_who_may_what(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    target = factories.member(tailnet)
    for role, reads, acts in (
        (Role.IT_ADMIN, True, True),
        (Role.NETWORK_ADMIN, True, False),
        (Role.AUDITOR, True, False),
        (Role.MEMBER, False, False),
        (Role.BILLING_ADMIN, False, False),
    ):
        api = as_person(tailnet, factories.member(tailnet, role).user)
        if reads:
            assert api.get(USERS)["users"]
            assert api.get(f"/users/{target.user_id}")["role"] == "member"
        else:
            assert api.refusal("GET", USERS).status == 403
            assert api.refusal("GET", f"/users/{target.user_id}").status == 403
        if acts:
            assert api.post(f"/users/{target.user_id}/suspend") == {}
            assert api.post(f"/users/{target.user_id}/restore") == {}
        else:
            assert api.refusal("POST", f"/users/{target.user_id}/suspend").status == 403
    reads = as_person(tailnet, owner, "users:read")
    assert reads.get(USERS)["users"]
    assert reads.refusal("POST", f"/users/{target.user_id}/delete").status == 403
    assert as_client(tailnet, "dns").refusal("GET", USERS).status == 403


def test_people_of_another_tailnet_are_not_there(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    guest = factories.member(other)
    api = as_person(*place)
    for wrong in (stranger.pk, guest.user_id, "0", "x", "9" * 30, "-1", "%00", "%D9%A3"):
        assert api.refusal("GET", f"/users/{wrong}").status == 404
        for action in ACTIONS:
            assert api.refusal("POST", f"/users/{wrong}/{action}").status == 404
        assert api.refusal("POST", f"/users/{wrong}/role", {"role": "member"}).status == 404
    assert [user["id"] for user in api.get(USERS)["users"]] == [str(place[1].pk)]
    assert status_of(guest) == "active"


def test_a_list_of_any_length_costs_the_same(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)

    def queries() -> int:
        with CaptureQueriesContext(connection) as found:
            api.get(USERS)
        return len(found)

    api.get(USERS)
    few = queries()
    for _ in range(5):
        machines.node(tailnet, factories.member(tailnet).user)
    assert queries() == few
