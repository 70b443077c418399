"""Devices in the public API: what is told of them, who may do what to them, and what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane.models import Relay
from nodes import facts
from nodes.models import Node, Presence, Route
from nodes.services.routes import set_route
from nodes.services.volatile import Volatile, update_node_state
from tests.accounts import factories as people
from tests.api import as_client, as_person
from tests.nodes import factories
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
DEVICES = "/tailnet/-/devices"

HOSTINFO: dict[str, Any] = {
    "Hostname": "box",
    "OS": "linux",
    "IPNVersion": "1.90.2-t1a2b3c4d5",
    "ShieldsUp": True,
    "Distro": "debian",
    "DistroVersion": "12.5",
    "DistroCodeName": "bookworm",
    "sshHostKeys": ["ssh-ed25519 AAAA"],
    "NetInfo": {
        "WorkingUDP": True,
        "MappingVariesByDestIP": True,
        "PreferredDERP": 900,
        "DERPLatency": {"900-v4": 0.0123, "900-v6": 0.0456, "901-v4": 0.2, "x": 1, "7-v4": "no"},
    },
}


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return people.tailnet(device_approval=False)


def reread(node: Node) -> Node:
    with scope(tailnet=node.tailnet):
        return Node.objects.select_related("user").get(pk=node.pk)


def last_event(tailnet: Tailnet) -> AuditEvent:
    with scope(tailnet=tailnet):
        return AuditEvent.objects.order_by("-pk")[0]


def offer(node: Node, *prefixes: str) -> None:
    """The device says that it offers exactly these."""
    report = Volatile(node_id=node.pk, hostinfo={"Hostname": "box", "RoutableIPs": list(prefixes)})
    update_node_state(tailnet=node.tailnet, report=report)


# --- reading -----------------------------------------------------------------------------------------------


def test_a_device_is_told_of_in_full(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    Relay.objects.create(region_id=900, region_code="mad", region_name="Madrid", node_name="a", host_name="h")
    node = factories.node(tailnet, owner, hostinfo=HOSTINFO)
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(home_derp=900, endpoints=["192.0.2.1:41641"])
    node = reread(node)
    api = as_person(tailnet, owner)
    device = api.get(f"/device/{node.stable_id}?fields=all")
    assert device == {
        "id": str(node.pk),
        "nodeId": node.stable_id,
        "name": device["name"],
        "hostname": "box",
        "user": owner.email,
        "addresses": [node.ipv4, node.ipv6],
        "os": "linux",
        "clientVersion": "1.90.2-t1a2b3c4d5",
        "updateAvailable": False,
        "created": f"{node.created:%Y-%m-%dT%H:%M:%SZ}",
        "lastSeen": f"{node.created:%Y-%m-%dT%H:%M:%SZ}",
        "connectedToControl": False,
        "expires": f"{node.key_expiry:%Y-%m-%dT%H:%M:%SZ}",
        "keyExpiryDisabled": False,
        "authorized": True,
        "isExternal": False,
        "isEphemeral": False,
        "machineKey": node.machine_key,
        "nodeKey": node.node_key,
        "blocksIncomingConnections": True,
        "multipleConnections": False,
        "tailnetLockKey": "",
        "tailnetLockError": "",
        "advertisedRoutes": [],
        "enabledRoutes": [],
        "sshEnabled": True,
        "distro": {"name": "debian", "version": "12.5", "codeName": "bookworm"},
        "clientConnectivity": {
            "endpoints": ["192.0.2.1:41641"],
            "derp": "127.3.3.40:900",
            "mappingVariesByDestIP": True,
            "latency": {"Madrid": {"latencyMs": 12.3, "preferred": True}, "901": {"latencyMs": 200.0}},
            "clientSupports": {
                "hairPinning": False,
                "ipv6": False,
                "pcp": False,
                "pmp": False,
                "udp": True,
                "upnp": False,
            },
        },
    }
    assert device["name"].startswith(f"box.{tailnet.name}.")
    assert api.get(f"{DEVICES}?fields=all") == {"devices": [device]}
    details = {"advertisedRoutes", "enabledRoutes", "sshEnabled", "distro", "clientConnectivity"}
    short = {name: value for name, value in device.items() if name not in details}
    assert api.get(f"/device/{node.pk}") == api.get(f"/device/{node.pk}?fields=default") == short
    assert api.get(DEVICES) == api.get(f"{DEVICES}?fields=default") == {"devices": [short]}


def test_a_connected_device_was_not_last_seen_at_any_time(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    with scope(tailnet=tailnet):
        Presence.objects.create(
            tailnet=tailnet, node=node, worker="w", expires=timezone.now() + timedelta(hours=1)
        )
    for device in (
        as_person(tailnet, owner).get(f"/device/{node.pk}"),
        as_person(tailnet, owner).get(DEVICES)["devices"][0],
    ):
        assert device["connectedToControl"] is True
        assert "lastSeen" not in device


def test_an_older_client_than_the_newest_could_be_updated(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    versions = {"old": "1.88.3", "new": "1.90.2-t1", "odd": "?"}
    made = {
        name: factories.node(
            tailnet, owner, hostname=name, hostinfo={"Hostname": name, "OS": "linux", "IPNVersion": version}
        )
        for name, version in versions.items()
    }
    api = as_person(tailnet, owner)
    told = {device["hostname"]: device["updateAvailable"] for device in api.get(DEVICES)["devices"]}
    assert told == {"old": True, "new": False, "odd": False}
    assert api.get(f"/device/{made['old'].pk}")["updateAvailable"] is True


def test_what_is_in_no_order_of_a_client_is_told_as_nothing(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    odd = {"Hostname": "box", "OS": 7, "NetInfo": [1], "sshHostKeys": "x", "Distro": None, "shieldsup": 1}
    factories.node(tailnet, owner, hostinfo=odd)
    (device,) = as_person(tailnet, owner).get(f"{DEVICES}?fields=all")["devices"]
    assert (device["os"], device["sshEnabled"], device["distro"]["name"]) == ("", False, "")
    assert device["clientConnectivity"]["latency"] == {}


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("os=linux", {"web", "mail", "phone"}),
        ("hostname=web&hostname=mail", {"web", "mail"}),
        ("hostname=web&isEphemeral=true", set()),
        ("isEphemeral=true", {"phone"}),
        ("tags=tag:server", {"web", "mail"}),
        ("tags=tag:mail&tags=tag:none", {"mail"}),
        ("user=tagged-devices&hostname=mail", {"mail"}),
        ("hostname=WEB", set()),
        ("enabledRoutes=10.0.0.0/8", {"web"}),
        ("fields=all&advertisedRoutes=10.0.0.0/8", {"web"}),
        ("lastSeen=", set()),
        ("os=plan9&os=linux", {"web", "mail", "phone"}),
    ],
)
def test_filters_are_exact_and_all_of_them_count(
    place: tuple[Tailnet, User], query: str, found: set[str]
) -> None:
    tailnet, owner = place
    web = factories.node(tailnet, hostname="web", tags=["tag:server"])
    factories.node(tailnet, hostname="mail", tags=["tag:mail", "tag:server"])
    factories.node(tailnet, owner, hostname="phone", ephemeral=True)
    with scope(tailnet=tailnet):
        Route.objects.create(tailnet=tailnet, node=web, prefix="10.0.0.0/8", approved_at=timezone.now())
    devices = as_person(tailnet, owner).get(f"{DEVICES}?{query}")["devices"]
    assert {device["hostname"] for device in devices} == found
    assert all(("enabledRoutes" in device) == ("fields=all" in query) for device in devices)


def test_a_filter_that_is_none_is_refused_with_those_that_are(place: tuple[Tailnet, User]) -> None:
    api = as_person(*place)
    refused = api.refusal("GET", f"{DEVICES}?colour=red")
    assert (refused.status, "devices are filtered by id, nodeId, name" in refused.message) == (400, True)
    for query in ("fields=some", "authorized=yes", "clientConnectivity=x", "os=%00"):
        assert api.refusal("GET", f"{DEVICES}?{query}").status == 400, query
    assert api.refusal("GET", "/device/1?os=linux").status == 400


def test_a_list_of_several_slices_is_whole(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, owner = place
    monkeypatch.setattr(facts, "SLICE", 2)
    api = as_person(tailnet, owner)
    for count in range(6):
        devices = api.get(f"{DEVICES}?fields=all")["devices"]
        assert [device["hostname"] for device in devices] == [f"box{number}" for number in range(count)]
        assert len(api.get(f"{DEVICES}?hostname=box0&hostname=box4")["devices"]) == (count > 0) + (count > 4)
        factories.node(tailnet, owner, hostname=f"box{count}")


def test_any_number_of_devices_costs_the_same_queries(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    api = as_person(tailnet, owner)

    def queries() -> int:
        api.get(f"{DEVICES}?fields=all")
        with CaptureQueriesContext(connection) as captured:
            api.get(f"{DEVICES}?fields=all")
        return len(captured)

    factories.node(tailnet, owner)
    before = queries()
    for number in range(10):
        node = factories.node(tailnet, owner, hostname=f"box{number}")
        with scope(tailnet=tailnet):
            Route.objects.create(tailnet=tailnet, node=node, prefix="10.0.0.0/8")
    assert queries() == before


def test_nobody_reads_more_than_they_see(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, stranger = people.tailnet()
    member = people.member(tailnet)
    own, others = factories.node(tailnet, member.user), factories.node(tailnet, owner, hostname="other")
    foreign = factories.node(other, stranger)
    api = as_person(tailnet, member.user)
    assert [device["id"] for device in api.get(DEVICES)["devices"]] == [str(own.pk)]
    for hidden in (others, foreign):
        for name in (hidden.pk, hidden.stable_id):
            assert api.refusal("GET", f"/device/{name}").status == 404
    for nothing in ("0", "x", "9" * 30, "9" * 5000, "%00", "a%0ab", "%ED%A0%80", "%D9%A1"):
        assert api.refusal("GET", f"/device/{nothing}").status == 404, nothing
    assert as_client(tailnet, "devices:core:read").get(f"/device/{others.pk}")
    assert as_client(tailnet, "devices:core:read").refusal("GET", f"/device/{foreign.pk}").status == 404


# --- acting ------------------------------------------------------------------------------------------------

ACTIONS: list[tuple[str, str, Any]] = [
    ("DELETE", "", None),
    ("POST", "/authorized", {"authorized": False}),
    ("POST", "/name", {"name": "other"}),
    ("POST", "/tags", {"tags": ["tag:web"]}),
    ("POST", "/key", {"keyExpiryDisabled": True}),
    ("POST", "/ip", {"ipv4": "100.80.0.1"}),
    ("POST", "/routes", {"routes": ["10.0.0.0/8"]}),
    ("POST", "/expire", None),
]


@pytest.mark.parametrize(("method", "path", "body"), ACTIONS)
def test_each_action_needs_its_scope_and_is_the_tokens(
    place: tuple[Tailnet, User], method: str, path: str, body: Any
) -> None:
    tailnet, owner = place
    other, stranger = people.tailnet(device_approval=False)
    node, foreign = factories.node(tailnet, owner), factories.node(other, stranger)
    needed = "devices:routes" if path == "/routes" else "devices:core"
    wrong = {"devices:routes": "devices:core", "devices:core": "devices:routes"}[needed]
    for scopes in ((f"{needed}:read", wrong), ("all:read",)):
        assert (
            as_person(tailnet, owner, *scopes).refusal(method, f"/device/{node.pk}{path}", body).status == 403
        )
    api = as_person(tailnet, owner, needed)
    for name in (foreign.pk, foreign.stable_id, "no"):
        assert api.refusal(method, f"/device/{name}{path}", body).status == 404
    assert reread(foreign).name == "box"
    answered = api.call(method, f"/device/{node.stable_id}{path}", body)
    assert answered == (
        {} if path != "/routes" else {"advertisedRoutes": [], "enabledRoutes": ["10.0.0.0/8"]}
    )
    event = last_event(tailnet)
    assert (event.actor_type, event.origin, event.actor_name) == ("API_TOKEN", "API", owner.email)
    assert (event.target_type, event.target_id) == ("NODE", node.stable_id)


@pytest.mark.parametrize(("method", "path", "body"), ACTIONS)
def test_a_member_acts_on_their_own_as_in_the_panel(
    place: tuple[Tailnet, User], method: str, path: str, body: Any
) -> None:
    tailnet, owner = place
    member = people.member(tailnet)
    own, others = factories.node(tailnet, member.user), factories.node(tailnet, owner, hostname="second")
    api = as_person(tailnet, member.user)
    hidden = 403 if path == "/routes" else 404
    assert api.refusal(method, f"/device/{others.pk}{path}", body).status == hidden
    if path in ("", "/name", "/expire"):
        api.call(method, f"/device/{own.pk}{path}", body)
    else:
        assert api.refusal(method, f"/device/{own.pk}{path}", body).status == 403
    auditor = people.member(tailnet, Role.AUDITOR)
    assert as_person(tailnet, auditor.user).refusal(method, f"/device/{others.pk}{path}", body).status == 403


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("authorized", {}),
        ("authorized", {"authorized": "true"}),
        ("authorized", {"authorized": True, "more": 1}),
        ("name", {"name": None}),
        ("name", {"name": "two words"}),
        ("name", {"name": "-a"}),
        ("name", {"name": "a\n"}),
        ("name", {"name": "a" * 64}),
        ("name", {"name": "a\0"}),
        ("tags", {"tags": "tag:web"}),
        ("tags", {"tags": ["web"]}),
        ("tags", {"tags": ["tag:web\n"]}),
        ("tags", {"tags": [f"tag:a{number}" for number in range(51)]}),
        ("key", {"keyExpiryDisabled": 1}),
        ("ip", {"ipv4": "10.0.0.1"}),
        ("ip", {"ipv4": "100.64.1.01"}),
        ("ip", {"ipv4": "100.64.1.1\n"}),
        ("ip", {"ipv4": 1681915904}),
        ("routes", {"routes": ["10.0.0.0"]}),
        ("routes", {"routes": [None]}),
        ("routes", {}),
    ],
)
def test_a_body_of_another_form_changes_nothing(place: tuple[Tailnet, User], path: str, body: Any) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)
    before = api.get(f"/device/{node.pk}?fields=all")
    assert api.refusal("POST", f"/device/{node.pk}/{path}", body).status == 400
    assert api.get(f"/device/{node.pk}?fields=all") == before


def test_a_device_can_be_made_to_wait_again(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)

    def authorize(wanted: bool) -> tuple[str, bool]:
        api.post(f"/device/{node.pk}/authorized", {"authorized": wanted})
        return reread(node).state, api.get(f"/device/{node.pk}")["authorized"]

    assert authorize(False) == ("pending", False)
    with scope(tailnet=tailnet):
        events = AuditEvent.objects.count()
    assert authorize(False) == ("pending", False)
    with scope(tailnet=tailnet):
        assert AuditEvent.objects.count() == events, "nothing has changed"
    assert authorize(True) == ("active", True)
    api.post(f"/device/{node.pk}/expire")
    assert authorize(False) == ("expired", False)


def test_names_are_short_or_of_this_tailnet(place: tuple[Tailnet, User], settings: Any) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner, hostname="Laptop")
    factories.node(tailnet, owner, hostname="taken")
    api = as_person(tailnet, owner)
    domain = f"{tailnet.name}.{settings.BASE_DOMAIN}"

    def name(text: str) -> str:
        api.post(f"/device/{node.pk}/name", {"name": text})
        return reread(node).name

    assert name("Desk") == "desk"
    assert name(f"chair.{domain}") == name(f"chair.{domain}.") == "chair"
    assert name("") == "laptop"
    for wrong in ("taken", f"taken.{domain}", f"a.b.{domain}", "chair.example.com", domain):
        assert api.refusal("POST", f"/device/{node.pk}/name", {"name": wrong}).status == 409, wrong


def test_tags_take_a_device_from_its_person_for_good(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)
    tags = f"/device/{node.pk}/tags"
    api.post(tags, {"tags": []})
    assert reread(node).user == owner
    api.post(tags, {"tags": ["tag:web", "tag:a", "tag:web"]})
    device = api.get(f"/device/{node.pk}")
    assert (device["tags"], device["user"]) == (["tag:a", "tag:web"], "tagged-devices")
    for nothing in ([], None):
        refused = api.refusal("POST", tags, {"tags": nothing})
        assert (refused.status, "sign in" in refused.message) == (409, True)
    assert reread(node).tags == ["tag:a", "tag:web"]


def test_a_client_gives_only_tags_of_its_own(place: tuple[Tailnet, User]) -> None:
    tailnet, _ = place
    node = factories.node(tailnet, tags=["tag:old"])
    api = as_client(tailnet, "devices:core", tags=["tag:web"])
    tags = f"/device/{node.pk}/tags"
    assert api.refusal("POST", tags, {"tags": ["tag:web", "tag:db"]}).status == 403
    assert reread(node).tags == ["tag:old"]
    api.post(tags, {"tags": ["tag:web", "tag:old"]})
    assert reread(node).tags == ["tag:old", "tag:web"]


def test_the_expiry_of_a_key_is_switched(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)

    def told(body: dict[str, Any]) -> bool:
        api.post(f"/device/{node.pk}/key", body)
        return bool(api.get(f"/device/{node.pk}")["keyExpiryDisabled"])

    assert told({"keyExpiryDisabled": True}) is True
    assert told({}) is told({"keyExpiryDisabled": None}) is True
    assert told({"keyExpiryDisabled": False}) is False


def test_a_device_moves_to_an_address_that_is_free(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, stranger = people.tailnet(device_approval=False)
    node, second = factories.node(tailnet, owner), factories.node(tailnet, owner, hostname="second")
    foreign = factories.node(other, stranger)
    api = as_person(tailnet, owner)
    path = f"/device/{node.pk}/ip"
    api.post(f"/device/{second.pk}/ip", {"ipv4": "100.80.0.2"})
    version = Tailnet.objects.get(pk=tailnet.pk).netmap_version
    api.post(path, {"ipv4": "100.80.0.1"})
    assert Tailnet.objects.get(pk=tailnet.pk).netmap_version > version, "peers hear of it"
    assert api.get(f"/device/{node.pk}")["addresses"] == ["100.80.0.1", node.ipv6]
    event = last_event(tailnet)
    assert (event.target_property, event.old, event.new) == ("IP_ADDRESS", node.ipv4, "100.80.0.1")
    api.post(path, {"ipv4": "100.80.0.1"})
    api.post(path, {})
    assert last_event(tailnet).pk == event.pk
    for taken in ("100.80.0.2", "100.100.100.100", "100.64.0.0", "100.127.255.255", "100.115.92.7"):
        assert api.refusal("POST", path, {"ipv4": taken}).status == 409, taken
    api.post(path, {"ipv4": foreign.ipv4})
    assert reread(node).ipv4 == foreign.ipv4, "each tailnet has the whole range"


# --- routes ------------------------------------------------------------------------------------------------


def test_routes_may_be_approved_before_they_are_offered(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)
    routes = f"/device/{node.pk}/routes"
    offer(node, "10.0.0.0/8", "10.1.0.0/16")
    assert api.get(routes) == {"advertisedRoutes": ["10.0.0.0/8", "10.1.0.0/16"], "enabledRoutes": []}
    wanted = {"routes": ["192.168.1.0/24", "10.0.0.0/8"]}
    told = {
        "advertisedRoutes": ["10.0.0.0/8", "10.1.0.0/16"],
        "enabledRoutes": ["10.0.0.0/8", "192.168.1.0/24"],
    }
    assert api.post(routes, wanted) == api.get(routes) == told
    event = last_event(tailnet)
    assert (event.target_property, event.old, event.new) == ("ALLOWED_IPS", [], told["enabledRoutes"])
    device = api.get(f"/device/{node.pk}?fields=all")
    assert (device["advertisedRoutes"], device["enabledRoutes"]) == tuple(told.values())
    assert approved(node) == ["10.0.0.0/8"], "what nobody offers serves nobody"
    offer(node, "192.168.1.0/24")
    assert approved(node) == ["192.168.1.0/24"]
    offer(node, "10.0.0.0/8", "192.168.1.0/24")
    assert approved(node) == ["10.0.0.0/8", "192.168.1.0/24"], "offered again it serves again"
    assert api.post(routes, {"routes": []}) == {
        "advertisedRoutes": ["10.0.0.0/8", "192.168.1.0/24"],
        "enabledRoutes": [],
    }
    offer(node)
    offer(node, "10.0.0.0/8")
    assert approved(node) == []
    with scope(tailnet=tailnet):
        assert Route.objects.get().waits, "a new offer asks anew"


def approved(node: Node) -> list[str]:
    with scope(tailnet=node.tailnet):
        found = Route.objects.filter(node=node, approved_at__isnull=False).order_by("prefix")
        return list(found.values_list("prefix", flat=True))


def test_an_approval_that_a_person_withdraws_does_not_come_back(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)
    offer(node, "10.0.0.0/8", "10.1.0.0/16")
    api.post(f"/device/{node.pk}/routes", {"routes": ["10.0.0.0/8", "10.1.0.0/16", "10.2.0.0/16"]})
    with scope(tailnet=tailnet):
        set_route(node=node, prefix="10.0.0.0/8", approved=False, by=Actor.person(owner))
    enabled = ["10.1.0.0/16", "10.2.0.0/16"]
    assert api.get(f"/device/{node.pk}/routes")["enabledRoutes"] == enabled
    offer(node)
    offer(node, "10.0.0.0/8", "10.2.0.0/16")
    assert approved(node) == ["10.2.0.0/16"]


def test_routes_are_prefixes_that_somebody_can_carry(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)
    routes = f"/device/{node.pk}/routes"
    for wrong in ("10.0.0.1/8", "10.0.0.0/33", "::::/8", "100.64.0.0/16", "fd7a:115c:a1e0::/100", "1.2.3/8"):
        refused = api.refusal("POST", routes, {"routes": ["10.0.0.0/8", wrong]})
        assert (refused.status, wrong in refused.message) == (409, True), wrong
    assert api.get(routes)["enabledRoutes"] == []
    assert api.post(routes, {"routes": ["FD00::/16", "0.0.0.0/0"]})["enabledRoutes"] == [
        "0.0.0.0/0",
        "::/0",
        "fd00::/16",
    ]
    assert api.post(routes, {"routes": None})["enabledRoutes"] == []


def test_a_removed_device_is_gone(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = factories.node(tailnet, owner)
    api = as_person(tailnet, owner)
    api.delete(f"/device/{node.stable_id}")
    assert last_event(tailnet).action == "DELETE"
    assert api.refusal("DELETE", f"/device/{node.stable_id}").status == 404
    assert api.get(DEVICES) == {"devices": []}
