"""The list of devices, a device's page, and what each role may do there."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member
from accounts.tenancy import scope
from nodes.connections import REASONS
from nodes.listing import PAGE_SIZE
from nodes.models import Node, ReportedPath
from nodes.services import lifecycle
from nodes.services.paths import record_paths
from nodes.services.presence import claim_presence
from nodes.state import NodeState
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files
from wire.paths import PeerPath, Reason

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

ROW = re.compile(r'<tr id="node-(\d+)"')


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def names(page: Any) -> list[str]:
    """The devices of a list, from top to bottom."""
    return re.findall(r'class="thing-name"[^>]*>([^<]+)<', page.content.decode())


def reload(node: Node) -> Node:
    with scope(tailnet=node.tailnet_id):
        return Node.objects.get(pk=node.pk)


def gone(node: Node) -> bool:
    with scope(tailnet=node.tailnet_id):
        return not Node.objects.filter(pk=node.pk).exists()


def events(tailnet: Tailnet, action: str) -> list[tuple[str, str]]:
    """Who did it to what, by the audit log."""
    with scope(tailnet=tailnet):
        found = AuditEvent.objects.filter(action=action, origin="ADMIN_CONSOLE").order_by("pk")
        return [(event.actor_name, event.target_id) for event in found]


# --- the list --------------------------------------------------------------------------------------------


def test_an_empty_tailnet_offers_to_add_a_device(place: tuple[Tailnet, User]) -> None:
    page = Visitor(place[1]).get("/devices").content.decode()
    assert "Add your first device" in page
    assert "<table" not in page


def test_devices_that_wait_come_first_and_then_by_name(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    for name, approved in (("zebra", False), ("beta", True), ("alpha", True)):
        machines.node(tailnet, owner, hostname=name, preapproved=approved)
    page = Visitor(owner).get("/devices")
    assert names(page) == ["zebra", "alpha", "beta"]
    assert page.content.decode().count('<span class="count"') == 2, "in the side bar and in the top bar"


def test_the_url_says_what_is_shown(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    colleague = factories.member(tailnet)
    box = machines.node(tailnet, owner, hostname="box", preapproved=True)
    machines.node(tailnet, owner, hostname="waiting")
    machines.node(
        tailnet, colleague.user, hostname="mac", preapproved=True, hostinfo={"Hostname": "mac", "OS": "macOS"}
    )
    machines.node(tailnet, None, hostname="srv", preapproved=True, tags=["tag:web"])
    visitor = Visitor(owner)
    wanted = {
        "state=pending": ["waiting"],
        "state=offline": ["box", "mac", "srv"],
        "os=macOS": ["mac"],
        "q=BO": ["box"],
        f"q={box.ipv4}": ["box"],
        f"q={box.stable_id}": ["box"],
        "q=tag:we": ["srv"],
        f"owner={colleague.user_id}": ["mac"],
        "owner=tagged": ["srv"],
        "sort=-name": ["waiting", "srv", "mac", "box"],
        "q=nothing-fits": [],
        "state=nonsense&sort=nonsense&owner=x&os=x&page=x": ["waiting", "box", "mac", "srv"],
        f"q={'x' * 5000}": [],
    }
    for query, expected in wanted.items():
        assert names(visitor.get(f"/devices?{query}")) == expected, query
    assert "No matching devices" in visitor.get("/devices?q=nothing-fits").content.decode()


@pytest.mark.parametrize("sort", ["name", "-name", "seen", "-seen", "created", "-created", "owner", "-owner"])
def test_every_order_is_whole_and_reverses(place: tuple[Tailnet, User], sort: str) -> None:
    tailnet, owner = place
    for name in ("a", "b", "c"):
        machines.node(tailnet, owner, hostname=name, preapproved=True)
    assert sorted(names(Visitor(owner).get(f"/devices?sort={sort}"))) == ["a", "b", "c"]


def test_online_devices_are_seen_now(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, hostname="box", preapproved=True)
    machines.node(tailnet, owner, hostname="away", preapproved=True)
    claim_presence(tailnet=tailnet, node_id=node.pk, worker="w")
    visitor = Visitor(owner)
    assert names(visitor.get("/devices?state=online")) == ["box"]
    assert names(visitor.get("/devices?sort=seen")) == ["box", "away"]
    row = visitor.fragment(f"/devices/{node.stable_id}/row").content.decode()
    assert "Online" in row
    assert "circle-check-filled" in row  # an icon and a word, never colour alone


def test_a_stream_whose_worker_died_counts_until_its_lease_ended(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, hostname="box", preapproved=True)
    claim_presence(tailnet=tailnet, node_id=node.pk, worker="w", now=timezone.now() - timedelta(hours=2))
    row = Visitor(owner).fragment(f"/devices/{node.stable_id}/row").content.decode()
    assert "Offline" in row
    assert "1\xa0hour, 59\xa0minutes ago" in row or "an hour ago" in row


def test_pages_of_a_long_list(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    for number in range(PAGE_SIZE + 3):
        machines.node(tailnet, owner, hostname=f"n{number:03}", preapproved=True)
    visitor = Visitor(owner)
    first, second = visitor.get("/devices?q=n"), visitor.get("/devices?q=n&page=2")
    assert len(names(first)) == PAGE_SIZE
    assert names(second) == ["n050", "n051", "n052"]
    assert 'href="/devices?q=n&amp;page=2"' in first.content.decode()
    assert f"1 to {PAGE_SIZE} of {PAGE_SIZE + 3}" in first.content.decode()
    assert names(visitor.get("/devices?page=999")) == names(visitor.get("/devices?page=2"))


def test_htmx_gets_the_list_or_its_tabs_alone(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    machines.node(tailnet, owner)
    visitor = Visitor(owner)
    fragment = visitor.fragment("/devices", target="device-list").content.decode()
    assert fragment.lstrip().startswith('<div class="card" id="device-list"')
    tabs = visitor.fragment("/devices?state=pending", target="device-tabs").content.decode()
    assert tabs.lstrip().startswith('<nav class="tabs" id="device-tabs"')
    assert "<table" not in tabs
    boosted = visitor.fragment("/devices", target="elsewhere").content.decode()
    assert boosted.lstrip().startswith("<!doctype html>")


@pytest.mark.parametrize("path", ["/devices", "/devices?sort=seen&q=n", "/devices?state=offline"])
def test_a_list_costs_the_same_queries_however_long_it_is(place: tuple[Tailnet, User], path: str) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)

    def cost() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            assert visitor.get(path).status_code == 200
        return len(captured)

    for number in range(10):
        machines.node(
            tailnet,
            owner if number % 2 else None,
            hostname=f"n{number}",
            preapproved=True,
            tags=() if number % 2 else ["tag:a"],
        )
    few = cost()
    people = [factories.member(tailnet).user for _ in range(5)]
    for number in range(190):
        machines.node(tailnet, people[number % 5], hostname=f"m{number}", preapproved=True)
    assert cost() == few
    assert few <= 12


# --- one device ------------------------------------------------------------------------------------------


def test_a_devices_page_says_what_is_known(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    hostinfo = {
        "Hostname": "box",
        "OS": "linux",
        "IPNVersion": "1.90.2-tabc",
        "RoutableIPs": ["10.1.0.0/16", "0.0.0.0/0", "::/0"],
        "NetInfo": {"WorkingUDP": True, "MappingVariesByDestIP": True, "DERPLatency": {"900-v4": 0.0123}},
    }
    node = machines.node(tailnet, owner, hostinfo=hostinfo)
    page = Visitor(owner).get(f"/devices/{node.stable_id}").content.decode()
    full_name = f"box.{tailnet.name}.tailnet.internal"
    for text in (
        full_name,
        node.ipv4,
        node.ipv6,
        "1.90.2",
        "10.1.0.0/16",
        "exit node",
        "Not approved",
        "hard: the outer port varies",
        "Region 900: 12.3 ms",
        "waits for approval",
        "Joined the tailnet",
    ):
        assert text in page, text
    assert node.node_key not in page
    assert Visitor(owner).get(f"/devices/{node.pk}").status_code == 200


@pytest.mark.parametrize(
    "hostinfo",
    [
        {},
        {"Hostname": None, "OS": 5, "NetInfo": [1], "IPNVersion": {}},
        {"Hostname": "<script>alert(1)</script>", "OS": "<b>", "Distro": "'\"><img src=x>"},
        {"Hostname": "é" * 300, "OS": "x" * 5000, "NetInfo": {"DERPLatency": {"a" * 400: 1e308, "b": "c"}}},
    ],
)
def test_what_a_device_says_of_itself_cannot_break_a_page(
    place: tuple[Tailnet, User], hostinfo: dict[str, Any]
) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, hostinfo=hostinfo)
    visitor = Visitor(owner)
    for path in ("/devices", f"/devices/{node.stable_id}", f"/devices/{node.stable_id}/row", "/devices/add"):
        page = visitor.get(path).content.decode()
        assert "<script>alert" not in page
        assert "<img src=x" not in page


def test_a_deleted_device_leaves_the_list_and_its_own_page(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner)
    visitor = Visitor(owner)
    lifecycle.delete_node(node=node, by=Actor.command())
    assert visitor.fragment(f"/devices/{node.stable_id}/row").content == b""
    page = visitor.fragment(f"/devices/{node.stable_id}", page=f"/devices/{node.stable_id}")
    assert page["HX-Redirect"] == "/devices"
    assert visitor.get(f"/devices/{node.stable_id}").status_code == 404


@pytest.mark.parametrize("reference", ["0", "9" * 40, "9" * 5000, "nothing", "²", "a%00b", "..", "-1"])
def test_a_device_that_is_not_there(place: tuple[Tailnet, User], reference: str) -> None:
    assert Visitor(place[1]).get(f"/devices/{reference}").status_code == 404


# --- doing something -------------------------------------------------------------------------------------


def test_approving_by_button_and_without_scripts(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    first, second, third = (machines.node(tailnet, owner, hostname=name) for name in ("a", "b", "c"))
    visitor = Visitor(owner)
    answer = visitor.submit(f"/devices/{first.stable_id}/approve", page="/devices")
    assert ROW.findall(answer.content.decode()) == [str(first.pk)]
    assert "a is approved." in answer["HX-Trigger"]
    plain = visitor.submit(f"/devices/{second.stable_id}/approve")
    assert plain["Location"] == f"/devices/{second.stable_id}"
    own_page = visitor.submit(f"/devices/{third.stable_id}/approve", page=f"/devices/{third.stable_id}")
    assert own_page["HX-Retarget"] == "#device"
    assert all(reload(node).life == NodeState.ACTIVE for node in (first, second, third))
    assert events(tailnet, "APPROVE") == [
        (owner.login_name, node.stable_id) for node in (first, second, third)
    ]


def test_approving_twice_is_no_error_and_is_told_once(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner)
    visitor = Visitor(owner)
    codes = [visitor.submit(f"/devices/{node.stable_id}/approve", page="/devices").status_code for _ in "12"]
    assert codes == [200, 200]
    assert len(events(tailnet, "APPROVE")) == 1


@pytest.mark.parametrize("action", ["reject", "expire", "delete"])
def test_what_cannot_be_undone_is_asked_first(place: tuple[Tailnet, User], action: str) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, hostname="box", preapproved=action != "reject")
    visitor = Visitor(owner)
    path = f"/devices/{node.stable_id}/{action}"
    dialog = visitor.fragment(path).content.decode()
    assert "box" in dialog
    assert "btn-danger" in dialog
    assert visitor.get(path).content.decode().startswith("<!doctype html>")  # and a page without scripts
    assert not gone(node)
    assert visitor.submit(path, page="/devices").status_code == 200
    if action == "expire":
        assert reload(node).life == NodeState.EXPIRED
    else:
        assert gone(node)


def test_deleting_from_its_own_page_leads_to_the_list(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner)
    answer = Visitor(owner).submit(f"/devices/{node.stable_id}/delete", page=f"/devices/{node.stable_id}")
    assert answer["HX-Redirect"] == "/devices"
    assert events(tailnet, "DELETE") == [(owner.login_name, node.stable_id)]


def test_renaming_says_what_is_wrong(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, hostname="box")
    machines.node(tailnet, owner, hostname="taken")
    visitor = Visitor(owner)
    path = f"/devices/{node.stable_id}/rename"
    for name, words in (
        ("-a", "a-z, 0-9 and hyphens"),
        ("taken", "Another device has this name"),
        ("a.b", "a-z"),
    ):
        refused = visitor.submit(path, page="/devices", name=name)
        assert (refused.status_code, refused["HX-Retarget"]) == (422, "#sheet")
        assert words in refused.content.decode()
        assert 'aria-invalid="true"' in refused.content.decode()
    assert visitor.submit(path, page="/devices", name="New-Name").status_code == 200
    assert reload(node).name == "new-name"
    visitor.submit(path, page="/devices", name="")
    assert reload(node).name == "box"


def test_a_key_can_be_kept_from_expiring(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, preapproved=True)
    visitor = Visitor(owner)
    path = f"/devices/{node.stable_id}/key-expiry"
    visitor.submit(path, page="/devices", disabled="1")
    assert reload(node).expires is None
    visitor.submit(path, page="/devices", disabled="0")
    assert reload(node).expires is not None


def test_an_expired_key_is_told_before_the_sweep_marks_it(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, hostname="old", preapproved=True)
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(key_expiry=datetime(2020, 1, 1, tzinfo=UTC))
    visitor = Visitor(owner)
    assert names(visitor.get("/devices?state=expired")) == ["old"]
    assert "Sign in again on the device" in visitor.get(f"/devices/{node.stable_id}").content.decode()


def test_an_impossible_change_is_a_conflict(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, preapproved=True)
    refused = Visitor(owner).submit(f"/devices/{node.stable_id}/reject", page="/devices")
    assert refused.status_code == 409
    assert '"error": true' in refused["HX-Trigger"]
    assert not gone(node)


# --- roles and tenancy -----------------------------------------------------------------------------------

ACTIONS = ("approve", "reject", "rename", "expire", "delete", "key-expiry")
# What each role gets for a pending device of somebody else, and for its own active one.
MAY_OTHERS = {
    Role.OWNER: set(ACTIONS),
    Role.ADMIN: set(ACTIONS),
    Role.IT_ADMIN: set(ACTIONS),
    Role.NETWORK_ADMIN: set(),
    Role.AUDITOR: set(),
    Role.MEMBER: None,  # does not even see it
    Role.BILLING_ADMIN: None,
}


@pytest.mark.parametrize("role", list(MAY_OTHERS))
@pytest.mark.parametrize("action", ACTIONS)
def test_a_role_acts_on_others_devices(place: tuple[Tailnet, User], role: Role, action: str) -> None:
    tailnet, owner = place
    member = factories.member(tailnet, role) if role != Role.OWNER else None
    visitor = Visitor.of(member) if member else Visitor(owner)
    node = machines.node(tailnet, owner, preapproved=action in ("expire", "key-expiry"))
    may = MAY_OTHERS[role]
    answer = visitor.submit(
        f"/devices/{node.stable_id}/{action}", page="/devices", name="fresh", disabled="1"
    )
    if may is None:
        assert answer.status_code == 404
        assert visitor.get(f"/devices/{node.stable_id}").status_code == 404
        assert names(visitor.get("/devices")) == []
    else:
        assert answer.status_code == (200 if action in may else 403)
        assert visitor.get("/devices").status_code == 200


def test_a_member_has_their_own_devices(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = factories.member(tailnet)
    machines.node(tailnet, owner, hostname="theirs")
    mine = machines.node(tailnet, member.user, hostname="mine", preapproved=True)
    waiting = machines.node(tailnet, member.user, hostname="waiting")
    visitor = Visitor.of(member)
    page = visitor.get("/devices")
    assert names(page) == ["waiting", "mine"]
    assert "/approve" not in page.content.decode()
    assert "/relays" not in page.content.decode()
    assert visitor.submit(f"/devices/{waiting.stable_id}/approve", page="/devices").status_code == 403
    assert visitor.submit(f"/devices/{mine.stable_id}/rename", page="/devices", name="new").status_code == 200
    assert "History</h2>" not in visitor.get(f"/devices/{mine.stable_id}").content.decode()
    assert visitor.submit(f"/devices/{mine.stable_id}/delete", page="/devices").status_code == 200


@pytest.mark.parametrize("action", [*ACTIONS, "row", ""])
def test_another_tailnets_device_does_not_exist(place: tuple[Tailnet, User], action: str) -> None:
    tailnet, owner = place
    _other, stranger = factories.tailnet()
    node = machines.node(tailnet, owner, hostname="secret")
    visitor = Visitor(stranger)
    for reference in (node.stable_id, node.pk):
        path = f"/devices/{reference}" + (f"/{action}" if action else "")
        if action in ("row", ""):
            answer = visitor.get(path)
            assert b"secret" not in answer.content
            assert answer.status_code == (404 if action == "" else 200)
        else:
            assert visitor.submit(path, page="/devices", name="mine").status_code == 404
    assert reload(node).name == "secret"
    assert names(visitor.get("/devices?q=secret")) == []


def test_a_person_of_two_tailnets_acts_in_the_open_one_only(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, _ = factories.tailnet()
    add_member(tailnet=other, user=owner, role=Role.ADMIN, by=Actor.command())
    node = machines.node(other, owner, hostname="elsewhere")
    visitor = Visitor(owner, tailnet)
    assert visitor.submit(f"/devices/{node.stable_id}/approve", page="/devices").status_code == 404
    assert visitor.get(f"/devices/{node.stable_id}").status_code == 404
    assert visitor.get("/approvals/badge").content.decode().count("count") == 0


# --- adding a device --------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["linux", "macos", "windows", "ios", "android", "server", "nonsense"])
def test_instructions_name_this_server(place: tuple[Tailnet, User], settings: Any, system: str) -> None:
    page = Visitor(place[1]).get(f"/devices/add?os={system}").content.decode()
    assert settings.BASE_URL in page
    assert "Waiting for your device" in page
    assert "style=" not in page


def test_a_new_device_appears_in_the_instructions(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    machines.node(tailnet, owner, hostname="before", now=timezone.now() - timedelta(minutes=5))
    since = visitor.get("/devices/add").context["since"]
    machines.node(tailnet, owner, hostname="after")
    page = visitor.get("/devices/add/arrivals", {"since": since})
    assert names(page) == ["after"]
    assert "/approve" in page.content.decode()
    for odd in ("", "yesterday", "2026-13-45T99:99:99", "0001-01-01T00:00:00+00:00", "2026-01-01"):
        assert visitor.get("/devices/add/arrivals", {"since": odd}).status_code == 200


# --- connections -----------------------------------------------------------------------------------------


def report_paths(node: Node, *paths: PeerPath) -> None:
    """The device is connected, and says this."""
    claim_presence(tailnet=node.tailnet_id, node_id=node.pk, worker="w1")
    assert record_paths(tailnet=node.tailnet_id, node_id=node.pk, paths=paths)


def test_a_device_page_shows_by_which_paths_it_talks(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web, far = (
        machines.node(tailnet, owner, hostname=h, preapproved=True) for h in ("box", "web", "far")
    )
    path = f"/devices/{box.stable_id}"
    assert 'id="connections"' not in Visitor(owner).get(path).content.decode()
    report_paths(
        box,
        PeerPath(node_id=web.pk, endpoint="203.0.113.7:41641"),
        PeerPath(node_id=far.pk, derp_region=900, reason=Reason.HARD_NAT_BOTH),
        PeerPath(node_id=2**70, endpoint="198.51.100.1:1"),
        PeerPath(node_id=-1),
    )
    page = Visitor(owner).get(path).content.decode()
    assert "203.0.113.7:41641" in page
    assert "relay: Region 900" in page
    assert "The NATs of both networks are hard" in page
    assert "198.51.100.1" not in page
    assert "is not shown here" not in page


def test_who_sees_only_their_own_devices_sees_no_others_in_connections(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    colleague = factories.member(tailnet)
    mine = machines.node(tailnet, colleague.user, hostname="mine", preapproved=True)
    others = machines.node(tailnet, owner, hostname="secretname", preapproved=True)
    report_paths(mine, PeerPath(node_id=others.pk, endpoint="203.0.113.7:41641"))
    page = Visitor(colleague.user).get(f"/devices/{mine.stable_id}").content.decode()
    assert 'id="connections"' in page
    assert "secretname" not in page
    assert "203.0.113.7" not in page
    assert "and 1 device that is not shown here" in page


def test_what_a_device_said_before_it_went_is_not_shown(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web = (machines.node(tailnet, owner, hostname=h, preapproved=True) for h in ("box", "web"))
    assert record_paths(
        tailnet=tailnet, node_id=box.pk, paths=[PeerPath(node_id=web.pk, endpoint="203.0.113.7:1")]
    )
    assert "203.0.113.7" not in Visitor(owner).get(f"/devices/{box.stable_id}").content.decode()


def test_reports_that_come_too_often_are_not_kept(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box = machines.node(tailnet, owner, hostname="box", preapproved=True)
    now = timezone.now()
    assert record_paths(tailnet=tailnet, node_id=box.pk, paths=[], now=now)
    assert not record_paths(tailnet=tailnet, node_id=box.pk, paths=[], now=now + timedelta(seconds=1))
    assert record_paths(tailnet=tailnet, node_id=box.pk, paths=[], now=now + timedelta(seconds=30))
    assert record_paths(tailnet=tailnet, node_id=box.pk + 1000, paths=[], now=now)  # gone meanwhile


def test_a_report_takes_the_place_of_the_one_before(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web, far, gone = (
        machines.node(tailnet, owner, hostname=h, preapproved=True) for h in ("box", "web", "far", "gone")
    )
    now = timezone.now()
    stays = PeerPath(node_id=web.pk, endpoint="203.0.113.7:1", latency_ms=12)
    before = [stays, *(PeerPath(node_id=peer.pk, derp_region=2**40) for peer in (far, gone))]
    after = [stays, PeerPath(node_id=far.pk, endpoint="203.0.113.9:1"), PeerPath(node_id=box.pk)]
    for number, paths in enumerate((before, after)):
        assert record_paths(tailnet=tailnet, node_id=box.pk, paths=paths, now=now + timedelta(minutes=number))
    with scope(tailnet=tailnet):
        kept = ReportedPath.objects.order_by("peer_id").values_list("peer_id", "endpoint", "latency_ms")
        assert list(kept) == [(web.pk, "203.0.113.7:1", 12), (far.pk, "203.0.113.9:1", 0)]


def test_every_reason_has_words_in_the_panel() -> None:
    assert set(REASONS) == set(Reason)
