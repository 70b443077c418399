"""The overview, a person's own devices with what these reach, and what holds while there are no rules."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import Tailnet, User
from accounts.roles import Role
from accounts.services import people
from accounts.tenancy import scope
from controlplane.models import Relay
from controlplane.netmap.state import State
from controlplane.services.dns import set_magic_dns
from controlplane.snapshots import load_tailnet
from controlplane.views.my_devices import PAGE_SIZE
from nodes.models import Node
from nodes.reach import reachable
from nodes.services.presence import claim_presence
from nodes.services.routes import set_exit_node, set_route
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

EXIT = ["0.0.0.0/0", "::/0"]


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def device(tailnet: Tailnet, owner: User | None, hostname: str, *routes: str, **fields: Any) -> Node:
    """An approved device that has connected once."""
    said = {"Hostname": hostname, "OS": "linux", "RoutableIPs": list(routes)}
    tags = () if owner else ["tag:server"]
    node = machines.node(tailnet, owner, hostname=hostname, preapproved=True, hostinfo=said, tags=tags)
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(**({"disco_key": f"discokey:{node.pk:064x}"} | fields))
    return node


def tile(page: Any, name: str) -> str:
    found = re.search(rf'id="tile-{name}">(.*?)</div>', page.content.decode())
    assert found
    return re.sub(r"<[^>]+>", "", found[1])


def cost(visitor: Visitor, path: str) -> int:
    with CaptureQueriesContext(connection) as captured:
        assert visitor.get(path).status_code == 200
    return len(captured)


# --- the overview ----------------------------------------------------------------------------------------


def test_the_tiles_say_how_the_tailnet_stands(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    now = timezone.now()
    Relay.objects.create(
        region_id=900, region_name="Here", node_name="900a", host_name="a", connected_at=now, last_seen=now
    )
    Relay.objects.create(
        region_id=901,
        region_name="There",
        node_name="901a",
        host_name="b",
        last_seen=now - timedelta(hours=1),
    )
    online = device(tailnet, owner, "online", key_expiry=now + timedelta(days=3))
    claim_presence(tailnet=tailnet, node_id=online.pk, worker="w")
    device(tailnet, owner, "ended", key_expiry=now - timedelta(days=1))
    device(tailnet, owner, "lasting", key_expiry=now + timedelta(days=3), key_expiry_disabled=True)
    machines.node(tailnet, owner, hostname="waiting")
    device(tailnet, owner, "gate", "10.7.0.0/16", *EXIT)
    page = Visitor(owner).get("/")
    text = page.content.decode()
    assert tile(page, "online") == "1/5"
    assert tile(page, "waiting") == "3"
    assert tile(page, "ending") == "1"
    assert tile(page, "relays") == "1/2"
    assert "1 with an ended key" in text
    assert "There does not answer" in text
    assert "Review pending (3)" in text
    assert ">online</a>" in text.split('id="expiring"')[1], "its key ends next"
    assert "Joined the tailnet" in text.split('id="recent"')[1]
    assert "First steps" not in text
    auditor = Visitor.of(factories.member(tailnet, Role.AUDITOR)).get("/")
    assert tile(auditor, "waiting") == "3"
    assert "Review pending" not in auditor.content.decode(), "there is nothing that an auditor decides about"


def test_the_first_steps_lead_to_two_devices_that_talk(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)

    def done() -> int:
        return visitor.get("/").content.decode().count('<li class="is-done">')

    assert "Add a second one" in visitor.get("/").content.decode()
    assert done() == 0
    device(tailnet, owner, "first")
    assert done() == 1
    second = device(tailnet, owner, "second")
    assert done() == 2
    assert "trenza ping NAME" in visitor.get("/").content.decode()
    with scope(tailnet=tailnet):
        Node.objects.update(created=timezone.now() - timedelta(days=2))
    assert "First steps" not in visitor.get("/").content.decode()
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=second.pk).delete()
    assert done() == 1


def test_events_of_all_kinds_are_told(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = factories.member(tailnet)
    with scope(tailnet=tailnet):
        people.suspend_member(membership=member, by=Actor.person(owner))
    recent = Visitor(owner).get("/").content.decode().split('id="recent"')[1]
    assert f"{member.user.email}: Suspended" in recent
    assert f"{member.user.email}: Added" in recent


@pytest.mark.parametrize(
    ("role", "to"),
    [
        (Role.MEMBER, "/my-devices"),
        (Role.BILLING_ADMIN, "/my-devices"),
        (Role.NETWORK_ADMIN, None),
        (Role.AUDITOR, None),
    ],
)
def test_where_each_role_lands(place: tuple[Tailnet, User], role: Role, to: str | None) -> None:
    answer = Visitor.of(factories.member(place[0], role)).get("/")
    assert (answer.status_code, answer.get("Location")) == ((302, to) if to else (200, None))


def test_htmx_gets_the_overview_alone(place: tuple[Tailnet, User]) -> None:
    fragment = Visitor(place[1]).fragment("/", target="overview", page="/").content.decode()
    assert fragment.startswith('<div id="overview" data-live="')


def test_nothing_of_another_tailnet_is_counted(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    device(other, stranger, "theirs", "10.7.0.0/16", key_expiry=timezone.now() + timedelta(days=1))
    Relay.objects.create(
        region_id=950,
        tailnet=other,
        region_name="Theirs",
        node_name="950a",
        host_name="x",
        derp_key="k",
        last_seen=timezone.now() - timedelta(hours=1),
    )
    page = Visitor(place[1]).get("/")
    assert [tile(page, name) for name in ("online", "waiting", "ending", "relays")] == [
        "0/0",
        "0",
        "0",
        "0/0",
    ]
    assert "heirs" not in page.content.decode()


def test_pages_cost_the_same_queries_however_many_devices_there_are(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    paths = ("/", "/my-devices", "/my-devices?q=n", "/access")

    def add(number: int) -> None:
        node = device(
            tailnet,
            owner if number % 2 else None,
            f"n{number}",
            f"10.{number}.0.0/16",
            *EXIT,
            key_expiry=timezone.now() + timedelta(days=2),
        )
        with scope(tailnet=tailnet):
            if number % 3:
                set_route(node=node, prefix=f"10.{number}.0.0/16", approved=True, by=Actor.command())
                set_exit_node(node=node, enabled=True, by=Actor.command())
        machines.node(tailnet, owner, hostname=f"w{number}")

    for number in range(4):
        add(number)
    few = [cost(visitor, path) for path in paths]
    for number in range(4, 60):
        add(number)
    assert [cost(visitor, path) for path in paths] == few
    assert max(few) <= 25  # /my-devices reads the whole tailnet here, for its rules


# --- one's own devices -----------------------------------------------------------------------------------


def test_a_member_sees_their_devices_and_what_these_reach(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = factories.member(tailnet)
    mine = device(tailnet, member.user, "mine")
    box = device(tailnet, owner, "box")
    gate = device(tailnet, None, "gate", "10.7.0.0/16", *EXIT)
    machines.node(tailnet, owner, hostname="not-approved")
    device(tailnet, owner, "ended", key_expiry=timezone.now() - timedelta(days=1))
    with scope(tailnet=tailnet):
        set_route(node=gate, prefix="10.7.0.0/16", approved=True, by=Actor.command())
        set_exit_node(node=gate, enabled=True, by=Actor.command())
    visitor = Visitor.of(member)
    text = visitor.get("/my-devices").content.decode()
    own, reach = text.split('id="reach-list"')
    assert f'id="node-{mine.pk}"' in own
    assert "box" not in own.split("<main")[1]
    for action in ("rename", "expire", "delete"):
        assert f'/devices/{mine.stable_id}/{action}"' in own
    assert re.findall(r'<span class="thing-name">([^<]+)<', reach) == ["box", "gate", "mine"]
    for words in (
        f"box.{tailnet.name}.tailnet.internal",
        box.ipv4,
        box.ipv6,
        "10.7.0.0/16",
        "Exit nodes to choose on your device: gate",
        "The rules of this tailnet keep your devices from no device.",
        owner.email,
    ):
        assert words in reach, words
    assert "/access" not in reach, "that page is for those who see all"
    assert box.stable_id not in text, "other people's device pages are not theirs"
    assert "yours" in reach
    found = visitor.fragment("/my-devices?q=GAT", target="reach-list", page="/my-devices").content.decode()
    assert re.findall(r'<span class="thing-name">([^<]+)<', found) == ["gate"]
    assert found.startswith('<div class="card" id="reach-list"')


def test_what_is_said_to_be_reached_is_what_netmaps_have(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    viewer = device(tailnet, owner, "viewer")
    device(tailnet, owner, "good")
    device(tailnet, None, "tagged")
    device(tailnet, owner, "silent", disco_key="")
    device(tailnet, owner, "ended", key_expiry=timezone.now() - timedelta(days=1))
    device(tailnet, owner, "lasting", key_expiry=timezone.now() - timedelta(days=1), key_expiry_disabled=True)
    machines.node(tailnet, owner, hostname="waiting")
    suspended = factories.member(tailnet)
    device(tailnet, suspended.user, "suspended")
    with scope(tailnet=tailnet):
        people.suspend_member(membership=suspended, by=Actor.command())
        said = {node.pk for node in reachable(timezone.now())}
    snapshot = load_tailnet(tailnet.pk)
    assert snapshot is not None
    nodes, state = snapshot.nodes, State.of(snapshot)
    shown = {
        one.id
        for one in nodes.values()
        if state.sees(nodes[viewer.pk], one) and one.name.partition(".")[0] != "ended"
    }
    assert said - {viewer.pk} == shown, "an ended key stays in netmaps, marked; nobody gets through to it"


def test_without_a_device_one_is_added_first(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    device(tailnet, owner, "box")
    text = Visitor.of(factories.member(tailnet)).get("/my-devices").content.decode()
    assert "Add your first device" in text
    assert "once a device of yours is connected and approved" in text
    billing = Visitor.of(factories.member(tailnet, Role.BILLING_ADMIN)).get("/my-devices").content.decode()
    assert "Your role has no devices" in billing
    assert "box" not in billing.split("<main")[1]


def test_names_are_shown_only_where_they_work(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    device(tailnet, owner, "box")
    with scope(tailnet=tailnet):
        set_magic_dns(tailnet=tailnet, by=Actor.command(), on=False)
    text = Visitor(owner).get("/my-devices").content.decode()
    assert "box.tailnet" not in text
    assert f"box.{tailnet.name}.tailnet.internal" not in text
    assert "MagicDNS is off" in text


def test_after_a_change_the_list_is_fetched_again(place: tuple[Tailnet, User]) -> None:
    tailnet, _owner = place
    member = factories.member(tailnet)
    node = device(tailnet, member.user, "mine")
    visitor = Visitor.of(member)
    answer = visitor.submit(f"/devices/{node.stable_id}/rename", page="/my-devices", name="renamed")
    assert answer["HX-Reswap"] == "none"
    assert "showChanges" in answer["HX-Trigger"]
    assert "It is now called renamed." in answer["HX-Trigger"]
    assert visitor.submit(f"/devices/{node.stable_id}/delete", page="/my-devices").content == b""
    mine = visitor.fragment("/my-devices", target="mine-list", page="/my-devices").content.decode()
    assert mine.startswith('<div class="card" id="mine-list"')
    assert "renamed" not in mine


def test_many_devices_to_reach_come_in_pages(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    for number in range(PAGE_SIZE + 1):
        device(tailnet, None, f"n{number:03}")
    visitor = Visitor(owner)
    assert visitor.get("/my-devices").content.decode().count('<tr id="peer-') == PAGE_SIZE
    assert "n050" in visitor.get("/my-devices?page=2").content.decode()


# --- access controls -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "status"),
    [(Role.ADMIN, 200), (Role.AUDITOR, 200), (Role.MEMBER, 404), (Role.BILLING_ADMIN, 404)],
)
def test_who_sees_the_rules(place: tuple[Tailnet, User], role: Role, status: int) -> None:
    assert Visitor.of(factories.member(place[0], role)).get("/access").status_code == status
