"""What devices offer, its approval on the pages, and the exit node that a device uses."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from django.core.management import call_command

from accounts.actors import Actor
from accounts.errors import Conflict
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.tenancy import scope
from nodes.models import Node, Route
from nodes.services import exitnodes
from nodes.services.asking import NodeSilent, Reply, Why
from nodes.services.presence import claim_presence
from nodes.services.routes import set_approved_routes, set_exit_node, set_route
from nodes.services.volatile import Volatile, update_node_state
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

EXIT = ["0.0.0.0/0", "::/0"]
SWITCH = re.compile(r'role="switch"[^>]*id="([^"]+)"( checked)?')


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def router(tailnet: Tailnet, owner: User, hostname: str = "lan-a", *routes: str, **hostinfo: Any) -> Node:
    """An approved device that offers these routes (default: one subnet and being an exit node)."""
    offered = list(routes) or ["10.7.0.0/16", *EXIT]
    said = {"Hostname": hostname, "OS": "linux", "RoutableIPs": offered} | hostinfo
    return machines.node(tailnet, owner, hostname=hostname, preapproved=True, hostinfo=said)


def approved(node: Node) -> list[str]:
    with scope(tailnet=node.tailnet_id):
        found = Route.objects.filter(node=node, approved_at__isnull=False)
        return sorted(found.values_list("prefix", flat=True))


def switches(page: Any) -> dict[str, bool]:
    """The switches of a page or row: the id, and whether it is on."""
    return {name: bool(on) for name, on in SWITCH.findall(page.content.decode())}


def audited(tailnet: Tailnet, what: str) -> list[tuple[str, Any, Any]]:
    with scope(tailnet=tailnet):
        found = AuditEvent.objects.filter(target_property=what).order_by("pk")
        return [(event.actor_name, event.old, event.new) for event in found]


# --- switches --------------------------------------------------------------------------------------------


def test_one_switch_approves_and_withdraws_an_exit_node(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node, visitor = router(tailnet, owner), Visitor(owner)
    path = f"/devices/{node.stable_id}"
    assert switches(visitor.get(path)) == {"switch-exit-node": False, "switch-1": False}
    answer = visitor.submit(f"{path}/approve-exit-node", page=path, approved="1")
    assert switches(answer) == {"switch-exit-node": True, "switch-1": False}
    assert "Others may use lan-a as exit node." in answer["HX-Trigger"]
    assert approved(node) == EXIT
    assert visitor.submit(f"{path}/approve-exit-node").url == path, "a form without scripts comes back"
    assert approved(node) == []
    changes = audited(tailnet, "ALLOWED_IPS")
    assert [(old, new) for _, old, new in changes] == [([], EXIT), (EXIT, [])]
    assert {name for name, _, _ in changes} == {owner.login_name}
    history = visitor.get(path).content.decode()
    assert "Approved routes: 0.0.0.0/0, ::/0" in history
    assert "No route is approved any more" in history


def test_each_subnet_has_a_switch_of_its_own(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "lan-a", "10.7.0.0/16", "10.8.0.0/16", "fd00:7::/64", *EXIT)
    other = router(tailnet, owner, "lan-b", "10.8.0.0/16")
    visitor, path = Visitor(owner), f"/devices/{node.stable_id}"
    answer = visitor.submit(f"{path}/approve-route", page=path, prefix="10.8.0.0/16", approved="1")
    assert switches(answer)["switch-2"]
    assert approved(node) == ["10.8.0.0/16"]
    visitor.submit(f"{path}/approve-exit-node", page=path, approved="1")
    visitor.submit(f"{path}/approve-route", page=path, prefix="10.7.0.0/16", approved="1")
    visitor.submit(f"{path}/approve-route", page=path, prefix="10.8.0.0/16")
    assert approved(node) == ["0.0.0.0/0", "10.7.0.0/16", "::/0"]
    shared = visitor.submit(
        f"/devices/{other.pk}/approve-route", page=f"/devices/{other.pk}", prefix="10.8.0.0/16", approved="1"
    )
    assert "Also through" not in shared.content.decode(), "lan-a is not approved for it"
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=other.pk).update(disco_key="discokey:1")
        set_route(node=node, prefix="10.8.0.0/16", approved=True, by=Actor.command())
    page = visitor.get(path).content.decode()
    assert "Also through lan-b" in page
    assert "stands by" in page, "it has not said its disco key yet: lan-b is the only one that can"


@pytest.mark.parametrize("prefix", ["10.9.0.0/16", "", "x" * 500, "0.0.0.0/0\x00"])
def test_what_a_device_does_not_offer_is_not_approved(place: tuple[Tailnet, User], prefix: str) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "lan-a", "10.7.0.0/16")
    path = f"/devices/{node.stable_id}"
    answer = Visitor(owner).submit(f"{path}/approve-route", page=path, prefix=prefix, approved="1")
    assert answer.status_code == 409
    assert Visitor(owner).submit(f"{path}/approve-exit-node", page=path, approved="1").status_code == 409
    assert approved(node) == []


@pytest.mark.parametrize("prefix", ["100.64.0.0/10", "100.100.100.100/32", "fd7a:115c:a1e0::64:1/128"])
def test_the_tailnets_own_addresses_are_routed_by_nobody(place: tuple[Tailnet, User], prefix: str) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "thief", prefix, "fd7a:115c:a1e0:b1a:0:1:a00:0/104", "100.0.0.0/8")
    with scope(tailnet=tailnet):
        with pytest.raises(Conflict, match="own addresses"):
            set_route(node=node, prefix=prefix, approved=True, by=Actor.command())
        for beside in ("100.0.0.0/8", "fd7a:115c:a1e0:b1a:0:1:a00:0/104"):
            set_route(node=node, prefix=beside, approved=True, by=Actor.command())
    assert approved(node) == ["100.0.0.0/8", "fd7a:115c:a1e0:b1a:0:1:a00:0/104"]


def test_one_default_route_alone_makes_no_exit_node(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = router(tailnet, owner, "half", "0.0.0.0/0")
    page = Visitor(owner).get(f"/devices/{node.stable_id}")
    assert switches(page) == {"switch-1": False}
    assert "one of the two default routes only" in page.content.decode()
    with scope(tailnet=tailnet), pytest.raises(Conflict, match="does not offer itself"):
        set_exit_node(node=node, enabled=True, by=Actor.command())


def test_an_offer_that_is_withdrawn_loses_its_approval(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = router(tailnet, owner)
    with scope(tailnet=tailnet):
        set_approved_routes(node=node, prefixes=["10.7.0.0/16", *EXIT], by=Actor.command())
        set_route(node=node, prefix="::/0", approved=False, by=Actor.command())
    assert approved(node) == ["10.7.0.0/16"], "the default routes go together"
    for routes in ([], ["10.7.0.0/16"]):
        update_node_state(
            tailnet=tailnet,
            report=Volatile(node_id=node.pk, hostinfo={"Hostname": "lan-a", "RoutableIPs": routes}),
        )
    assert approved(node) == []


def test_a_command_approves_for_scripts(
    place: tuple[Tailnet, User], capsys: pytest.CaptureFixture[str]
) -> None:
    tailnet, owner = place
    node = router(tailnet, owner)

    def run(*words: str) -> Any:
        call_command("approveroutes", tailnet.name, *words, "--json")
        return json.loads(capsys.readouterr().out)

    assert run("lan-a") == {"name": "lan-a", "approved": ["0.0.0.0/0", "10.7.0.0/16", "::/0"], "waiting": []}
    assert run(node.stable_id, "0.0.0.0/0")["approved"] == EXIT
    assert run("lan-a", "10.7.0.0/16")["waiting"] == EXIT
    assert run("lan-a", "--none")["approved"] == approved(node) == []
    for words, refusal in ((["lan-a", "10.9.0.0/16"], "does not offer 10.9.0.0/16"), (["x"], "no device x")):
        with pytest.raises(SystemExit):
            call_command("approveroutes", tailnet.name, *words)
        assert refusal in capsys.readouterr().err


# --- the list --------------------------------------------------------------------------------------------


def test_the_list_says_what_waits_and_filters_by_it(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = router(tailnet, owner)
    router(tailnet, owner, "lan-b", "10.8.0.0/16", "10.9.0.0/16")
    machines.node(tailnet, owner, hostname="laptop", preapproved=True)
    visitor = Visitor(owner)
    page = visitor.get("/devices").content.decode()
    assert "2 routes wait" in page
    assert "1 route waits" in page
    assert ">4<span" in visitor.get("/approvals/badge").content.decode()
    assert visitor.get("/devices?state=routes-waiting").content.decode().count("<tr id=") == 2
    assert "/devices?state=exit-nodes" not in page, "there is none"
    answer = visitor.submit(f"/devices/{node.stable_id}/approve-exit-node", page="/devices", approved="1")
    assert answer.content.decode().lstrip().startswith("<tr id=")
    assert switches(answer) == {f"exit-node-{node.pk}": True}
    exits = visitor.get("/devices?state=exit-nodes").content.decode()
    assert exits.count("<tr id=") == 1
    visitor.submit(f"/devices/{node.pk}/approve-route", page="/devices", prefix="10.7.0.0/16", approved="1")
    assert "1 route<" in visitor.get(f"/devices/{node.pk}/row").content.decode()
    assert ">2<span" in visitor.get("/approvals/badge").content.decode()


@pytest.mark.parametrize(
    ("role", "may_approve", "may_choose"),
    [
        (Role.ADMIN, True, True),
        (Role.NETWORK_ADMIN, True, False),
        (Role.IT_ADMIN, False, True),
        (Role.AUDITOR, False, False),
        (Role.MEMBER, False, False),
    ],
)
def test_roles_are_respected(
    place: tuple[Tailnet, User], role: Role, may_approve: bool, may_choose: bool
) -> None:
    tailnet, _owner = place
    member = factories.member(tailnet, role=role)
    node = router(tailnet, member.user, App="trenza")
    visitor, path = Visitor.of(member), f"/devices/{node.stable_id}"
    for page in (visitor.get(path), visitor.get("/devices")):
        assert bool(switches(page)) is may_approve
    assert ('id="set-exit-node"' in visitor.get(path).content.decode()) is may_choose
    answers = {
        "approve-exit-node": (200 if may_approve else 403, {"approved": "1"}),
        "approve-route": (200 if may_approve else 403, {"approved": "1", "prefix": "10.7.0.0/16"}),
        "use-exit-node": (200 if may_choose else 403, {}),
    }
    for action, (status, values) in answers.items():
        assert visitor.submit(f"{path}/{action}", page=path, **values).status_code == status
    assert bool(approved(node)) is may_approve


# --- which exit node a device uses -----------------------------------------------------------------------


class Client:
    """A client's answers to what it is asked, and what it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.fails: NodeSilent | None = None
        monkeypatch.setattr(exitnodes, "ask_node", self.ask)

    def ask(self, *, node: Node, path: str, body: Any) -> Reply:
        self.asked.append((path, body))
        if self.fails is not None:
            raise self.fails
        return Reply(200, b"{}")


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Client:
    return Client(monkeypatch)


