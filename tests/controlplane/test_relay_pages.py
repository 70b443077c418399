"""The relays page: a tailnet's own relays in the hands of its people, states, gauges, latencies."""

from __future__ import annotations

import re
import subprocess
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane.models import Relay
from controlplane.services.latencies import Matrix, Row, latency_matrix, make_matrix
from controlplane.services.ownrelays import FIRST_TAILNET_REGION, MAX_OWN_RELAYS
from controlplane.services.relays import RelayIdentity, ensure_embedded_relay, record_report, relay_of_token
from controlplane.snapshots import load_derp_map
from controlplane.views import relays as views
from nodes.hostinfo import region_seconds
from nodes.models import Node
from relay.config import parse_config
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files
from wire.keys import NodePublic

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

FIELDS = {"name": "Madrid", "host": "relay.example.com", "derp_port": "443", "stun_port": "3478"}
HELLO = {"type": "hello", "derp_key": str(NodePublic(bytes(range(32)))), "cert_fingerprint": "ab" * 32}


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def shown(page: Any, name: str) -> str:
    """What a sheet has in the command with this id."""
    found = re.search(rf'<pre id="{name}"[^>]*>(.*?)</pre>', page.content.decode(), re.S)
    assert found is not None
    return unescape(found[1])


def added(visitor: Visitor, **fields: str) -> tuple[Relay, str]:
    """A new relay and its token."""
    page = visitor.submit("/relays/add", page="/relays", **(FIELDS | fields))
    assert page.status_code == 200, page.content.decode()
    return Relay.objects.latest("pk"), shown(page, "relay-token")


def says_hello(relay: Relay) -> None:
    record_report(relay=RelayIdentity(relay.pk, relay.tailnet_id), report=HELLO)


def regions(tailnet: Tailnet) -> dict[int, str]:
    return {number: region.region_name for number, region in load_derp_map(tailnet.pk).regions.items()}


# --- adding ----------------------------------------------------------------------------------------------


def test_a_new_relays_token_is_shown_once_and_proves_it(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    relay, token = added(visitor)
    assert relay_of_token(token) == RelayIdentity(relay.pk, tailnet.pk)
    assert (relay.region_id, relay.region_code) == (FIRST_TAILNET_REGION, "madrid")
    assert token not in relay.token_hash
    page = visitor.get("/relays").content.decode()
    assert token not in page
    assert "Not connected yet" in page
    assert "this tailnet's own" in page


def test_the_settings_shown_are_those_of_a_relay(place: tuple[Tailnet, User]) -> None:
    page = Visitor(place[1]).submit("/relays/add", page="/relays", **(FIELDS | {"stun_port": ""}))
    lines = dict(line.split("=", 1) for line in shown(page, "relay-settings").splitlines())
    config = parse_config(lines)
    assert (config.token, config.hosts) == (shown(page, "relay-token"), ("relay.example.com",))
    assert (config.listen.port, config.stun) == (443, None)
    assert config.control_url
    install = shown(page, "relay-install")
    assert shown(page, "relay-settings") in install
    inner = install.partition("<<'END'\n")[2].removesuffix("END")
    for script in (install, inner):
        subprocess.run(["sh", "-n"], input=script, text=True, check=True)
    assert "/download/trenza-relay.service" in install


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", " "),
        ("name", "x" * 61),
        ("host", "not a host"),
        ("host", "0.0.0.0"),
        ("host", "ff02::1"),
        ("host", "fe80::1%eth0"),
        ("host", "$(reboot).example.com"),
        ("host", "1.2.3"),
        ("derp_port", "0"),
        ("derp_port", "65536"),
        ("stun_port", "x"),
    ],
)
def test_what_cannot_be_is_said_in_the_dialog(place: tuple[Tailnet, User], field: str, value: str) -> None:
    answer = Visitor(place[1]).submit("/relays/add", page="/relays", **(FIELDS | {field: value}))
    assert answer.status_code == 422
    assert 'aria-invalid="true"' in answer.content.decode()
    assert not Relay.objects.exists()


