"""The list's rarer filters, the paths that it shows, and what may be chosen in it."""

from __future__ import annotations

import csv
import io
import re
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
from nodes.history import LENGTH
from nodes.listing import DeviceQuery
from nodes.models import Node
from nodes.pathwords import paths_of
from nodes.services import lifecycle
from nodes.services.paths import record_paths
from nodes.services.presence import claim_presence
from nodes.versions import parse_version
from nodes.views import export
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files
from wire.paths import PeerPath, Reason

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

NAME = re.compile(r'class="thing-name"[^>]*>([^<]+)<')


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def names(page: Any) -> list[str]:
    return sorted(NAME.findall(page.content.decode()))


def client(tailnet: Tailnet, owner: User, hostname: str, **hostinfo: str) -> Node:
    told = {"Hostname": hostname, "OS": "linux", **hostinfo}
    return machines.node(tailnet, owner, hostname=hostname, preapproved=True, hostinfo=told)


def aged(node: Node, days: int, **seen: int) -> None:
    """As if it had joined, and been seen, so many days ago."""
    now = timezone.now()
    with scope(tailnet=node.tailnet_id):
        Node.objects.filter(pk=node.pk).update(
            created=now - timedelta(days=days),
            last_login=now - timedelta(days=days),
            last_seen=now - timedelta(days=seen["seen"]) if "seen" in seen else None,
        )


# --- filters ---------------------------------------------------------------------------------------------