def laptop(tailnet: Tailnet, owner: User, **hostinfo: Any) -> Node:
    said = {"Hostname": "laptop", "OS": "linux", "App": "trenza"} | hostinfo
    return machines.node(tailnet, owner, hostname="laptop", preapproved=True, hostinfo=said)


def exit_node(tailnet: Tailnet, owner: User, hostname: str = "exit-a") -> Node:
    node = router(tailnet, owner, hostname)
    with scope(tailnet=tailnet):
        set_exit_node(node=node, enabled=True, by=Actor.command())
    return node


def report(node: Node, **hostinfo: Any) -> None:
    """The device says which exit node it uses."""
    update_node_state(
        tailnet=node.tailnet_id,
        report=Volatile(
            node_id=node.pk, hostinfo={"Hostname": "laptop", "OS": "linux", "App": "trenza"} | hostinfo
        ),
    )


def test_an_administrator_sets_a_devices_exit_node_and_undoes_it(
    place: tuple[Tailnet, User], client: Client
) -> None:
    tailnet, owner = place
    node, way, visitor = laptop(tailnet, owner), exit_node(tailnet, owner), Visitor(owner)
    router(tailnet, owner, "not-approved")
    path = f"/devices/{node.stable_id}"
    page = visitor.get(path).content.decode()
    assert re.findall(r'<option value="([^"]*)"', page) == ["", way.stable_id]
    assert "exit-a (offline)" in page
    assert "reaches the internet directly" in page
    answer = visitor.submit(f"{path}/use-exit-node", page=path, exit_node=way.stable_id)
    assert "laptop uses exit-a as exit node." in answer["HX-Trigger"]
    assert client.asked == [("/trenza/exit-node", {"ExitNodeID": way.stable_id})]
    report(node, ExitNodeID=way.stable_id)
    page = visitor.get(path).content.decode()
    assert "Uses exit node exit-a" in page
    assert "set by administrator" in page
    visitor.submit(f"{path}/use-exit-node", page=path, exit_node="")
    assert client.asked[-1] == ("/trenza/exit-node", {"ExitNodeID": ""})
    report(node)
    page = visitor.get(path).content.decode()
    assert "set by administrator" not in page
    assert "reaches the internet directly" in page
    assert audited(tailnet, "EXIT_NODE") == [
        (owner.login_name, None, "exit-a"),
        (owner.login_name, "exit-a", None),
    ]
    assert [change[1:] for change in audited(tailnet, "USED_EXIT_NODE")] == [("", "exit-a"), ("exit-a", "")]


