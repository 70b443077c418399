"""The queue of what waits: what is in it, who may decide, and what deciding does."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actors import Actor
from accounts.models import AuditEvent, Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member
from accounts.tenancy import scope
from nodes.approvals import MAX_PICKED, Kind, Ref, parse_refs
from nodes.models import Node, Route
from nodes.services.routes import decline_routes, set_exit_node, set_route
from nodes.views.approvals import PAGE_SIZE
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

EXIT = ["0.0.0.0/0", "::/0"]
ROW = re.compile(r'<tr id="item-([a-z-]+)-(\d+)"')


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def router(
    tailnet: Tailnet, owner: User | None, hostname: str, *routes: str, preapproved: bool = True
) -> Node:
    said = {"Hostname": hostname, "OS": "linux", "RoutableIPs": list(routes)}
    tags = () if owner else ["tag:router"]
    return machines.node(tailnet, owner, hostname=hostname, preapproved=preapproved, hostinfo=said, tags=tags)


def newcomer(tailnet: Tailnet, role: str = Role.MEMBER) -> Membership:
    user = factories.person()
    return add_member(tailnet=tailnet, user=user, role=role, by=Actor.person(user), needs_approval=True)


def route_of(node: Node, prefix: str) -> Route:
    with scope(tailnet=node.tailnet_id):
        return Route.objects.get(node=node, prefix=prefix)


def one_of_each(tailnet: Tailnet, owner: User) -> dict[Kind, str]:
    """Something of every kind waits; the refs by kind."""
    device = machines.node(tailnet, owner, hostname="waiting-box")
    person = newcomer(tailnet)
    gate = router(tailnet, owner, "gate", "10.7.0.0/16", *EXIT)
    return {
        Kind.DEVICE: f"device-{device.pk}",
        Kind.PERSON: f"person-{person.pk}",
        Kind.ROUTE: f"route-{route_of(gate, '10.7.0.0/16').pk}",
        Kind.EXIT_NODE: f"exit-node-{gate.pk}",
    }


def listed(page: Any) -> list[str]:
    return [f"{kind}-{number}" for kind, number in ROW.findall(page.content.decode())]


# --- names -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["", "route", "route-", "route-x", "route-1-2x", "x-5", "-5", "route-\u0665"]
)
def test_what_names_nothing_is_left_out(text: str) -> None:
    assert Ref.parse(text) is None


def test_names_are_read_back_each_once() -> None:
    refs = [Ref(kind, 7) for kind in Kind]
    assert parse_refs([str(ref) for ref in (*refs, *refs)] + ["nonsense", "device-" + "9" * 40]) == refs
    assert len(parse_refs(f"device-{number}" for number in range(MAX_PICKED * 2))) == MAX_PICKED


# --- what is in it ---------------------------------------------------------------------------------------


def test_everything_that_waits_is_in_one_queue_the_oldest_first(place: tuple[Tailnet, User]) -> None:
    refs = one_of_each(*place)
    page = Visitor(place[1]).get("/approvals")
    assert listed(page) == [refs[Kind.DEVICE], refs[Kind.PERSON], refs[Kind.EXIT_NODE], refs[Kind.ROUTE]] or (
        set(listed(page)) == set(refs.values()) and listed(page)[:2] == [refs[Kind.DEVICE], refs[Kind.PERSON]]
    )
    text = page.content.decode()
    assert '<span class="count" title="4 wait for your decision">4<' in text
    assert "10.7.0.0/16" in text
    for kind, ref in refs.items():
        assert listed(Visitor(place[1]).get(f"/approvals?kind={kind.value}")) == [ref]


def test_what_was_decided_or_cannot_be_is_not_in_it(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    done = router(tailnet, owner, "done", "10.1.0.0/16", *EXIT)
    with scope(tailnet=tailnet):
        set_exit_node(node=done, enabled=True, by=Actor.command())
        decline_routes(node=done, prefixes=["10.1.0.0/16"], by=Actor.command())
        withdrawn = router(tailnet, owner, "withdrawn", "10.2.0.0/16")
        set_route(node=withdrawn, prefix="10.2.0.0/16", approved=True, by=Actor.command())
        set_route(node=withdrawn, prefix="10.2.0.0/16", approved=False, by=Actor.command())
    pending = router(tailnet, owner, "pending", "10.3.0.0/16", *EXIT, preapproved=False)
    half = router(tailnet, owner, "half", "0.0.0.0/0")
    page = Visitor(owner).get("/approvals")
    assert sorted(listed(page)) == sorted([f"device-{pending.pk}", f"route-{route_of(half, '0.0.0.0/0').pk}"])
    assert "offers an exit node, offers 1 route" in page.content.decode()


def test_an_empty_queue_says_what_would_come_and_where_that_is_set(place: tuple[Tailnet, User]) -> None:
    page = Visitor(place[1]).get("/approvals").content.decode()
    assert "Nothing is waiting" in page
    assert "New devices appear here before anybody reaches them." in page
    assert 'href="/settings"' in page
    open_one, owner = factories.tailnet(device_approval=False, users_approval=True)
    page = Visitor(owner).get("/approvals").content.decode()
    assert "Device approval is off" in page
    assert "So do people who sign in" in page
    auditor = factories.member(open_one, Role.AUDITOR)
    assert 'href="/settings"' not in Visitor.of(auditor).get("/approvals").content.decode().split("<main")[1]
    assert "Nothing of this kind is waiting" not in page


def test_another_tailnets_queue_is_its_own(place: tuple[Tailnet, User]) -> None:
    one_of_each(*factories.tailnet())
    refs = one_of_each(*place)
    foreign = [
        f"{kind.value}-{int(ref.rpartition('-')[2])}"
        for kind, ref in one_of_each(*factories.tailnet()).items()
    ]
    visitor = Visitor(place[1])
    assert set(listed(visitor.get("/approvals"))) == set(refs.values())
    assert visitor.submit("/approvals/approve", page="/approvals", item=foreign).status_code == 409
    assert visitor.get(f"/approvals/reject?only={foreign[0]}").status_code == 409


# --- deciding --------------------------------------------------------------------------------------------


def state(tailnet: Tailnet, refs: dict[Kind, str]) -> dict[Kind, bool | None]:
    """Of each: approved, not, or (``None``) gone."""
    ids = {kind: int(ref.rpartition("-")[2]) for kind, ref in refs.items()}
    with scope(tailnet=tailnet):
        device = Node.objects.filter(pk=ids[Kind.DEVICE]).first()
        person = Membership.objects.filter(pk=ids[Kind.PERSON]).first()
        route = Route.objects.get(pk=ids[Kind.ROUTE])
        defaults = Route.objects.filter(node_id=ids[Kind.EXIT_NODE], prefix__in=EXIT)
        return {
            Kind.DEVICE: device.is_approved if device else None,
            Kind.PERSON: person.is_active if person else None,
            Kind.ROUTE: route.approved_at is not None,
            Kind.EXIT_NODE: all(one.approved_at is not None for one in defaults),
        }


def test_many_are_approved_at_once_and_stay_in_their_places(place: tuple[Tailnet, User]) -> None:
    refs = one_of_each(*place)
    answer = Visitor(place[1]).submit("/approvals/approve", page="/approvals", item=list(refs.values()))
    assert set(state(place[0], refs).values()) == {True}
    text = answer.content.decode()
    assert text.count('class="is-done" hx-swap-oob="true"') == len(refs)
    assert text.count("Approved") == len(refs)
    assert "4 are approved." in answer["HX-Trigger"]
    assert listed(Visitor(place[1]).get("/approvals")) == []


def test_one_button_is_about_its_own_row_whatever_is_picked(place: tuple[Tailnet, User]) -> None:
    refs = one_of_each(*place)
    answer = Visitor(place[1]).submit(
        "/approvals/approve", page="/approvals", only=refs[Kind.ROUTE], item=[refs[Kind.DEVICE]]
    )
    assert "10.7.0.0/16 is approved." in answer["HX-Trigger"]
    assert [kind for kind, done in state(place[0], refs).items() if done] == [Kind.ROUTE]


def test_all_of_a_kind_are_approved_also_those_on_other_pages(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    for number in range(PAGE_SIZE + 2):
        machines.node(tailnet, owner, hostname=f"n{number}")
    router(tailnet, owner, "gate", "10.7.0.0/16")
    visitor = Visitor(owner)
    page = visitor.get("/approvals?kind=device")
    assert len(listed(page)) == PAGE_SIZE
    assert f"All {PAGE_SIZE + 2}, also those on other pages" in page.content.decode()
    visitor.submit("/approvals/approve", page="/approvals", everything="1", kind="device")
    assert [ref.partition("-")[0] for ref in listed(visitor.get("/approvals"))] == ["route"]


def test_rejecting_says_first_what_it_means(place: tuple[Tailnet, User]) -> None:
    refs = one_of_each(*place)
    visitor, items = Visitor(place[1]), list(refs.values())
    asked = visitor.submit("/approvals/reject", page="/approvals", item=items).content.decode()
    assert "Reject 4 entries?" in asked
    for words in ("sign in on the device once more", "lose their place", "You can still approve them later"):
        assert words in asked
    assert state(place[0], refs)[Kind.DEVICE] is False, "nothing has happened yet"
    single = visitor.fragment(f"/approvals/reject?only={refs[Kind.DEVICE]}", target="sheet").content.decode()
    assert "Reject waiting-box?" in single
    assert "lose their place" not in single
    answer = visitor.submit("/approvals/reject", page="/approvals", item=items, sure="1")
    assert "4 are rejected." in answer["HX-Trigger"]
    assert state(place[0], refs) == {
        Kind.DEVICE: None,
        Kind.PERSON: None,
        Kind.ROUTE: False,
        Kind.EXIT_NODE: False,
    }
    assert listed(visitor.get("/approvals")) == []
    with scope(tailnet=place[0]):
        said = set(AuditEvent.objects.values_list("action", "target_type", "target_property"))
    assert {("REJECT", "NODE", ""), ("DELETE", "USER", ""), ("UPDATE", "NODE", "DECLINED_ROUTES")} <= said


def test_a_declined_offer_can_be_approved_later_and_asks_anew_when_offered_anew(
    place: tuple[Tailnet, User],
) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "gate", "10.7.0.0/16", *EXIT)
    with scope(tailnet=tailnet):
        assert decline_routes(node=node, prefixes=["::/0"], by=Actor.command()) == EXIT
        assert decline_routes(node=node, prefixes=["::/0"], by=Actor.command()) == []
        set_exit_node(node=node, enabled=True, by=Actor.command())
        assert not Route.objects.filter(node=node, declined_at__isnull=False).exists()
        set_exit_node(node=node, enabled=False, by=Actor.command())
        assert Route.objects.filter(node=node, declined_at__isnull=False).count() == len(EXIT)
    assert "exit-node" not in Visitor(owner).get("/approvals").content.decode().split("<tbody")[1]


def test_what_somebody_else_was_faster_with_is_left_alone(place: tuple[Tailnet, User]) -> None:
    tailnet, _owner = place
    refs = one_of_each(*place)
    visitor, other = Visitor(place[1]), Visitor.of(factories.member(tailnet, Role.ADMIN))
    other.submit("/approvals/approve", page="/approvals", item=list(refs.values()))
    late = visitor.submit("/approvals/reject", page="/approvals", item=list(refs.values()), sure="1")
    assert late.status_code == 409
    assert set(state(tailnet, refs).values()) == {True}


def test_a_route_to_the_tailnets_own_addresses_can_only_be_declined(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "thief", "100.64.0.0/10")
    ref = f"route-{route_of(node, '100.64.0.0/10').pk}"
    visitor = Visitor(owner)
    page = visitor.get("/approvals").content.decode()
    assert "it can only be declined" in page
    assert f'value="{ref}" id="approve-' not in page
    answer = visitor.submit("/approvals/approve", page="/approvals", only=ref)
    assert "1 could not be changed." in answer["HX-Trigger"]
    assert listed(visitor.get("/approvals")) == [ref]


def test_without_scripts_the_forms_do_the_same(place: tuple[Tailnet, User]) -> None:
    refs = one_of_each(*place)
    visitor = Visitor(place[1])
    assert visitor.submit("/approvals/approve", only=refs[Kind.DEVICE]).url == "/approvals"
    page = visitor.submit("/approvals/reject", item=[refs[Kind.ROUTE]])
    assert "<!doctype html>" in page.content.decode()
    assert visitor.submit("/approvals/reject", item=[refs[Kind.ROUTE]], sure="1").url == "/approvals"
    assert visitor.submit("/approvals/approve").status_code == 409


# --- who sees and may what -------------------------------------------------------------------------------

MAY = {
    Role.OWNER: set(Kind),
    Role.ADMIN: set(Kind),
    Role.IT_ADMIN: {Kind.DEVICE, Kind.PERSON},
    Role.NETWORK_ADMIN: {Kind.ROUTE, Kind.EXIT_NODE},
    Role.AUDITOR: set(),
}


@pytest.mark.parametrize("role", list(MAY))
def test_each_role_decides_about_its_own_part(place: tuple[Tailnet, User], role: Role) -> None:
    tailnet, owner = place
    refs = one_of_each(tailnet, owner)
    visitor = Visitor(owner) if role is Role.OWNER else Visitor.of(factories.member(tailnet, role))
    page = visitor.get("/approvals")
    text = page.content.decode()
    assert set(listed(page)) == set(refs.values()), "all who see all see all that waits"
    pickable = set(re.findall(r'name="item" value="([^"]+)"', text))
    assert pickable == {refs[kind] for kind in MAY[role]}
    badge = re.search(r'<span class="count" title="[^"]*">(\d+)<', text)
    assert (int(badge[1]) if badge else 0) == len(MAY[role])
    answer = visitor.submit("/approvals/approve", page="/approvals", item=list(refs.values()))
    assert answer.status_code == (200 if MAY[role] else 409)
    assert {kind for kind, done in state(tailnet, refs).items() if done} == MAY[role]


def test_nobody_lets_in_a_person_of_their_own_rank(place: tuple[Tailnet, User]) -> None:
    tailnet, _owner = place
    person = newcomer(tailnet, Role.NETWORK_ADMIN)
    visitor = Visitor.of(factories.member(tailnet, Role.IT_ADMIN))
    assert listed(visitor.get("/approvals")) == [f"person-{person.pk}"]
    assert (
        visitor.submit("/approvals/approve", page="/approvals", only=f"person-{person.pk}").status_code == 409
    )


def test_a_member_sees_how_their_own_things_stand_and_nothing_else(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    one_of_each(tailnet, owner)
    member = factories.member(tailnet)
    mine = machines.node(tailnet, member.user, hostname="mine")
    visitor = Visitor.of(member)
    page = visitor.get("/approvals")
    text = page.content.decode()
    assert listed(page) == [f"device-{mine.pk}"]
    assert "waiting-box" not in text
    assert 'name="item"' not in text
    assert 'id="top-waiting" href="/approvals" hidden' in text
    assert (
        visitor.submit("/approvals/approve", page="/approvals", only=f"device-{mine.pk}").status_code == 409
    )
    billing = Visitor.of(factories.member(tailnet, Role.BILLING_ADMIN))
    assert billing.get("/approvals").status_code == 404


# --- fragments and cost ----------------------------------------------------------------------------------


def test_htmx_gets_the_list_its_tabs_or_the_badges(place: tuple[Tailnet, User]) -> None:
    one_of_each(*place)
    visitor = Visitor(place[1])
    fragment = visitor.fragment("/approvals", target="queue", page="/approvals").content.decode()
    assert fragment.lstrip().startswith('<div class="card" id="queue" data-list="node membership"')
    tabs = visitor.fragment("/approvals", target="queue-tabs", page="/approvals").content.decode()
    assert tabs.lstrip().startswith('<nav class="tabs" id="queue-tabs"')
    badge = visitor.fragment("/approvals/badge").content.decode()
    assert badge.startswith('<span id="pending-badge"')
    assert 'id="top-waiting" href="/approvals" hx-swap-oob="true"' in badge


def test_the_queue_costs_the_same_queries_however_long_it_is(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)

    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert visitor.get("/approvals").status_code == 200
        return len(captured)

    one_of_each(tailnet, owner)
    few = cost()
    for number in range(60):
        machines.node(
            tailnet,
            owner if number % 2 else None,
            hostname=f"n{number}",
            tags=() if number % 2 else ["tag:a"],
        )
        newcomer(tailnet)
        router(tailnet, owner, f"r{number}", f"10.{number + 10}.0.0/16", *EXIT)
    assert cost() == few
    assert few <= 16