def test_there_is_a_bound_and_each_has_a_region_and_a_code_of_its_own(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    for _ in range(MAX_OWN_RELAYS):
        added(visitor)
    mine = Relay.objects.filter(tailnet=place[0])
    assert len(set(mine.values_list("region_id"))) == MAX_OWN_RELAYS
    assert len(set(mine.values_list("region_code"))) == MAX_OWN_RELAYS
    assert visitor.submit("/relays/add", page="/relays", **FIELDS).status_code == 422
    assert mine.count() == MAX_OWN_RELAYS


def test_two_tailnets_may_have_the_same_region(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    for visitor in (Visitor(place[1]), Visitor(stranger)):
        says_hello(added(visitor)[0])
    assert regions(place[0]) == regions(other) == {FIRST_TAILNET_REGION: "Madrid"}


# --- what devices are told -------------------------------------------------------------------------------


def test_a_relay_enters_the_map_of_its_tailnet_when_it_has_connected(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, _ = factories.tailnet()
    relay, _ = added(Visitor(owner))
    assert regions(tailnet) == {}
    before = {one.pk: one.netmap_version for one in Tailnet.objects.all()}
    says_hello(relay)
    assert regions(tailnet) == {FIRST_TAILNET_REGION: "Madrid"}
    assert regions(other) == {}
    (node,) = load_derp_map(tailnet.pk).regions[FIRST_TAILNET_REGION].nodes
    assert (node.host_name, node.derp_port, node.pinned_sha256) == ("relay.example.com", 443, "ab" * 32)
    after = {one.pk: one.netmap_version for one in Tailnet.objects.all()}
    assert after == before | {tailnet.pk: before[tailnet.pk] + 1}


def test_a_relay_is_switched_off_and_on_renamed_and_removed(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    relay, token = added(visitor)
    says_hello(relay)
    path = f"/relays/{relay.pk}"
    assert "Devices stop using it at once" in visitor.fragment(f"{path}/enabled").content.decode()
    off = visitor.submit(f"{path}/enabled", page="/relays", on="0")
    assert "Switched off" in off.content.decode()
    assert regions(tailnet) == {}
    assert relay_of_token(token) is not None, "it stays connected"
    visitor.submit(f"{path}/enabled", page="/relays", on="1")
    visitor.submit(f"{path}/rename", page="/relays", name="Lisboa")
    assert regions(tailnet) == {FIRST_TAILNET_REGION: "Lisboa"}
    assert visitor.submit(f"{path}/rename", page="/relays", name="").status_code == 422
    assert "cannot be undone" in visitor.fragment(f"{path}/remove").content.decode()
    assert visitor.submit(f"{path}/remove", page="/relays").status_code == 200
    assert regions(tailnet) == {}
    assert relay_of_token(token) is None
    with scope(tailnet=tailnet):
        events = AuditEvent.objects.filter(target_type="RELAY").order_by("pk")
        told = list(events.values_list("action", "target_property", "old", "new"))
    assert [event[:2] for event in told] == [
        ("CREATE", ""),
        ("UPDATE", "ENABLED"),
        ("UPDATE", "ENABLED"),
        ("UPDATE", "NAME"),
        ("DELETE", ""),
    ]
    assert told[3][2:] == ("Madrid", "Lisboa")
    assert token not in str(told)


def test_a_new_token_takes_the_place_of_the_old_one(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    relay, old = added(visitor)
    assert "within seconds" in visitor.fragment(f"/relays/{relay.pk}/token").content.decode()
    new = shown(visitor.submit(f"/relays/{relay.pk}/token", page="/relays"), "relay-token")
    assert relay_of_token(old) is None
    assert relay_of_token(new) == RelayIdentity(relay.pk, place[0].pk)


# --- who may ---------------------------------------------------------------------------------------------

ACTIONS = ("rename", "enabled", "token", "remove")


@pytest.mark.parametrize(
    ("role", "may"),
    [
        (Role.ADMIN, True),
        (Role.NETWORK_ADMIN, True),
        (Role.IT_ADMIN, False),
        (Role.AUDITOR, False),
        (Role.MEMBER, False),
        (Role.BILLING_ADMIN, False),
    ],
)
def test_who_may_change_relays(place: tuple[Tailnet, User], role: Role, may: bool) -> None:
    relay, _ = added(Visitor(place[1]))
    visitor = Visitor.of(factories.member(place[0], role))
    expected = 200 if may else 404
    assert visitor.get("/relays/add").status_code == expected
    for action in ACTIONS:
        assert visitor.get(f"/relays/{relay.pk}/{action}").status_code == expected
    if not may:
        assert visitor.submit("/relays/add", **FIELDS).status_code == 404
        for action in ACTIONS:
            assert visitor.submit(f"/relays/{relay.pk}/{action}", on="0", name="x").status_code == 404
    assert Relay.objects.get(pk=relay.pk).region_name == "Madrid"


def test_server_wide_relays_and_other_tailnets_are_nobodys_to_change(place: tuple[Tailnet, User]) -> None:
    theirs, _ = added(Visitor(factories.tailnet()[1]), name="Secret place")
    embedded = ensure_embedded_relay()
    visitor = Visitor(place[1])
    for relay in (theirs, embedded):
        for action in ACTIONS:
            assert visitor.get(f"/relays/{relay.pk}/{action}").status_code == 404
            assert visitor.submit(f"/relays/{relay.pk}/{action}", on="0", name="x").status_code == 404
    page = visitor.get("/relays").content.decode()
    assert "Secret place" not in page
    assert "runs with this server" in page
    assert "open-relay-" not in page
    assert set(Relay.objects.values_list("pk", flat=True)) == {theirs.pk, embedded.pk}


# --- what is shown ---------------------------------------------------------------------------------------


def relay(region: int = 900, **values: Any) -> Relay:
    """A row as an operator's relay leaves it."""
    given: dict[str, Any] = {
        "region_id": region,
        "region_code": f"r{region}",
        "region_name": f"Region {region}",
        "node_name": f"{region}a",
        "host_name": f"relay{region}.example.com",
        "token_hash": f"{region}",
    }
    return Relay.objects.create(**(given | values))


def test_no_relay_yet(place: tuple[Tailnet, User]) -> None:
    assert "No relay yet" in Visitor(place[1]).get("/relays").content.decode()


def test_a_relay_is_up_while_it_reports(place: tuple[Tailnet, User]) -> None:
    now = timezone.now()
    stats = {"clients": 1234, "bytes_in": 1500, "bytes_out": 2_500_000, "drops": 7}
    relay(900, connected_at=now, last_seen=now, stats=stats)
    relay(901, connected_at=now, last_seen=now - timedelta(minutes=1), stats=stats)
    relay(902, last_seen=now)
    relay(903)
    page = Visitor(place[1]).get("/relays")
    text = page.content.decode()
    states = [row.state for row in page.context["rows"]]
    assert states == [views.UP, views.SILENT, views.SILENT, views.NEW]
    for words in ("1/4", "1,234", "2.5 MB", "Not answering", "Not connected yet", "relay900.example.com:"):
        assert words in text, words


def test_counters_that_make_no_sense_are_shown_as_nothing(place: tuple[Tailnet, User]) -> None:
    now = timezone.now()
    for number, stats in enumerate(({}, [], {"clients": "many", "bytes_in": None}, {"clients": True})):
        relay(900 + number, connected_at=now, last_seen=now, stats=stats)
    assert Visitor(place[1]).get("/relays").status_code == 200


def test_a_tailnets_own_relay_is_nobody_elses(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    relay(900)
    relay(950, tailnet=other, region_name="Their own")
    assert "Their own" not in Visitor(place[1]).get("/relays").content.decode()
    assert "Their own" in Visitor(stranger).get("/relays").content.decode()


@pytest.mark.parametrize(
    ("role", "status"),
    [(Role.ADMIN, 200), (Role.AUDITOR, 200), (Role.MEMBER, 404), (Role.BILLING_ADMIN, 404)],
)
def test_who_sees_the_relays(place: tuple[Tailnet, User], role: Role, status: int) -> None:
    assert Visitor.of(factories.member(place[0], role)).get("/relays").status_code == status


def test_htmx_gets_the_relays_alone(place: tuple[Tailnet, User]) -> None:
    fragment = Visitor(place[1]).fragment("/relays", target="relays", page="/relays").content.decode()
    assert fragment.lstrip().startswith('<div id="relays"')


# --- gauges ----------------------------------------------------------------------------------------------


def test_reports_become_gauges(place: tuple[Tailnet, User]) -> None:
    relay = ensure_embedded_relay()
    identity = RelayIdentity(relay.pk, None)
    record_report(relay=identity, report=HELLO)
    Relay.objects.update(enabled=True)
    for sent in (1_000_000, 11_000_000):
        Relay.objects.update(last_seen=timezone.now() - timedelta(seconds=5))
        record_report(relay=identity, report={"type": "stats", "clients": 7, "bytes_out": sent, "drops": 3})
    stats = Relay.objects.get().stats
    assert 1_500_000 < stats["rate"] <= 2_000_000
    page = Visitor(place[1]).get("/relays").content.decode()
    for words in ("11.0 MB", "MB/s", '<meter min="0" max="7" value="7"'):
        assert words in page
    record_report(relay=identity, report={"type": "stats", "clients": 0, "bytes_out": 5})
    assert Relay.objects.get().stats["rate"] == 0, "it has been started anew"


def test_a_silent_relay_is_said_to_be_silent(place: tuple[Tailnet, User]) -> None:
    relay, _ = added(Visitor(place[1]))
    says_hello(relay)
    assert "Up</span>" in Visitor(place[1]).get("/relays").content.decode()
    Relay.objects.update(last_seen=timezone.now() - timedelta(minutes=1))
    assert "Not answering" in Visitor(place[1]).get("/relays").content.decode()


# --- latencies -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reported", "taken"),
    [
        ({"900-v4": 0.02, "900-v6": 0.01, "910-v4": 0.5}, {900: 0.01, 910: 0.5}),
        ({"900-v4": "fast", "x-v4": 1, "910-v4": -1, "911-v4": True, "912-v4": 1e9}, {}),
        ({"²-v4": 0.1}, {}),
        ([1], {}),
        (None, {}),
    ],
)
def test_latencies_are_read_with_doubt(reported: Any, taken: dict[int, float]) -> None:
    assert region_seconds(reported) == taken


def test_medians_are_of_the_devices_at_home_in_a_region() -> None:
    matrix = make_matrix(
        [
            (900, {900: 0.010, 910: 0.100}),
            (900, {900: 0.030}),
            (910, {900: 0.200, 910: 0.004}),
            (910, {}),
        ]
    )
    assert matrix == Matrix(
        regions=[900, 910],
        rows=[
            Row(home=0, devices=3, medians={900: 30.0, 910: 52.0}),
            Row(home=900, devices=2, medians={900: 20.0, 910: 100.0}),
            Row(home=910, devices=1, medians={900: 200.0, 910: 4.0}),
        ],
    )
    assert make_matrix([]) == Matrix(regions=[], rows=[])


def measured(tailnet: Tailnet, owner: User, hostname: str, latency: float) -> Node:
    net = {"PreferredDERP": 900, "DERPLatency": {"900-v4": latency}}
    info = {"Hostname": hostname, "OS": "linux", "NetInfo": net}
    node = machines.node(tailnet, owner, hostname=hostname, hostinfo=info)
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(home_derp=900, hostinfo=info)
    return node


def test_the_matrix_is_this_tailnets_in_one_query(place: tuple[Tailnet, User]) -> None:
    other, stranger = factories.tailnet()
    measured(other, stranger, "far", 0.9)
    for number in range(3):
        measured(*place, f"box-{number}", 0.012)
    with scope(tailnet=place[0]), CaptureQueriesContext(connection) as captured:
        matrix = latency_matrix()
    assert len(captured) == 1
    assert matrix.rows[0] == Row(home=0, devices=3, medians={900: 12.0})
    ensure_embedded_relay()
    page = Visitor(place[1]).fragment("/relays/latency", page="/relays").content.decode()
    assert "12.0 ms" in page
    assert "3 devices" in page
    assert "900.0" not in page


def test_the_page_costs_the_same_queries_however_many_devices(place: tuple[Tailnet, User]) -> None:
    visitor, counts = Visitor(place[1]), []
    for size in (1, 6):
        for number in range(size):
            measured(*place, f"box-{size}-{number}", 0.01)
        added(visitor)
        with CaptureQueriesContext(connection) as captured:
            assert visitor.get("/relays").status_code == 200
        counts.append(len(captured))
    assert counts[0] == counts[1]