@pytest.mark.parametrize(
    ("why", "text", "shown"),
    [
        (Why.AWAY, "the device is not connected", "laptop is not connected."),
        (Why.SILENT, "the device did not answer in time", "laptop did not answer."),
        (
            Why.REFUSED,
            "exit nodes are blocked by 100 % policy",
            "laptop refused: exit nodes are blocked by 100 % policy",
        ),
    ],
)
def test_what_came_of_it_is_said(
    place: tuple[Tailnet, User], client: Client, why: Why, text: str, shown: str
) -> None:
    tailnet, owner = place
    node, way, visitor = laptop(tailnet, owner), exit_node(tailnet, owner), Visitor(owner)
    client.fails = NodeSilent(why, text)
    path = f"/devices/{node.stable_id}"
    answer = visitor.submit(f"{path}/use-exit-node", page=path, exit_node=way.stable_id)
    assert shown in answer["HX-Trigger"]
    assert '"failed": true' in answer["HX-Trigger"]
    assert 'id="exit-choice"' in answer.content.decode(), "the page is shown as it is"
    plain = visitor.submit(f"{path}/use-exit-node", exit_node=way.stable_id)
    assert plain.status_code == 409
    assert shown in plain.content.decode()
    with scope(tailnet=tailnet):
        assert Node.objects.get(pk=node.pk).exit_node is None
    assert audited(tailnet, "EXIT_NODE") == []