def test_a_tag_is_matched_whole(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    machines.node(tailnet, None, hostname="web", preapproved=True, tags=["tag:web", "tag:eu"])
    machines.node(tailnet, None, hostname="web2", preapproved=True, tags=["tag:web2"])
    machines.node(tailnet, owner, hostname="laptop", preapproved=True)
    page = Visitor(owner).get("/devices?tag=tag:web")
    assert names(page) == ["web"]
    assert page.context["tags"] == ["tag:eu", "tag:web", "tag:web2"]
    assert names(Visitor(owner).get("/devices?tag=%25")) == ["laptop", "web", "web2"]  # no tag: left out
    assert names(Visitor(owner).get("/devices?owner=people")) == ["laptop"]


def test_old_versions_are_those_below_the_newest_of_their_kind(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    client(tailnet, owner, "new", IPNVersion="1.90.2-t1a2b")
    client(tailnet, owner, "old", IPNVersion="1.88.0-t1a2b")
    client(tailnet, owner, "newest-phone", OS="android", IPNVersion="1.88.0-t1a2b")
    client(tailnet, owner, "trenza", App="trenza", IPNVersion="0.1.0")
    client(tailnet, owner, "trenza-old", App="trenza", IPNVersion="0.0.9")
    client(tailnet, owner, "odd", IPNVersion="unknown")
    client(tailnet, owner, "silent")
    assert names(Visitor(owner).get("/devices?version=old")) == ["old", "trenza-old"]


@pytest.mark.parametrize(
    ("text", "numbers"), [("1.90.2-t1", (1, 90, 2)), ("1.90", (1, 90, 0)), ("", None), ("v1", None)]
)
def test_versions_are_read_as_numbers(text: str, numbers: tuple[int, int, int] | None) -> None:
    assert parse_version(text) == numbers


def test_devices_that_use_an_exit_node(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    client(tailnet, owner, "uses", ExitNodeID="n123CNTRL")
    client(tailnet, owner, "used", ExitNodeID="")
    client(tailnet, owner, "never")
    assert names(Visitor(owner).get("/devices?exit=uses")) == ["uses"]


def test_not_seen_for_days_counts_joining_and_being_online(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    nodes = {h: client(tailnet, owner, h) for h in ("fresh", "never", "long", "lately", "online", "leased")}
    for hostname in ("never", "long", "lately", "online", "leased"):
        aged(nodes[hostname], 100, **({"long": {"seen": 40}, "lately": {"seen": 20}}.get(hostname, {})))
    claim_presence(tailnet=tailnet, node_id=nodes["online"].pk, worker="w")
    then = timezone.now() - timedelta(days=5)
    claim_presence(tailnet=tailnet, node_id=nodes["leased"].pk, worker="w", now=then)
    visitor = Visitor(owner)
    assert names(visitor.get("/devices?seen=30")) == ["long", "never"]
    assert names(visitor.get("/devices?seen=1")) == ["lately", "leased", "long", "never"]
    assert names(visitor.get("/devices?seen=-1")) == sorted(nodes)
    assert names(visitor.get(f"/devices?seen={'9' * 30}")) == sorted(nodes)
    assert "Not seen for 45 days" in visitor.get("/devices?seen=45").content.decode()


def test_a_query_is_its_url() -> None:
    values = {
        "q": "a b&c", "state": "online", "owner": "people", "os": "linux", "tag": "tag:web",
        "version": "old", "exit": "uses", "seen": "30", "sort": "-seen",
    }  # fmt: skip
    query = DeviceQuery.parse(values)
    assert query.url == (
        "q=a+b%26c&state=online&owner=people&os=linux&tag=tag%3Aweb&version=old&exit=uses&seen=30&sort=-seen"
    )
    assert query.more == 4
    assert DeviceQuery.parse({"page": "3", "sort": "nonsense", "q": "\x00"}).url == ""


# --- paths -----------------------------------------------------------------------------------------------


def shown_path(visitor: Visitor, node: Node) -> str:
    """The path's word, icon and title in a device's row."""
    row = visitor.fragment(f"/devices/{node.stable_id}/row").content.decode()
    found = re.search(r'<span class="path-word path-(\w+)" title="([^"]*)">.*?#([\w-]+)"', row)
    return "" if found is None else f"{found[1]} {found[3]}: {found[2]}"


def test_a_row_shows_by_which_path_a_device_talks(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web, far = (client(tailnet, owner, hostname) for hostname in ("box", "web", "far"))
    visitor = Visitor(owner)
    claim_presence(tailnet=tailnet, node_id=box.pk, worker="w")
    assert shown_path(visitor, box) == ""
    direct = PeerPath(node_id=web.pk, endpoint="203.0.113.7:1")
    relayed = PeerPath(node_id=far.pk, derp_region=900, reason=Reason.SILENT)
    idle = PeerPath(node_id=far.pk, derp_region=900, reason=Reason.IDLE)
    now = timezone.now()
    told = {
        (): "idle clock-pause: 0 directly, 0 through a relay",
        (idle,): "idle clock-pause: 0 directly, 0 through a relay",
        (direct, idle): "direct arrows-exchange: 1 directly, 0 through a relay",
        (direct, relayed): "relayed cloud: 1 directly, 1 through a relay",
    }
    for minutes, (paths, words) in enumerate(told.items()):
        moment = now + timedelta(minutes=minutes)
        assert record_paths(tailnet=tailnet, node_id=box.pk, paths=paths, now=moment)
        assert shown_path(visitor, box) == words
    # The others do not say anything themselves; what box says of them counts while they are connected.
    assert shown_path(visitor, far) == ""
    claim_presence(tailnet=tailnet, node_id=far.pk, worker="w")
    assert shown_path(visitor, far).startswith("relayed cloud: 0 directly, 1 through a relay (by what other")


def test_what_an_absent_peer_said_does_not_count(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    box, web = (client(tailnet, owner, hostname) for hostname in ("box", "web"))
    path = PeerPath(node_id=web.pk, endpoint="203.0.113.7:1")
    assert record_paths(tailnet=tailnet, node_id=box.pk, paths=[path])
    with scope(tailnet=tailnet):
        assert web.pk not in paths_of([web.pk], timezone.now())


# --- choosing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "actions"),
    [
        (Role.ADMIN, ["approve", "reject", "expire", "keep-key", "let-expire", "delete"]),
        (Role.IT_ADMIN, ["approve", "reject", "expire", "keep-key", "let-expire", "delete"]),
        (Role.NETWORK_ADMIN, []),
        (Role.AUDITOR, []),
        (Role.MEMBER, ["expire", "delete"]),
    ],
)
def test_only_what_the_role_includes_is_offered(
    place: tuple[Tailnet, User], role: Role, actions: list[str]
) -> None:
    tailnet, _ = place
    person = factories.member(tailnet, role)
    client(tailnet, person.user, "mine")
    page = Visitor.of(person).get("/devices").content.decode()
    assert re.findall(r'name="action" value="([\w-]+)"', page) == actions
    assert ('class="pick-one"' in page) == bool(actions)


def test_each_device_has_its_own_menu(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    nodes = [client(tailnet, owner, f"box{number}") for number in range(3)]
    page = Visitor(owner).get("/devices").content.decode()
    for node in nodes:
        assert page.count(f'href="/devices/{node.stable_id}/rename"') == 1
        assert page.count(f'hx-target="#node-{node.pk}"') == 1
    assert "\ue000" not in page
    assert "\ue001" not in page


# --- the list as a file ------------------------------------------------------------------------------------


def table(answer: Any) -> list[dict[str, str]]:
    """The file's lines by their heads."""
    text = b"".join(answer.streaming_content).decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_file_has_what_the_filter_selects_in_its_order(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    for hostname in ("xx1", "xx2", "yy1"):
        client(tailnet, owner, hostname, IPNVersion="1.90.2-t1")
    machines.node(tailnet, None, hostname="xx3", preapproved=True, tags=["tag:x", "tag:y"])
    answer = Visitor(owner).get("/devices/export.csv?q=xx&sort=-name")
    assert answer["Content-Type"] == "text/csv; charset=utf-8"
    assert f'filename="{tailnet.name}-devices-' in answer["Content-Disposition"]
    rows = table(answer)
    assert [row["name"] for row in rows] == ["xx3", "xx2", "xx1"]
    assert rows[0]["tags"] == "tag:x tag:y"
    assert (rows[1]["owner"], rows[1]["client_version"], rows[1]["state"]) == (
        owner.login_name,
        "1.90.2",
        "offline",
    )


@pytest.mark.parametrize("begin", ["=", "+", "-", "@", "\t", "\r", " =", "\n"])
def test_a_cell_is_no_formula(place: tuple[Tailnet, User], begin: str) -> None:
    tailnet, owner = place
    node = client(tailnet, owner, "box")
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(notes=f'{begin}HYPERLINK("https://x.example","é")')
    (row,) = table(Visitor(owner).get("/devices/export.csv"))
    assert row["notes"] == f'\'{begin}HYPERLINK("https://x.example","é")'


def test_the_file_has_a_bound_and_says_so(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, owner = place
    monkeypatch.setattr(export, "MAX_ROWS", 4)
    monkeypatch.setattr(export, "PIECE", 3)
    for number in range(4):
        client(tailnet, owner, f"n{number}")
    visitor = Visitor(owner)
    assert len(table(visitor.get("/devices/export.csv"))) == 4
    client(tailnet, owner, "n4")
    assert [row["name"] for row in table(visitor.get("/devices/export.csv"))][3:] == [
        "n3",
        "Only the first 4 devices are here: filter the list.",
    ]


def test_a_member_gets_their_own_devices_in_the_file(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = factories.member(tailnet)
    client(tailnet, owner, "theirs")
    client(tailnet, member.user, "mine")
    assert [row["name"] for row in table(Visitor.of(member).get("/devices/export.csv"))] == ["mine"]


# --- cleaning up -------------------------------------------------------------------------------------------


def test_cleaning_up_shows_those_long_unseen_and_leads_to_the_dialog(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    old, fresh, online = (client(tailnet, owner, hostname) for hostname in ("old", "fresh", "online"))
    tagged = machines.node(tailnet, None, hostname="tagged", preapproved=True, tags=["tag:a"])
    for node in (old, online, tagged):
        aged(node, 100)
    claim_presence(tailnet=tailnet, node_id=online.pk, worker="w")
    visitor = Visitor(owner)
    page = visitor.fragment("/devices/clean-up")
    assert names(page) == ["old"]
    assert names(visitor.fragment("/devices/clean-up?days=101")) == []
    assert names(visitor.fragment("/devices/clean-up?tagged=1&days=99")) == ["old", "tagged"]
    assert names(visitor.fragment("/devices/clean-up?days=x")) == ["old"]
    query = re.search(r'name="query" value="([^"]*)"', page.content.decode())
    assert query is not None
    values = {"action": "delete", "all": "1", "query": query[1].replace("&amp;", "&")}
    dialog = visitor.submit("/devices/bulk", page="/devices", **values).content.decode()
    assert "Delete 1 device?" in dialog
    assert f'name="ids" value="{old.pk}"' in dialog
    assert fresh.name not in dialog


def test_who_deletes_nothing_cleans_nothing_up(place: tuple[Tailnet, User]) -> None:
    tailnet, _ = place
    for role, status in ((Role.AUDITOR, 404), (Role.NETWORK_ADMIN, 404), (Role.MEMBER, 200)):
        assert Visitor.of(factories.member(tailnet, role)).get("/devices/clean-up").status_code == status


# --- notes, tags, history ----------------------------------------------------------------------------------


def test_notes_are_written_kept_and_told(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = client(tailnet, owner, "box")
    visitor, path = Visitor(owner), f"/devices/{node.stable_id}"
    text = "Rack 4, left.\n<b>Ask</b> Marta & Ana"
    saved = visitor.submit(f"{path}/notes", page=path, notes=text)
    assert saved["HX-Retarget"] == "#device"
    assert "Rack 4, left.<br>&lt;b&gt;Ask&lt;/b&gt; Marta &amp; Ana" in saved.content.decode()
    too_long = visitor.submit(f"{path}/notes", page=path, notes="x" * 4001)
    assert too_long.status_code == 422
    with scope(tailnet=tailnet):
        assert Node.objects.get(pk=node.pk).notes == text
        event = AuditEvent.objects.get(target_property="NOTES")
        assert (event.old, event.new) == ("", text)
    visitor.submit(f"{path}/notes", notes="")
    assert "Write notes" in visitor.get(path).content.decode()


def test_tags_take_a_device_from_its_person_and_say_so_first(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = client(tailnet, owner, "box")
    visitor, path = Visitor(owner), f"/devices/{node.stable_id}"
    before = Tailnet.objects.get(pk=tailnet.pk).netmap_version
    assert "its key never ends" in visitor.fragment(f"{path}/tags").content.decode()
    for wrong, words in (("", "required"), ("tag:1x", "starts with a letter"), ("-", "starts with a letter")):
        refused = visitor.submit(f"{path}/tags", page="/devices", tags=wrong)
        assert refused.status_code == 422
        assert words in refused.content.decode()
    assert visitor.submit(f"{path}/tags", page="/devices", tags="web, tag:eu").status_code == 200
    with scope(tailnet=tailnet):
        row = Node.objects.get(pk=node.pk)
        assert (row.tags, row.user) == (["tag:eu", "tag:web"], None)
    assert Tailnet.objects.get(pk=tailnet.pk).netmap_version > before
    assert "its key never ends" not in visitor.fragment(f"{path}/tags").content.decode()


@pytest.mark.parametrize("action", ["notes", "tags"])
@pytest.mark.parametrize(
    ("role", "status"),
    [
        (Role.ADMIN, 200),
        (Role.IT_ADMIN, 200),
        (Role.NETWORK_ADMIN, 403),
        (Role.AUDITOR, 403),
        (Role.MEMBER, 404),
        (Role.BILLING_ADMIN, 404),
    ],
)
def test_who_may_write_notes_and_tags(
    place: tuple[Tailnet, User], role: Role, status: int, action: str
) -> None:
    tailnet, owner = place
    node = client(tailnet, owner, "box")
    visitor = Visitor.of(factories.member(tailnet, role))
    path = f"/devices/{node.stable_id}/{action}"
    assert visitor.submit(path, page="/devices", notes="n", tags="tag:a").status_code == status
    assert visitor.fragment(path).status_code == status


def test_a_long_history_is_read_page_by_page(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = client(tailnet, owner, "box")
    other = client(tailnet, owner, "other")
    for number in range(LENGTH * 2):
        node = lifecycle.rename_node(node=node, name=f"name-{number}", by=Actor.person(owner))
        lifecycle.set_notes(node=other, notes=f"{number}", by=Actor.person(owner))
    visitor, path = Visitor(owner), f"/devices/{node.stable_id}"
    seen: list[str] = []
    page = visitor.get(path).content.decode()
    while True:
        seen += re.findall(r"Renamed from \S+ to (\S+)\s", page)
        older = re.search(r'hx-get="(/devices/[^"]+/history\?before=\d+)"', page)
        if older is None:
            break
        page = visitor.fragment(older[1]).content.decode()
    assert seen == [f"name-{number}" for number in reversed(range(LENGTH * 2))]
    assert "Joined the tailnet" in page
    assert visitor.get(f"{path}?before=x").status_code == 200


def test_the_history_is_of_the_log_and_for_those_who_see_it(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    member = factories.member(tailnet)
    node = client(tailnet, member.user, "mine")
    assert Visitor.of(member).get(f"/devices/{node.stable_id}/history").status_code == 404
    assert Visitor(owner).get(f"/devices/{node.stable_id}/history").status_code == 200


def test_a_silent_clients_connections_are_known_from_its_peers(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    silent, direct, relayed, away = (
        client(tailnet, owner, h) for h in ("silent", "direct", "relayed", "away")
    )
    path = f"/devices/{silent.stable_id}"
    said = {
        direct: PeerPath(node_id=silent.pk, endpoint="203.0.113.7:1", latency_ms=12),
        relayed: PeerPath(node_id=silent.pk, derp_region=900, reason=Reason.HARD_NAT_HERE),
        away: PeerPath(node_id=silent.pk, endpoint="203.0.113.9:1"),
    }
    for node, one in said.items():
        assert record_paths(tailnet=tailnet, node_id=node.pk, paths=[one])
        if node is not away:
            claim_presence(tailnet=tailnet, node_id=node.pk, worker="w")
    visitor = Visitor(owner)
    assert 'id="connections"' not in visitor.get(path).content.decode()  # it is not connected itself
    claim_presence(tailnet=tailnet, node_id=silent.pk, worker="w")
    page = visitor.get(path).content.decode()
    assert page.count("by what the other device says") == 2
    assert "203.0.113" not in page  # those are this device's own addresses, as the others see it
    assert "12 ms" in page
    assert "The NAT of the other device&#x27;s network is hard" in page
    assert f'href="/devices/{away.stable_id}"' not in page


def test_regions_have_the_names_that_the_tailnet_knows(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, _ = factories.tailnet()
    values = {"region_code": "x", "host_name": "relay.example.com", "derp_port": 443, "stun_port": 3478}
    for number, name, of in ((901, "Madrid", None), (950, "Cellar", tailnet), (951, "Secret", other)):
        Relay.objects.create(
            region_id=number, region_name=name, node_name=f"{number}a", token_hash=name, tailnet=of, **values
        )
    told = {f"{number}-v4": 0.01 for number in (901, 950, 951)}
    info = {"Hostname": "box", "OS": "linux", "NetInfo": {"DERPLatency": told}}
    node = machines.node(tailnet, owner, hostname="box", hostinfo=info)
    page = Visitor(owner).get(f"/devices/{node.stable_id}").content.decode()
    for text in ("Madrid: 10.0 ms", "Cellar: 10.0 ms", "Region 951: 10.0 ms"):
        assert text in page
    assert "Secret" not in page


@pytest.mark.parametrize(
    "path",
    [
        "/devices?version=old&seen=0",
        "/devices?seen=30&sort=-seen",
        "/devices/clean-up?days=1&tagged=1",
        "/search/results?q=n",
        "/search",
    ],
)
def test_a_page_costs_the_same_queries_in_a_large_tailnet(place: tuple[Tailnet, User], path: str) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)

    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert visitor.get(path).status_code == 200
        return len(captured)

    def more(begin: int, end: int) -> None:
        for number in range(begin, end):
            node = client(tailnet, owner, f"n{number}", IPNVersion=f"1.{number % 7}.0")
            aged(node, 100)
            if number % 2:
                claim_presence(tailnet=tailnet, node_id=node.pk, worker="w")
                record_paths(tailnet=tailnet, node_id=node.pk, paths=[PeerPath(node_id=node.pk - 1)])

    more(0, 12)
    few = cost()
    more(12, 70)
    assert cost() == few
