"""``/api/trenza/v1``: the queue, exit nodes, relays and paths, by tokens and by OAuth clients."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import AuditEvent, Membership, Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member
from accounts.tenancy import scope
from controlplane.api import approvals
from controlplane.api.openapi import document
from controlplane.models import Relay
from controlplane.services.ownrelays import add_relay
from controlplane.services.relays import RelayIdentity, ensure_embedded_relay, record_report
from nodes.approvals import MAX_PICKED
from nodes.models import Node, Route
from nodes.picture import MAX_DRAWN
from nodes.services import exitnodes
from nodes.services.asking import NodeSilent, Reply, Why
from nodes.services.paths import record_paths
from nodes.services.presence import claim_presence
from nodes.services.routes import set_exit_node
from tests import api
from tests.accounts import factories as people
from tests.described import wrong
from tests.nodes import factories as machines
from tests.pages import plain_static_files
from wire.paths import PeerPath, Reason

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

PREFIX = "/api/trenza/v1"
QUEUE, APPROVE, DECLINE = (f"/tailnet/-/approvals{end}" for end in ("", "/approve", "/decline"))
RELAYS, PATHS = "/tailnet/-/relays", "/tailnet/-/paths"
EXIT = ["0.0.0.0/0", "::/0"]
ME = Actor.command()


class Own(api.Api):
    """Calls under Trenza's own prefix, whose answers are as described."""

    def call(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
        value = super().call(method, path, body, **options)
        assert wrong(method, f"{PREFIX}{path}", self.status, value) == []
        return value


def _own(made: api.Api) -> Own:
    return Own(made._headers["authorization"].removeprefix("Bearer "), PREFIX)


def person(tailnet: Tailnet, user: User, *scopes: str) -> Own:
    return _own(api.as_person(tailnet, user, *scopes))


def client(tailnet: Tailnet, *scopes: str) -> Own:
    return _own(api.as_client(tailnet, *scopes))


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return people.tailnet()


def device(tailnet: Tailnet, owner: User | None, name: str, **said: Any) -> Node:
    """An approved device; ``said``: more of its Hostinfo."""
    info = {"Hostname": name, "OS": "linux"} | said
    return machines.node(tailnet, owner, hostname=name, preapproved=True, hostinfo=info)


def route(node: Node, prefix: str) -> Route:
    with scope(tailnet=node.tailnet_id):
        return Route.objects.get(node=node, prefix=prefix)


def newcomer(tailnet: Tailnet, role: str = Role.MEMBER) -> Membership:
    user = people.person()
    return add_member(tailnet=tailnet, user=user, role=role, by=Actor.person(user), needs_approval=True)


def one_of_each(tailnet: Tailnet, owner: User) -> dict[str, str]:
    """Something of every kind waits; its names by kind."""
    waiting = machines.node(tailnet, owner, hostname="waiting")
    gate = device(tailnet, owner, "gate", RoutableIPs=["10.7.0.0/16", *EXIT])
    return {
        "device": f"device-{waiting.pk}",
        "person": f"person-{newcomer(tailnet).pk}",
        "route": f"route-{route(gate, '10.7.0.0/16').pk}",
        "exit-node": f"exit-node-{gate.pk}",
    }


def events(tailnet: Tailnet) -> list[AuditEvent]:
    with scope(tailnet=tailnet):
        return list(AuditEvent.objects.order_by("pk"))


# --- the queue -------------------------------------------------------------------------------------------


def test_the_queue_has_what_waits_of_each_kind(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    names, caller = one_of_each(tailnet, owner), person(*place)
    queue = caller.get(QUEUE)
    found = {one["kind"]: one for one in queue["items"]}
    assert {kind: one["item"] for kind, one in found.items()} == names
    assert queue["total"] == 4
    assert all(one["mayDecide"] for one in found.values())
    assert found["device"]["device"]["name"] == f"waiting.{tailnet.name}.{settings.BASE_DOMAIN}"
    assert found["route"]["route"] == "10.7.0.0/16"
    assert found["exit-node"]["device"] == found["route"]["device"]
    assert "@" in found["person"]["user"]["loginName"]
    only = caller.get(f"/tailnet/{tailnet.name}/approvals?kind=person")
    assert [one["item"] for one in only["items"]] == [names["person"]]
    assert only["total"] == 1


def test_a_token_sees_and_decides_what_its_scopes_are_about(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    names = one_of_each(tailnet, owner)
    for scopes, kinds in {
        "devices:core:read": {"device"},
        "users:read": {"person"},
        "devices:routes": {"route", "exit-node"},
    }.items():
        for caller in (client(tailnet, scopes), person(tailnet, owner, scopes)):
            assert {one["kind"] for one in caller.get(QUEUE)["items"]} == kinds
            assert caller.refusal("POST", APPROVE, {"items": [names["device"]]}).status == 403
    routes = client(tailnet, "devices:routes")
    assert routes.refusal("GET", f"{QUEUE}?kind=device").status == 403
    assert routes.refusal("POST", APPROVE, {"items": [names["route"], names["person"]]}).status == 403
    assert client(tailnet, "dns").refusal("GET", QUEUE).status == 403
    assert person(tailnet, owner).get(QUEUE)["total"] == 4, "nothing was decided"


def test_approving_lets_in_and_declining_turns_away(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    names, caller = one_of_each(tailnet, owner), client(tailnet, "all")
    done = caller.post(
        APPROVE, {"items": [names["device"], names["route"], "route-999999999", names["route"]]}
    )
    assert done == {"done": [names["device"], names["route"]], "left": ["route-999999999"]}
    assert caller.post(APPROVE, {"items": [names["device"]]}) == {"done": [], "left": [names["device"]]}
    done = caller.post(DECLINE, {"items": [names["person"], names["exit-node"]]})
    assert done == {"done": [names["person"], names["exit-node"]], "left": []}
    assert caller.get(QUEUE) == {"total": 0, "items": []}
    with scope(tailnet=tailnet):
        gate = Node.objects.get(name="gate")
        approved = set(
            Route.objects.filter(node=gate, approved_at__isnull=False).values_list("prefix", flat=True)
        )
        assert approved == {"10.7.0.0/16"}
        assert Node.objects.get(name="waiting").is_approved
    made = [one for one in events(tailnet) if one.actor_type == "API_TOKEN"]
    assert len(made) == 4
    assert {one.origin for one in made} == {"API"}


def test_a_role_decides_no_more_than_in_the_panel(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = people.member(tailnet)
    mine = machines.node(tailnet, member.user, hostname="mine")
    machines.node(tailnet, owner, hostname="theirs")
    caller = person(tailnet, member.user)
    (seen,) = caller.get(QUEUE)["items"]
    assert (seen["item"], seen["mayDecide"]) == (f"device-{mine.pk}", False)
    assert caller.refusal("POST", APPROVE, {"items": [seen["item"]]}).status == 403
    boss = newcomer(tailnet, Role.OWNER)
    admin = people.member(tailnet, Role.IT_ADMIN)
    refused = person(tailnet, admin.user).refusal("POST", APPROVE, {"items": [f"person-{boss.pk}"]})
    assert refused.status == 403, refused
    auditor = people.member(tailnet, Role.AUDITOR)
    assert person(tailnet, auditor.user).get(QUEUE)["total"] == 3
    assert (
        person(tailnet, auditor.user).refusal("POST", DECLINE, {"items": [f"device-{mine.pk}"]}).status == 403
    )


def test_another_tailnets_queue_is_not_there(place: tuple[Tailnet, User]) -> None:
    other, stranger = people.tailnet()
    names = one_of_each(*place)
    caller = person(other, stranger)
    assert caller.get(QUEUE)["items"] == []
    assert caller.post(APPROVE, {"items": [*names.values()]}) == {"done": [], "left": [*names.values()]}
    assert caller.refusal("GET", f"/tailnet/{place[0].name}/approvals").status == 404
    assert person(*place).get(QUEUE)["total"] == 4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"items": []},
        {"items": None},
        {"items": ["device-x"]},
        {"items": ["device-1\n"]},
        {"items": ["device-" + "1" * 19]},
        {"items": [""]},
        {"items": [5]},
        {"items": "device-1"},
        {"items": ["device-1"], "all": True},
        {"items": ["device-1"] * (MAX_PICKED + 1)},
    ],
)
def test_what_is_no_decision_is_refused(place: tuple[Tailnet, User], body: Any) -> None:
    caller = person(*place)
    assert caller.refusal("POST", APPROVE, body).status == 400
    assert caller.refusal("POST", DECLINE, body).status == 400


def test_a_query_is_read_strictly(place: tuple[Tailnet, User]) -> None:
    caller = person(*place)
    for query in ("kind=", "kind=relay", "sort=name", "kind=device%00"):
        assert caller.refusal("GET", f"{QUEUE}?{query}").status == 400, query


def test_a_long_queue_is_shown_in_part_and_counted_whole(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, owner = place
    monkeypatch.setattr(approvals, "MAX_PICKED", 2)
    nodes = [machines.node(tailnet, owner, hostname=f"box{n}") for n in range(3)]
    queue = person(*place).get(QUEUE)
    assert queue["total"] == 3
    assert [one["item"] for one in queue["items"]] == [f"device-{node.pk}" for node in nodes[:2]]


# --- exit nodes ------------------------------------------------------------------------------------------


class Asked(list[Any]):
    """What devices are asked; ``fails`` is how they do not."""

    fails: NodeSilent | None = None

    def __call__(self, *, node: Node, path: str, body: Any) -> Reply:
        self.append(body)
        if self.fails is not None:
            raise self.fails
        return Reply(200, b"{}")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    made = Asked()
    monkeypatch.setattr(exitnodes, "ask_node", made)
    return made


def way_out(tailnet: Tailnet, owner: User, name: str = "exit-a") -> Node:
    node = device(tailnet, owner, name, RoutableIPs=EXIT)
    with scope(tailnet=tailnet):
        set_exit_node(node=node, enabled=True, by=ME)
    return node


def test_a_device_is_given_an_exit_node_and_freed_of_it(place: tuple[Tailnet, User], asked: Asked) -> None:
    tailnet, owner = place
    node, way = device(tailnet, owner, "laptop", App="trenza"), way_out(tailnet, owner)
    device(tailnet, owner, "not-approved", RoutableIPs=EXIT)
    claim_presence(tailnet=tailnet.pk, node_id=way.pk, worker="w1")
    caller, path = client(tailnet, "devices:core"), f"/device/{node.stable_id}/exit-node"
    before = caller.get(path)
    assert (before["exitNodeId"], before["settable"], before["approved"]) == (None, True, True)
    assert [(one["nodeId"], one["connected"]) for one in before["choices"]] == [(way.stable_id, True)]
    set_to = caller.post(path, {"exitNodeId": str(way.pk)})
    assert asked == [{"ExitNodeID": way.stable_id}]
    assert (set_to["exitNodeId"], set_to["chosenHere"]) == (way.stable_id, True)
    assert set_to["exitNodeName"] == f"exit-a.{tailnet.name}.{settings.BASE_DOMAIN}"
    freed = caller.post(f"/device/{node.pk}/exit-node", {"exitNodeId": None})
    assert (freed["exitNodeId"], freed["chosenHere"]) == (None, False)
    assert asked[-1] == {"ExitNodeID": ""}
    last = events(tailnet)[-1]
    assert (last.target_property, last.old, last.new, last.actor_type) == (
        "EXIT_NODE",
        "exit-a",
        None,
        "API_TOKEN",
    )


def test_what_the_device_says_is_shown_also_where_it_is_not_approved(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    way = device(tailnet, owner, "exit-b", RoutableIPs=EXIT)
    node = device(tailnet, owner, "phone", ExitNodeID=way.stable_id)
    gone = device(tailnet, owner, "old", ExitNodeID="nGone")
    shown = person(*place).get(f"/device/{node.pk}/exit-node")
    assert (shown["exitNodeId"], shown["approved"], shown["settable"]) == (way.stable_id, False, False)
    assert shown["exitNodeName"].startswith("exit-b.")
    shown = person(*place).get(f"/device/{gone.pk}/exit-node")
    assert (shown["exitNodeId"], shown["approved"]) == ("nGone", False)
    assert "exitNodeName" not in shown


def test_what_cannot_be_chosen_is_a_conflict(place: tuple[Tailnet, User], asked: Asked) -> None:
    tailnet, owner = place
    node, way = device(tailnet, owner, "laptop", App="trenza"), way_out(tailnet, owner)
    official, plain = device(tailnet, owner, "phone"), device(tailnet, owner, "plain")
    caller, path = person(*place), f"/device/{node.pk}/exit-node"
    for where, wanted in ((path, plain), (path, node), (f"/device/{official.pk}/exit-node", way)):
        assert caller.refusal("POST", where, {"exitNodeId": wanted.stable_id}).status == 409
    asked.fails = NodeSilent(Why.AWAY, "the device is not connected")
    refused = caller.refusal("POST", path, {"exitNodeId": way.stable_id})
    assert (refused.status, refused.message) == (409, "the device is not connected")
    node.refresh_from_db()
    assert node.exit_node is None


def test_who_may_choose_an_exit_node(place: tuple[Tailnet, User], asked: Asked) -> None:
    tailnet, owner = place
    member = people.member(tailnet)
    node, way = device(tailnet, member.user, "laptop", App="trenza"), way_out(tailnet, owner)
    path, body = f"/device/{node.pk}/exit-node", {"exitNodeId": way.stable_id}
    assert person(tailnet, member.user).get(path)["choices"] == [], "a member sees their own devices"
    assert person(tailnet, member.user).refusal("POST", path, body).status == 403
    assert person(tailnet, owner, "devices:core:read").refusal("POST", path, body).status == 403
    assert client(tailnet, "devices:routes").refusal("GET", path).status == 403
    other, stranger = people.tailnet()
    theirs = way_out(other, stranger)
    assert person(other, stranger).refusal("GET", path).status == 404
    assert person(other, stranger).refusal("POST", path, body).status == 404
    assert person(*place).refusal("POST", path, {"exitNodeId": theirs.stable_id}).status == 404
    for wrong_body in (
        {},
        {"exitNodeId": ""},
        {"exitNodeId": 5},
        {"exitNodeId": "x" * 65},
        {"exitNodeId": "\0"},
    ):
        assert person(*place).refusal("POST", path, wrong_body).status == 400, wrong_body
    assert asked == []


# --- relays ----------------------------------------------------------------------------------------------


def test_relays_are_listed_with_what_they_carry(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    embedded = ensure_embedded_relay()
    identity = RelayIdentity(embedded.pk, None)
    record_report(relay=identity, report={"type": "hello", "version": "1"})
    record_report(
        relay=identity,
        report={"type": "stats", "clients": 3, "bytes_in": 10, "bytes_out": 20, "packets": 4, "drops": 1},
    )
    add_relay(tailnet=tailnet, by=ME, name="Madrid", host="relay.example.com", derp_port=443)
    device(tailnet, owner, "near", NetInfo={"PreferredDERP": 900, "DERPLatency": {"900-v4": 0.012}})
    with scope(tailnet=tailnet):
        Node.objects.filter(name="near").update(home_derp=900)
    found = person(*place).get(RELAYS)
    regions = {one["name"]: one for one in found["regions"]}
    (one,) = regions[embedded.region_name]["relays"]
    assert (one["state"], one["own"], one["clients"]) == ("up", False, 3)
    assert (one["bytesIn"], one["bytesOut"], one["packets"], one["drops"]) == (10, 20, 4, 1)
    (mine,) = regions["Madrid"]["relays"]
    assert (mine["state"], mine["own"], mine["host"]) == ("new", True, "relay.example.com")
    assert "lastSeen" not in mine
    everybody, home = found["latency"]
    assert everybody == {"devices": 1, "medians": [{"regionId": 900, "latencyMs": 12.0}]}
    assert home == everybody | {"homeRegionId": 900}


def test_a_relay_that_is_silent_or_off_says_so(place: tuple[Tailnet, User]) -> None:
    made = add_relay(tailnet=place[0], by=ME, name="Madrid", host="192.0.2.7", derp_port=443).relay
    ago = timezone.now() - timedelta(minutes=5)
    rows = Relay.objects.filter(pk=made.pk)
    rows.update(derp_key="nodekey:x", last_seen=ago, connected_at=ago, stats={"clients": 9})
    states = []
    for enabled in (True, False):
        rows.update(enabled=enabled)
        (region,) = [one for one in person(*place).get(RELAYS)["regions"] if one["name"] == "Madrid"]
        states.append((region["relays"][0]["state"], region["relays"][0]["clients"]))
    assert states == [("silent", 0), ("off", 0)]


def test_who_sees_relays(place: tuple[Tailnet, User]) -> None:
    tailnet, _owner = place
    other, stranger = people.tailnet()
    add_relay(tailnet=tailnet, by=ME, name="Madrid", host="192.0.2.7", derp_port=443)
    assert "Madrid" not in str(person(other, stranger).get(RELAYS))
    assert client(tailnet, "policy_file:read").get(RELAYS)["regions"]
    assert client(tailnet, "devices:core").refusal("GET", RELAYS).status == 403
    member = people.member(tailnet)
    assert person(tailnet, member.user).refusal("GET", RELAYS).status == 403
    auditor = people.member(tailnet, Role.AUDITOR)
    assert person(tailnet, auditor.user).get(RELAYS)["regions"]


# --- paths -----------------------------------------------------------------------------------------------


def online(tailnet: Tailnet, owner: User, name: str, **said: Any) -> Node:
    net = {"PreferredDERP": 900, "DERPLatency": {"900-v4": 0.02}}
    node = device(tailnet, owner, name, NetInfo=net, **said)
    claim_presence(tailnet=tailnet.pk, node_id=node.pk, worker="w1")
    return node


def tells(node: Node, *paths: PeerPath) -> None:
    assert record_paths(tailnet=node.tailnet_id, node_id=node.pk, paths=paths)


def test_paths_say_by_what_and_why(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    relay = ensure_embedded_relay()
    one, two, three = (online(tailnet, owner, name) for name in ("one", "two", "three"))
    tells(one, PeerPath(node_id=two.pk, endpoint="192.0.2.9:41641", latency_ms=7))
    tells(two, PeerPath(node_id=one.pk, derp_region=900, reason=Reason.SILENT))
    tells(three, PeerPath(node_id=one.pk, derp_region=900, reason=Reason.HARD_NAT_BOTH))
    found = person(*place).get(PATHS)
    assert (found["devices"], found["total"]) == (3, 3)
    mixed, relayed = found["paths"]
    assert [one["name"].partition(".")[0] for one in mixed["devices"]] == ["one", "two"]
    assert (mixed["kind"], mixed["oneWay"], mixed["latencyMs"], mixed["estimated"]) == (
        "relayed",
        True,
        40,
        True,
    )
    direct, other = mixed["ends"]
    assert direct == {"nodeId": one.stable_id, "kind": "direct", "endpoint": "192.0.2.9:41641"}
    assert (other["reason"], other["regionId"]) == ("silent", 900)
    assert "answers at none" in other["why"]
    assert relayed["relays"] == [{"regionId": 900, "name": relay.region_name}]
    assert relayed["ends"][0]["reason"] == "hard-nat-both"
    for query, number in (
        ("path=direct", 0),
        ("path=relayed", 2),
        ("q=two", 1),
        ("online=1", 2),
        ("owner=tagged", 0),
    ):
        assert len(person(*place).get(f"{PATHS}?{query}")["paths"]) == number, query
    assert len(person(*place).get(f"{PATHS}?owner={owner.pk}")["paths"]) == 2


def test_an_exit_node_in_use_is_a_path(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    way = online(tailnet, owner, "way", RoutableIPs=EXIT)
    online(tailnet, owner, "user", ExitNodeID=way.stable_id)
    (path,) = person(*place).get(PATHS)["paths"]
    assert (path["exitNodeId"], path["kind"], path["ends"]) == (way.stable_id, "idle", [])


def test_who_sees_paths(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member, (other, stranger) = people.member(tailnet), people.tailnet()
    mine, theirs = online(tailnet, member.user, "mine"), online(tailnet, owner, "theirs")
    tells(mine, PeerPath(node_id=theirs.pk, endpoint="192.0.2.9:41641"))
    assert person(tailnet, owner).get(PATHS)["paths"]
    assert person(tailnet, member.user).get(PATHS) == {"devices": 1, "total": 1, "paths": []}
    assert person(other, stranger).get(PATHS) == {"devices": 0, "total": 0, "paths": []}
    assert client(tailnet, "users").refusal("GET", PATHS).status == 403
    for query in ("owner=me", "owner=", "online=0", "path=", "sort=name", "q=%00", f"q={'x' * 101}"):
        assert person(*place).refusal("GET", f"{PATHS}?{query}").status == 400, query


def test_the_bound_is_the_one_that_is_described() -> None:
    said = document()["paths"][f"{PREFIX}/tailnet/{{tailnet}}/paths"]["get"]["description"]
    assert f"at most {MAX_DRAWN} devices" in said


# --- costs -----------------------------------------------------------------------------------------------


def test_lists_cost_the_same_queries_however_much_there_is(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    ensure_embedded_relay()
    caller, numbers = person(*place), []
    caller.get(QUEUE)  # the first use of a token is written down

    def more(number: int) -> None:
        gate = online(tailnet, owner, f"gate{number}", RoutableIPs=[f"10.{number}.0.0/16", *EXIT])
        peer = online(tailnet, owner, f"peer{number}", ExitNodeID=gate.stable_id)
        tells(peer, PeerPath(node_id=gate.pk, derp_region=900, reason=Reason.SILENT))
        machines.node(tailnet, people.member(tailnet).user, hostname=f"waiting{number}")
        newcomer(tailnet)
        add_relay(tailnet=tailnet, by=ME, name=f"Relay {number}", host="192.0.2.7", derp_port=443)
        way_out(tailnet, owner, f"way{number}")

    more(1)
    with scope(tailnet=tailnet):
        first = Node.objects.get(name="peer1").stable_id
    paths = (QUEUE, RELAYS, PATHS, f"/device/{first}/exit-node")
    for step in (range(2, 3), range(3, 8)):
        for number in step:
            more(number)
        counted = []
        for path in paths:
            with CaptureQueriesContext(
                connection,
            ) as queries:
                caller.get(path)
            counted.append(len(queries))
        numbers.append(counted)
    assert numbers[0] == numbers[1], dict(zip(paths, zip(*numbers, strict=True), strict=True))