def test_only_an_approved_exit_node_of_this_tailnet_is_chosen(
    place: tuple[Tailnet, User], client: Client
) -> None:
    tailnet, owner = place
    node, waiting = laptop(tailnet, owner), router(tailnet, owner, "waiting")
    foreign = exit_node(*factories.tailnet())
    itself = exit_node(tailnet, owner, "itself")
    visitor = Visitor(owner)
    for device, wanted, status in (
        (node, waiting.stable_id, 409),
        (node, foreign.stable_id, 404),
        (node, "nothing", 404),
        (itself, itself.stable_id, 409),
    ):
        path = f"/devices/{device.stable_id}"
        answer = visitor.submit(f"{path}/use-exit-node", page=path, exit_node=wanted)
        assert answer.status_code == status, wanted
    assert client.asked == []


def test_what_an_official_client_uses_is_shown_and_not_to_be_chosen(
    place: tuple[Tailnet, User], client: Client
) -> None:
    tailnet, owner = place
    way = exit_node(tailnet, owner)
    node = laptop(tailnet, owner, App="", ExitNodeID=way.stable_id)
    visitor, path = Visitor(owner), f"/devices/{node.stable_id}"
    page = visitor.get(path).content.decode()
    assert "Uses exit node exit-a" in page
    assert "Chosen on the device" in page
    assert 'id="set-exit-node"' not in page
    assert visitor.submit(f"{path}/use-exit-node", page=path, exit_node="").status_code == 409
    visitor.submit(f"/devices/{way.stable_id}/approve-exit-node", page=path)
    assert "no approved exit node now" in visitor.get(path).content.decode()


def test_a_connected_device_is_named_without_a_warning(place: tuple[Tailnet, User], client: Client) -> None:
    tailnet, owner = place
    node, way = laptop(tailnet, owner), exit_node(tailnet, owner)
    for one in (node, way):
        claim_presence(tailnet=tailnet, node_id=one.pk, worker="w")
    page = Visitor(owner).get(f"/devices/{node.stable_id}").content.decode()
    assert "(offline)" not in page
    assert "The device is asked at once" in page


@pytest.mark.parametrize("named", ["gone", "<b>x</b>", 5, None])
def test_an_exit_node_that_is_none_breaks_no_page(place: tuple[Tailnet, User], named: Any) -> None:
    node = laptop(*place, ExitNodeID=named)
    page = Visitor(place[1]).get(f"/devices/{node.stable_id}")
    assert page.status_code == 200
    assert "<b>x</b>" not in page.content.decode()
