"""The map: what is drawn and what is left out, its table and card, and who sees what of it."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actors import Actor
from accounts.models import Tailnet, User
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane.services.relays import RelayIdentity, ensure_embedded_relay, record_report
from nodes import picture
from nodes.links import End, Kind, merge
from nodes.models import Node, PathReport
from nodes.services.paths import record_paths
from nodes.services.presence import claim_presence, release_presence
from nodes.services.routes import set_exit_node, set_route
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files
from wire.paths import PeerPath, Reason

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

FAR = 0.020


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def device(tailnet: Tailnet, owner: User | None, hostname: str, *, online: bool = True, **said: Any) -> Node:
    """An approved device, connected unless said otherwise; ``said``: more of its Hostinfo."""
    net = {"PreferredDERP": 900, "DERPLatency": {"900-v4": FAR}}
    info = {"Hostname": hostname, "OS": "linux", "NetInfo": net} | said
    tags = {} if owner is not None else {"tags": ["tag:server"]}
    node = machines.node(tailnet, owner, hostname=hostname, preapproved=True, hostinfo=info, **tags)
    if online:
        claim_presence(tailnet=tailnet.pk, node_id=node.pk, worker="w1")
    return node


def tells(node: Node, *paths: PeerPath) -> None:
    assert record_paths(tailnet=node.tailnet_id, node_id=node.pk, paths=paths)


def direct(peer: Node, ms: int = 0, endpoint: str = "203.0.113.7:41641") -> PeerPath:
    return PeerPath(node_id=peer.pk, endpoint=endpoint, latency_ms=ms)


def relayed(peer: Node, reason: Reason = Reason.SILENT, region: int = 900) -> PeerPath:
    return PeerPath(node_id=peer.pk, derp_region=region, reason=reason)


def drawn(visitor: Visitor, query: str = "") -> dict[str, Any]:
    answer = visitor.get(f"/map/data{query}")
    assert answer.status_code == 200
    return dict(answer.json())


def names(content: dict[str, Any]) -> set[str]:
    return {node["name"] for node in content["nodes"]}


def kinds(content: dict[str, Any]) -> dict[tuple[str, str], str]:
    """The kind of each link by the names of its ends, in order."""
    known = {node["id"]: node["name"] for node in content["nodes"]}
    return {
        tuple(sorted((known[link["source"]], known[link["target"]]))): link["kind"]  # type: ignore[misc]
        for link in content["links"]
    }


# --- merging both ends -----------------------------------------------------------------------------------


def end(node: int, peer: int, endpoint: str = "", *, reason: str = "", region: int = 0, ms: int = 0) -> End:
    return End(node, peer, endpoint, region, reason, ms)


@pytest.mark.parametrize(
    ("ends", "kind", "one_way"),
    [
        ([end(1, 2, "a:1"), end(2, 1, "b:1")], Kind.DIRECT, False),
        ([end(1, 2, "a:1"), end(2, 1, reason="silent", region=900)], Kind.RELAYED, True),
        ([end(2, 1, reason="idle", region=900)], Kind.IDLE, False),
        ([end(1, 2, "a:1"), end(2, 1, reason="idle", region=900)], Kind.DIRECT, False),
        ([end(1, 2, reason="", region=900)], Kind.RELAYED, False),
    ],
)
def test_both_ends_words_make_one_link(ends: list[End], kind: Kind, one_way: bool) -> None:
    (link,) = merge(ends)
    assert (link.pair, link.kind, link.one_way) == ((1, 2), kind, one_way)


def test_a_direct_links_latency_is_the_shorter_that_was_measured() -> None:
    (link,) = merge([end(1, 2, "a:1", ms=31), end(2, 1, "b:1", ms=29)])
    assert (link.latency_ms, link.is_estimate) == (29, False)
    (link,) = merge([end(1, 2, "a:1", ms=31), end(2, 1, "b:1")])
    assert link.latency_ms == 31


def test_a_relayed_links_latency_is_estimated_from_both_distances() -> None:
    ends = [end(1, 2, reason="silent", region=900), end(2, 1, reason="silent", region=910)]
    distances = {1: {900: 0.010, 910: 0.100}, 2: {900: 0.100, 910: 0.010}}
    (link,) = merge(ends, latencies=distances)
    assert (link.latency_ms, link.is_estimate, link.regions) == (110, True, [900, 910])
    (link,) = merge(ends, latencies={1: {900: 0.010}})
    assert (link.latency_ms, link.is_estimate) == (0, False)


def test_who_uses_an_exit_node_is_linked_to_it() -> None:
    links = merge([end(1, 2, "a:1")], exit_nodes={2: 1, 3: 1, 4: 4})
    assert [(link.pair, link.kind, link.exit_node) for link in links] == [
        ((1, 2), Kind.DIRECT, 1),
        ((1, 3), Kind.IDLE, 1),
    ]


# --- what is drawn ---------------------------------------------------------------------------------------


def test_devices_and_their_links_are_drawn(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web, far = (device(tailnet, owner, name) for name in ("box", "web", "far"))
    device(tailnet, owner, "gone", online=False)
    tells(box, direct(web, 12), relayed(far), PeerPath(node_id=10**12))
    content = drawn(Visitor(owner))
    assert names(content) == {"box", "web", "far", "gone"}
    assert kinds(content) == {("box", "web"): "direct", ("box", "far"): "relayed"}
    labels = {link["kind"]: link["label"] for link in content["links"]}
    assert labels == {"direct": "12 ms", "relayed": "Region 900 · ≈ 40 ms"}
    states = {node["name"]: node["state"] for node in content["nodes"]}
    assert states == {"box": "online", "web": "online", "far": "online", "gone": "offline"}
    assert content["summary"] == "4 devices, 2 links"
    assert "notice" not in content


def test_relays_are_called_by_their_names(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    record_report(relay=RelayIdentity(ensure_embedded_relay().pk, None), report={"type": "hello"})
    box, web = (device(tailnet, owner, name) for name in ("box", "web"))
    tells(box, relayed(web))
    (link,) = drawn(Visitor(owner))["links"]
    assert link["label"] == "Trenza · ≈ 40 ms"


def test_what_a_device_said_before_it_went_is_not_drawn(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web = (device(tailnet, owner, name) for name in ("box", "web"))
    tells(box, direct(web))
    epoch = claim_presence(tailnet=tailnet.pk, node_id=box.pk, worker="w2")
    release_presence(tailnet=tailnet.pk, node_id=box.pk, epoch=epoch)
    assert drawn(Visitor(owner))["links"] == []


def test_exit_nodes_and_routers_are_marked_and_arrows_lead_to_exit_nodes(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    routes = ["10.7.0.0/16", "0.0.0.0/0", "::/0"]
    gate = device(tailnet, owner, "gate", RoutableIPs=routes)
    user = device(tailnet, owner, "user", ExitNodeID=gate.stable_id)
    marks = {node["name"]: (node["role"], node["marks"]) for node in drawn(Visitor(owner))["nodes"]}
    assert marks["gate"] == ("plain", ""), "what nobody has approved does not count"
    set_exit_node(node=gate, by=Actor.command(), enabled=True)
    set_route(node=gate, by=Actor.command(), prefix="10.7.0.0/16", approved=True)
    content = drawn(Visitor(owner))
    marks = {node["name"]: (node["role"], node["marks"]) for node in content["nodes"]}
    assert marks == {"gate": ("both", "exit node, 10.7.0.0/16"), "user": ("plain", "")}
    (link,) = content["links"]
    assert (link["source"], link["target"], link["exit"]) == (str(user.pk), str(gate.pk), True)


def test_a_search_draws_those_it_finds_and_whom_they_talk_to(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    phone = device(tailnet, owner, "phone")
    server, other = (device(tailnet, None, name) for name in ("server", "other"))
    tells(server, direct(phone), direct(other))
    content = drawn(Visitor(owner), "?q=pho")
    assert names(content) == {"phone", "server"}, "a client that tells nothing is known by its peer"
    assert {node["name"] for node in content["nodes"] if node["beside"]} == {"server"}
    assert kinds(content) == {("phone", "server"): "direct"}
    assert names(drawn(Visitor(owner), "?owner=tagged")) == {"server", "other", "phone"}
    assert names(drawn(Visitor(owner), "?q=tag:server")) == {"server", "other", "phone"}
    assert names(drawn(Visitor(owner), "?q=nothing")) == set()


def test_filters_by_path_and_connection(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web, far = (device(tailnet, owner, name) for name in ("box", "web", "far"))
    device(tailnet, owner, "gone", online=False)
    tells(box, direct(web), relayed(far))
    visitor = Visitor(owner)
    assert names(drawn(visitor, "?online=1")) == {"box", "web", "far"}
    assert names(drawn(visitor, "?path=relayed")) == {"box", "far"}
    assert kinds(drawn(visitor, "?path=direct")) == {("box", "web"): "direct"}
    assert drawn(visitor, "?path=idle")["nodes"] == []
    assert names(drawn(visitor, "?path=sideways&online=maybe&owner=x")) == {"box", "web", "far", "gone"}


def test_a_large_tailnet_is_drawn_in_part_and_says_so(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, owner = place
    for name in ("a-away", "b-away"):
        device(tailnet, owner, name, online=False)
    near, last = (device(tailnet, None, name) for name in ("y-near", "z-last"))
    tells(near, direct(last))
    monkeypatch.setattr(picture, "MAX_DRAWN", 3)
    monkeypatch.setattr("controlplane.views.picture.MAX_DRAWN", 3)
    content = drawn(Visitor(owner))
    assert names(content) == {"y-near", "z-last", "a-away"}, "connected ones first"
    assert "Of 4 devices 3 are drawn" in content["notice"]
    assert [(group["owner"], group["n"]) for group in content["groups"]] == [
        ("tagged", 2),
        (str(owner.pk), 2),
    ]
    assert "Of 4 devices 3 are drawn" in Visitor(owner).get("/map?view=table").content.decode()


# --- who sees what ---------------------------------------------------------------------------------------


def test_a_member_sees_the_map_of_their_own_devices(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = factories.member(tailnet, Role.MEMBER)
    mine, also_mine = (device(tailnet, member.user, name) for name in ("mine", "also-mine"))
    theirs = device(tailnet, owner, "secretname")
    tells(mine, direct(theirs), direct(also_mine))
    tells(theirs, direct(mine))
    visitor = Visitor.of(member)
    content = drawn(visitor)
    assert kinds(content) == {("also-mine", "mine"): "direct"}
    assert names(drawn(visitor, "?q=mine")) == {"mine", "also-mine"}
    card = visitor.fragment(f"/map/devices/{mine.stable_id}").content.decode()
    assert "and 1 device that is not shown here" in card
    for page in (card, visitor.get("/map?view=table").content.decode(), str(content)):
        assert "secretname" not in page
    assert visitor.get(f"/map/devices/{theirs.stable_id}").status_code == 404
    assert visitor.fragment(f"/map/devices/{theirs.stable_id}").content == b""


def test_nothing_of_another_tailnet_is_drawn(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    theirs = [device(other, stranger, name) for name in ("canary", "canary-two")]
    tells(theirs[0], direct(theirs[1]))
    device(*place, "box")
    visitor = Visitor(place[1])
    assert names(drawn(visitor)) == {"box"}
    assert visitor.get(f"/map/devices/{theirs[0].stable_id}").status_code == 404


@pytest.mark.parametrize(
    ("role", "status"),
    [(Role.ADMIN, 200), (Role.AUDITOR, 200), (Role.MEMBER, 200), (Role.BILLING_ADMIN, 404)],
)
def test_who_has_a_map(place: tuple[Tailnet, User], role: Role, status: int) -> None:
    visitor = Visitor.of(factories.member(place[0], role))
    for path in ("/map", "/map?view=table", "/map/data"):
        assert visitor.get(path).status_code == status


# --- the table and the card ------------------------------------------------------------------------------


def test_the_table_has_the_facts_of_the_picture(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web, far = (device(tailnet, owner, name) for name in ("box", "web", "far"))
    device(tailnet, owner, "gone", online=False)
    tells(box, direct(web, 12), relayed(far, Reason.HARD_NAT_BOTH))
    tells(far, relayed(box, Reason.HARD_NAT_BOTH))
    text = Visitor(owner).get("/map?view=table").content.decode()
    for shown in ("Direct", "203.0.113.7:41641", "12 ms", "Relayed", "by Region 900", "≈ 40 ms", "gone"):
        assert shown in text, shown
    assert text.count("The NATs of both networks are hard") == 1, "what both ends say is said once"


def test_those_without_a_link_are_named_up_to_a_bound(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controlplane.views.picture.MAX_ALONE", 2)
    for name in ("a-one", "b-two", "c-three"):
        device(*place, name)
    text = Visitor(place[1]).get("/map?view=table").content.decode()
    assert "a-one" in text
    assert "c-three" not in text
    assert "and 1 more" in text


def test_each_end_has_its_own_reason(place: tuple[Tailnet, User]) -> None:
    box, web = (device(*place, name) for name in ("box", "web"))
    tells(box, relayed(web, Reason.UDP_BLOCKED_THERE))
    tells(web, relayed(box, Reason.UDP_BLOCKED_HERE))
    text = Visitor(place[1]).get("/map?view=table").content.decode()
    assert "<b>web</b>: UDP is blocked on this device" in text
    assert "<b>box</b>: The other device knows no public address" in text


def shown_pairs(page: Any) -> list[str]:
    return [f"{row.one.name}-{row.other.name}" for row in page.context["page"]]


def test_the_table_is_sorted_and_has_pages(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, *others = (device(tailnet, owner, f"box-{number:02}") for number in range(60))
    tells(box, relayed(others[0]), *(direct(peer, 100 - index) for index, peer in enumerate(others[1:])))
    visitor = Visitor(owner)
    first, last = visitor.get("/map?view=table"), visitor.get("/map?view=table&page=2")
    assert (len(shown_pairs(first)), len(shown_pairs(last))) == (50, 9)
    assert shown_pairs(first)[0] == "box-00-box-01"
    assert shown_pairs(visitor.get("/map?view=table&sort=-name"))[0] == "box-00-box-59"
    by_latency = shown_pairs(visitor.get("/map?view=table&sort=latency"))
    assert by_latency[:2] == ["box-00-box-01", "box-00-box-59"]
    assert shown_pairs(visitor.get("/map?view=table&sort=-latency"))[0] == "box-00-box-02"
    assert shown_pairs(visitor.get("/map?view=table&sort=path"))[0] == "box-00-box-01"
    assert shown_pairs(visitor.get("/map?view=table&sort=odd")) == shown_pairs(first)
    fragment = visitor.fragment("/map?view=table", target="map-table", page="/map").content.decode()
    assert fragment.lstrip().startswith('<div id="map-table"')


def test_a_device_that_is_picked_shows_its_links_and_why(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web = (device(tailnet, owner, name) for name in ("box", "web"))
    tells(web, relayed(box, Reason.UDP_BLOCKED_HERE))
    card = Visitor(owner).fragment(f"/map/devices/{box.stable_id}").content.decode()
    for shown in (
        "Relayed",
        "by Region 900",
        "<b>web</b>: UDP is blocked",
        f'href="/devices/{box.stable_id}"',
    ):
        assert shown in card, shown
    alone = device(tailnet, owner, "alone")
    assert "talks to no other device" in Visitor(owner).fragment(f"/map/devices/{alone.pk}").content.decode()


# --- costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/map", "/map/data", "/map/data?q=box", "/map?view=table", "/map/devices/{}"]
)
def test_the_map_costs_the_same_queries_however_many_devices(place: tuple[Tailnet, User], path: str) -> None:
    tailnet, owner = place
    visitor, counts = Visitor(owner), []
    hub = device(tailnet, None, "hub", RoutableIPs=["10.0.0.0/8"])
    for size in (2, 8):
        peers = [device(tailnet, owner, f"box-{size}-{n}", RoutableIPs=["10.1.0.0/16"]) for n in range(size)]
        with scope(tailnet=tailnet):
            PathReport.objects.all().delete()
        tells(hub, *(direct(peer) for peer in peers))
        with CaptureQueriesContext(connection) as captured:
            assert visitor.get(path.format(hub.stable_id)).status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1]
