"""Routes and exit nodes on one page: what is listed, in which state, and the switches."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import IPv4Network
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from accounts.actors import Actor
from accounts.models import Tailnet, User
from accounts.roles import Role
from accounts.tenancy import scope
from nodes.models import Node, Route
from nodes.prefixes import MAX_SHOWN, Overlapping, key
from nodes.services.presence import claim_presence
from nodes.services.routes import decline_routes, set_exit_node, set_route
from nodes.views.routes import PAGE_SIZE
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

EXIT = ["0.0.0.0/0", "::/0"]
PREFIX = re.compile(r'<span class="thing-name mono">([^<]+)<')
ROW = re.compile(r'<tr id="(?:route|exit-node)-\d+">.*?</tr>', re.S)


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def router(
    tailnet: Tailnet,
    owner: User,
    hostname: str,
    *routes: str,
    approve: bool = False,
    online: bool = False,
    **said: Any,
) -> Node:
    hostinfo = {"Hostname": hostname, "OS": "linux", "RoutableIPs": list(routes)} | said
    node = machines.node(tailnet, owner, hostname=hostname, preapproved=True, hostinfo=hostinfo)
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(disco_key=f"discokey:{node.pk}")
        if approve:
            for prefix in routes:
                set_route(node=node, prefix=prefix, approved=True, by=Actor.command())
    if online:
        claim_presence(tailnet=tailnet, node_id=node.pk, worker="w")
    return node


def prefixes(page: Any) -> list[str]:
    return PREFIX.findall(page.content.decode())


def row_of(page: Any, *words: str) -> str:
    """The one row that has all these words, its tags taken out."""
    rows = [one for one in ROW.findall(page.content.decode()) if all(word in one for word in words)]
    assert len(rows) == 1, (words, rows)
    return " ".join(re.sub(r"<[^>]+>", " ", rows[0]).split())


# --- prefixes --------------------------------------------------------------------------------------------

networks = st.builds(
    lambda first, length: str(IPv4Network((first, length), strict=False)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 32),
)


@given(st.sets(networks, max_size=12), networks)
def test_overlaps_are_those_that_the_standard_library_finds(others: set[str], prefix: str) -> None:
    found = Overlapping(others).of(prefix)
    wanted = IPv4Network(prefix)
    inside = {one for one in others if one != prefix and wanted.subnet_of(IPv4Network(one))}
    around = {one for one in others if one != prefix and IPv4Network(one).subnet_of(wanted)}
    assert set(found.inside) <= inside
    assert len(found.inside) == min(len(inside), MAX_SHOWN)
    assert set(found.around) <= around
    assert len(found.around) == min(len(around), MAX_SHOWN)


def test_prefixes_sort_as_people_count() -> None:
    mixed = ["10.10.0.0/16", "fd00::/8", "10.2.0.0/16", "10.0.0.0/8", "10.2.0.0/24"]
    assert sorted(mixed, key=key) == ["10.0.0.0/8", "10.2.0.0/16", "10.2.0.0/24", "10.10.0.0/16", "fd00::/8"]


# --- subnets ---------------------------------------------------------------------------------------------


def test_every_prefix_says_how_it_stands(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    router(tailnet, owner, "first", "10.1.0.0/16", approve=True, online=True)
    router(tailnet, owner, "second", "10.1.0.0/16", approve=True, online=True)
    router(tailnet, owner, "away", "10.1.0.0/16", approve=True)
    router(tailnet, owner, "asks", "10.2.0.0/16")
    no = router(tailnet, owner, "no", "10.3.0.0/16")
    silent = router(tailnet, owner, "silent", "10.4.0.0/16", approve=True)
    ended = router(tailnet, owner, "ended", "10.5.0.0/16", approve=True, online=True)
    with scope(tailnet=tailnet):
        decline_routes(node=no, prefixes=["10.3.0.0/16"], by=Actor.command())
        Node.objects.filter(pk=silent.pk).update(disco_key="")
        Node.objects.filter(pk=ended.pk).update(key_expiry=timezone.now() - timedelta(hours=1))
    page = Visitor(owner).get("/routes")
    for words, state in {
        ("10.1.0.0/16", ">first<"): "Serving",
        ("10.1.0.0/16", ">second<"): "Stands by",
        ("10.1.0.0/16", ">away<"): "Offline",
        ("10.2.0.0/16",): "Waiting",
        ("10.3.0.0/16",): "Declined",
        ("10.4.0.0/16",): "Not in use yet",
        ("10.5.0.0/16",): "Key expired",
    }.items():
        assert state in row_of(page, *words), words
    assert "also through second, away" in row_of(page, ">first<")


def test_overlaps_are_told_on_both_sides(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    router(tailnet, owner, "wide", "10.0.0.0/8")
    router(tailnet, owner, "narrow", "10.7.0.0/16")
    router(tailnet, owner, "thief", "100.64.1.0/24")
    page = Visitor(owner).get("/routes")
    assert "overlaps 10.7.0.0/16, which goes first" in row_of(page, "10.0.0.0/8</span>")
    assert "overlaps 10.0.0.0/8: goes first, being narrower" in row_of(page, "10.7.0.0/16</span>")
    refused = row_of(page, "100.64.1.0/24")
    assert "nobody can route it" in refused
    assert "Not approved" not in refused, "it has no switch"


def test_the_url_says_what_is_shown(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    router(tailnet, owner, "beta", "10.10.0.0/16", approve=True)
    alpha = router(tailnet, owner, "alpha", "10.2.0.0/16", "fd00:7::/64")
    router(tailnet, owner, "half", "0.0.0.0/0")
    router(tailnet, owner, "gate", *EXIT)
    machines.node(
        tailnet,
        owner,
        hostname="newcomer",
        hostinfo={"Hostname": "newcomer", "RoutableIPs": ["10.99.0.0/16"]},
    )
    with scope(tailnet=tailnet):
        decline_routes(node=alpha, prefixes=["fd00:7::/64"], by=Actor.command())
    visitor = Visitor(owner)
    wanted = {
        "": ["0.0.0.0/0", "10.2.0.0/16", "10.10.0.0/16", "fd00:7::/64"],
        "state=waiting": ["0.0.0.0/0", "10.2.0.0/16"],
        "state=approved": ["10.10.0.0/16"],
        "state=declined": ["fd00:7::/64"],
        "q=10.1": ["10.10.0.0/16"],
        "q=ALPH": ["10.2.0.0/16", "fd00:7::/64"],
        "sort=router": ["10.2.0.0/16", "fd00:7::/64", "10.10.0.0/16", "0.0.0.0/0"],
        "state=x&sort=x&show=x&page=x": ["0.0.0.0/0", "10.2.0.0/16", "10.10.0.0/16", "fd00:7::/64"],
        "q=nothing": [],
    }
    for query, expected in wanted.items():
        assert prefixes(visitor.get(f"/routes?{query}")) == expected, query
    assert "Nothing matches" in visitor.get("/routes?q=nothing").content.decode()
    assert prefixes(visitor.get("/routes?sort=-created"))[0] == "0.0.0.0/0"


def test_pages_of_a_long_list(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    router(tailnet, owner, "big", *(f"10.{number}.0.0/16" for number in range(PAGE_SIZE + 2)))
    visitor = Visitor(owner)
    assert len(prefixes(visitor.get("/routes"))) == PAGE_SIZE
    assert prefixes(visitor.get("/routes?page=2")) == [f"10.{PAGE_SIZE}.0.0/16", f"10.{PAGE_SIZE + 1}.0.0/16"]


def test_an_empty_list_says_how_a_network_is_offered(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    assert "trenza set --advertise-routes=192.168.1.0/24" in visitor.get("/routes").content.decode()
    exits = visitor.get("/routes?show=exit-nodes").content.decode()
    assert "trenza set --advertise-exit-node" in exits
    assert "tailscale set --advertise-exit-node" in exits


# --- exit nodes ------------------------------------------------------------------------------------------


def test_an_exit_node_says_who_uses_it(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    gate = router(tailnet, owner, "gate", *EXIT, approve=True, online=True)
    router(tailnet, owner, "idle", *EXIT)
    for number in range(7):
        machines.node(
            tailnet,
            owner,
            hostname=f"user{number}",
            preapproved=True,
            hostinfo={"Hostname": f"user{number}", "ExitNodeID": gate.stable_id},
        )
    other, stranger = factories.tailnet()
    machines.node(
        other, stranger, hostname="foreign", hostinfo={"Hostname": "foreign", "ExitNodeID": gate.stable_id}
    )
    page = Visitor(owner).get("/routes?show=exit-nodes")
    used = row_of(page, ">gate<")
    assert "7 devices: user0 , user1 , user2 , user3 , user4 and 2 more" in used
    assert "Approved" in used
    assert "nobody now" in row_of(page, ">idle<")
    assert "Waiting" in row_of(page, ">idle<")
    assert "foreign" not in page.content.decode()
    for query, names in {
        "state=approved": ["gate"],
        "state=waiting": ["idle"],
        "q=id": ["idle"],
        "state=declined": [],
    }.items():
        text = Visitor(owner).get(f"/routes?show=exit-nodes&{query}").content.decode()
        assert re.findall(r'class="thing-name" href="[^"]*">([^<]+)<', text) == names, query


# --- switches --------------------------------------------------------------------------------------------


def approved(node: Node) -> list[str]:
    with scope(tailnet=node.tailnet_id):
        return sorted(
            Route.objects.filter(node=node, approved_at__isnull=False).values_list("prefix", flat=True)
        )


def test_a_switch_approves_and_withdraws_and_a_button_declines(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "lan", "10.7.0.0/16", *EXIT)
    with scope(tailnet=tailnet):
        route = Route.objects.get(prefix="10.7.0.0/16")
    visitor = Visitor(owner)
    answer = visitor.submit(f"/routes/{route.pk}", page="/routes")
    assert "10.7.0.0/16 is declined." in answer["HX-Trigger"]
    assert "Declined" in answer.content.decode()
    answer = visitor.submit(f"/routes/{route.pk}", page="/routes", approved="1")
    assert answer.content.decode().startswith(f'<tr id="route-{route.pk}"')
    assert "Others reach 10.7.0.0/16." in answer["HX-Trigger"]
    assert approved(node) == ["10.7.0.0/16"]
    assert "is withdrawn" in visitor.submit(f"/routes/{route.pk}", page="/routes")["HX-Trigger"]
    path = f"/routes/exit-nodes/{node.stable_id}"
    assert "is declined as exit node" in visitor.submit(path, page="/routes")["HX-Trigger"]
    answer = visitor.submit(path, page="/routes", approved="1")
    assert answer.content.decode().startswith(f'<tr id="exit-node-{node.pk}"')
    assert approved(node) == EXIT
    assert "is no exit node any more" in visitor.submit(path, page="/routes")["HX-Trigger"]
    assert visitor.submit(path, approved="1").url == "/routes?show=exit-nodes"
    assert visitor.submit(f"/routes/{route.pk}", approved="1").url == "/routes"
    assert approved(node) == ["0.0.0.0/0", "10.7.0.0/16", "::/0"]


@pytest.mark.parametrize(
    ("role", "sees", "may"),
    [
        (Role.ADMIN, True, True),
        (Role.NETWORK_ADMIN, True, True),
        (Role.IT_ADMIN, True, False),
        (Role.AUDITOR, True, False),
        (Role.MEMBER, False, False),
        (Role.BILLING_ADMIN, False, False),
    ],
)
def test_roles_are_respected(place: tuple[Tailnet, User], role: Role, sees: bool, may: bool) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "lan", "10.7.0.0/16", *EXIT)
    with scope(tailnet=tailnet):
        route = Route.objects.get(prefix="10.7.0.0/16")
    visitor = Visitor.of(factories.member(tailnet, role))
    page = visitor.get("/routes")
    assert page.status_code == (200 if sees else 404)
    assert ('role="switch"' in page.content.decode()) is may
    refused = 403 if sees else 404
    for path in (f"/routes/{route.pk}", f"/routes/exit-nodes/{node.stable_id}"):
        assert visitor.submit(path, page="/routes", approved="1").status_code == (200 if may else refused)
    assert bool(approved(node)) is may


def test_another_tailnets_routes_do_not_exist(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    node = router(other, stranger, "theirs", "10.7.0.0/16", *EXIT)
    with scope(tailnet=other):
        route = Route.objects.get(prefix="10.7.0.0/16")
    visitor = Visitor(place[1])
    assert "theirs" not in visitor.get("/routes").content.decode()
    assert visitor.submit(f"/routes/{route.pk}", page="/routes", approved="1").status_code == 404
    assert (
        visitor.submit(f"/routes/exit-nodes/{node.stable_id}", page="/routes", approved="1").status_code
        == 404
    )
    assert approved(node) == []


def test_htmx_gets_the_list_or_its_tabs_alone(place: tuple[Tailnet, User]) -> None:
    router(*place, "lan", "10.7.0.0/16")
    visitor = Visitor(place[1])
    assert (
        visitor.fragment("/routes", target="route-list")
        .content.decode()
        .startswith('<div class="card" id="route-list"')
    )
    tabs = visitor.fragment("/routes", target="route-tabs").content.decode()
    assert tabs.startswith('<nav class="tabs" id="route-tabs"')
    assert "1 waits" in tabs


@pytest.mark.parametrize("path", ["/routes", "/routes?show=exit-nodes"])
def test_the_page_costs_the_same_queries_however_much_is_offered(
    place: tuple[Tailnet, User], path: str
) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)

    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert visitor.get(path).status_code == 200
        return len(captured)

    def offer(number: int) -> None:
        node = router(tailnet, owner, f"r{number}", f"10.{number}.0.0/16", "192.168.0.0/16", *EXIT)
        with scope(tailnet=tailnet):
            set_exit_node(node=node, enabled=True, by=Actor.command())

    offer(0)
    few = cost()
    for number in range(1, 60):
        offer(number)
    assert cost() == few
    assert few <= 14
