"""Access controls in the panel: the draft, its rules, saving it, what others did meanwhile, history."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actors import Actor
from accounts.models import Membership, Tailnet
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane.netmap.policy.default import TEXT as DEFAULT
from controlplane.services import evaluations
from controlplane.services.evaluations import evaluated
from controlplane.services.ownreach import own_reach
from controlplane.services.policy import current_policy, save_policy
from controlplane.snapshots import load_tailnet
from nodes.models import Node
from nodes.services.routes import set_approved_routes
from tests.accounts import factories as people
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()
TEXT = """\
{
	"tagOwners": {"tag:db": [], "tag:web": []},
	"acls": [
		// The web servers use the databases.
		{"action": "accept", "src": ["tag:web"], "dst": ["tag:db:5432"]},
		{"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]},
	],
}
"""
FAILING = TEXT.replace("}\n", '"tests": [{"src": "tag:web", "accept": ["tag:db:22"]}]}\n')
BROKEN = '{\n\t"acls": [,\n}'


@pytest.fixture
def tailnet() -> Tailnet:
    return people.tailnet("ours")[0]


@pytest.fixture
def owner(tailnet: Tailnet) -> Visitor:
    with scope(tailnet=tailnet):
        place = Membership.objects.get(role=Role.OWNER)
    return Visitor.of(place)


def in_force(tailnet: Tailnet) -> str:
    with scope(tailnet=tailnet):
        return current_policy(tailnet).text


def etag(tailnet: Tailnet) -> str:
    with scope(tailnet=tailnet):
        return current_policy(tailnet).etag


def connect(node: Node) -> None:
    """Have a device that has connected once: others can be shown it."""
    with scope(tailnet=node.tailnet_id):
        Node.objects.filter(pk=node.pk).update(disco_key="discokey:" + "1" * 64)


def htmx(visitor: Visitor, path: str, **values: Any) -> Any:
    return visitor.submit(path, page="/access", **values)


def drafted(answer: Any) -> str:
    """The text as the answer's page has it."""
    return str(answer.context["draft"].text)


# --- reading -----------------------------------------------------------------------------------------------


def test_the_page_has_the_rules_in_words_and_the_text(tailnet: Tailnet, owner: Visitor) -> None:
    save_policy(tailnet=tailnet, text=TEXT, by=ME)
    page = owner.get("/access").content.decode()
    assert "The web servers use the databases." in page
    assert "devices with tag:db" in page
    assert "on port 5432" in page
    assert "&quot;acls&quot;: [" in page


def test_who_may_only_see_gets_no_button_and_no_field(tailnet: Tailnet) -> None:
    auditor = Visitor.of(people.member(tailnet, Role.AUDITOR))
    for show in ("rules", "tests", "preview", "history"):
        page = auditor.get(f"/access?show={show}").content.decode()
        assert 'id="save-policy"' not in page
        assert "Add rule" not in page
        assert "readonly" in page


def test_the_page_costs_as_many_queries_for_many_rules_as_for_few(tailnet: Tailnet, owner: Visitor) -> None:
    def queries() -> int:
        owner.get("/access")
        with CaptureQueriesContext(connection) as captured:
            owner.get("/access")
        return len(captured)

    save_policy(tailnet=tailnet, text=TEXT, by=ME)
    few = queries()
    rule = '{"action": "accept", "src": ["tag:web"], "dst": ["tag:db:5432"]},'
    save_policy(tailnet=tailnet, text=TEXT.replace('"acls": [', f'"acls": [{rule * 50}'), by=ME)
    for number in range(5):
        machines.node(tailnet, None, hostname=f"n{number}", tags=["tag:db"], preapproved=True)
    assert queries() == few


# --- the draft ---------------------------------------------------------------------------------------------


def test_a_draft_is_shown_and_nothing_is_saved(tailnet: Tailnet, owner: Visitor) -> None:
    answer = owner.submit("/access", text=TEXT.replace("\n", "\r\n"))
    assert drafted(answer) == TEXT
    assert in_force(tailnet) == DEFAULT


def test_an_error_is_said_with_its_line(owner: Visitor) -> None:
    answer = htmx(owner, "/access", text=BROKEN)
    (problem,) = json.loads(answer.context["problems_json"])
    assert (problem["line"], problem["severity"]) == (2, "error")
    page = answer.content.decode()
    assert 'data-line="2"' in page
    assert "listed here again" in page


@pytest.mark.parametrize(
    ("change", "rules"),
    [
        ({"delete": "acls/0"}, ["autogroup:self:*"]),
        ({"down": "acls/0"}, ["autogroup:self:*", "tag:db:5432"]),
        ({"up": "acls/1"}, ["autogroup:self:*", "tag:db:5432"]),
    ],
)
def test_rules_are_moved_and_removed_in_the_draft(
    tailnet: Tailnet, owner: Visitor, change: dict[str, str], rules: list[str]
) -> None:
    answer = htmx(owner, "/access/edit", text=TEXT, **change)
    text = drafted(answer)
    assert [text.index(rule) for rule in rules] == sorted(text.index(rule) for rule in rules)
    assert 'id="policy-fresh"' in answer.content.decode()
    assert in_force(tailnet) == DEFAULT


@pytest.mark.parametrize("values", [{}, {"delete": "acls/9"}, {"delete": "x"}, {"up": "acls/0"}])
def test_an_edit_of_nothing_is_refused(owner: Visitor, values: dict[str, str]) -> None:
    assert htmx(owner, "/access/edit", text=TEXT, **values).status_code == 400


def test_an_edit_of_a_text_that_cannot_be_read_says_where_it_is_wrong(owner: Visitor) -> None:
    answer = htmx(owner, "/access/edit", text=BROKEN, delete="acls/0")
    assert answer.status_code == 422
    assert 'data-line="2"' in answer.content.decode()


def test_a_dialog_has_what_the_rule_says_and_changes_it_in_place(owner: Visitor) -> None:
    dialog = htmx(owner, "/access/rule", text=TEXT, at="acls/0")
    assert dialog.context["form"].initial["dst"] == "tag:db:5432"
    values = {"src": "tag:web", "dst": "tag:db:5432\r\ntag:db:6432", "proto": "tcp"}
    answer = htmx(owner, "/access/rule", text=TEXT, at="acls/0", apply="1", **values)
    assert drafted(answer) == TEXT.replace(
        '"dst": ["tag:db:5432"]}', '"dst": ["tag:db:5432", "tag:db:6432"], "proto": "tcp"}'
    )


def test_a_rule_that_would_be_refused_stays_in_its_dialog(owner: Visitor) -> None:
    values = {"section": "acls", "src": "tag:nobody-owns", "dst": "tag:db:5432", "proto": ""}
    answer = htmx(owner, "/access/rule", text=TEXT, apply="1", **values)
    assert answer.status_code == 422
    assert answer.headers["HX-Retarget"] == "#sheet"
    assert "tag:nobody-owns" in answer.context["form"].non_field_errors()[0]


def test_a_dialog_can_be_of_another_kind_of_rule(owner: Visitor) -> None:
    dialog = htmx(owner, "/access/rule", text=TEXT, section="acls", change="ssh", apply="1")
    assert "users" in dialog.context["form"].fields
    assert htmx(owner, "/access/rule", text=TEXT, section="groups").status_code == 400
    assert htmx(owner, "/access/rule", text=BROKEN, section="acls").status_code == 400
    assert htmx(owner, "/access/rule", text=TEXT, at="acls/7").status_code == 400


# --- tests and preview -------------------------------------------------------------------------------------


def test_tests_are_run_one_by_one(owner: Visitor) -> None:
    outcome = htmx(owner, "/access", text=FAILING, show="tests").context["outcome"]
    assert outcome.failed == 1
    assert "tag:db:22" in outcome.rows[0].errors[0]
    holding = FAILING.replace("tag:db:22", "tag:db:5432")
    assert htmx(owner, "/access", text=holding, show="tests").context["outcome"].failed == 0


def test_a_glance_while_typing_runs_nothing(owner: Visitor) -> None:
    answer = htmx(owner, "/access", text=FAILING, show="tests", glance="1")
    assert answer.context["outcome"] is None
    assert "Run the tests again" in answer.content.decode()


def test_the_preview_says_who_gains_and_who_loses(tailnet: Tailnet, owner: Visitor) -> None:
    machines.node(tailnet, None, hostname="web-1", tags=["tag:web"], preapproved=True)
    machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    save_policy(tailnet=tailnet, text=TEXT.replace("5432", "22"), by=ME)
    preview = htmx(owner, "/access", text=TEXT, show="preview").context["preview"]
    assert [(row.source, row.target, row.what, row.gains) for row in preview.rows] == [
        ("web-1", "db-1", "port 22", False),
        ("web-1", "db-1", "port 5432", True),
    ]
    page = htmx(owner, "/access", text=TEXT.replace("5432", "22"), show="preview").content.decode()
    assert "Nothing to compare" in page


# --- saving ------------------------------------------------------------------------------------------------


def test_a_save_puts_the_text_in_force_with_its_author(tailnet: Tailnet, owner: Visitor) -> None:
    answer = htmx(owner, "/access/save", text=TEXT, etag=etag(tailnet), comment="databases")
    assert answer.status_code == 200
    assert "data-saved" in answer.content.decode()
    assert in_force(tailnet) == TEXT
    with scope(tailnet=tailnet):
        version = current_policy(tailnet).version
    assert version is not None
    assert (version.author_name, version.comment) == (answer.wsgi_request.user.login_name, "databases")
    assert owner.submit("/access/save", text=DEFAULT).status_code == 302
    assert in_force(tailnet) == DEFAULT


def test_a_failing_test_refuses_the_save_and_says_which(tailnet: Tailnet, owner: Visitor) -> None:
    answer = htmx(owner, "/access/save", text=FAILING, etag=etag(tailnet))
    assert answer.status_code == 422
    page = answer.content.decode()
    assert "Not saved: tests of this policy fail" in page
    assert "tag:db:22" in page
    assert in_force(tailnet) == DEFAULT


def test_an_error_refuses_the_save_at_its_line(tailnet: Tailnet, owner: Visitor) -> None:
    answer = htmx(owner, "/access/save", text=BROKEN, etag=etag(tailnet))
    assert answer.status_code == 422
    assert 'data-line="2"' in answer.content.decode()
    assert in_force(tailnet) == DEFAULT


def test_nobody_overwrites_what_somebody_else_has_saved_meanwhile(tailnet: Tailnet, owner: Visitor) -> None:
    began = etag(tailnet)
    other = people.member(tailnet, Role.ADMIN)
    save_policy(tailnet=tailnet, text='{"acls": []}', by=Actor.person(other.user))
    answer = htmx(owner, "/access/save", text=TEXT, etag=began)
    assert answer.status_code == 422
    page = answer.content.decode()
    assert f"{other.user.login_name} has saved another policy meanwhile." in page
    assert drafted(answer) == TEXT
    assert in_force(tailnet) == '{"acls": []}'
    over = answer.context["conflict"].etag
    assert htmx(owner, "/access/save", text=TEXT, etag=began, over=over).status_code == 200
    assert in_force(tailnet) == TEXT


def test_an_open_page_is_told_that_somebody_else_has_saved(tailnet: Tailnet, owner: Visitor) -> None:
    began = etag(tailnet)
    assert "has changed the policy" not in owner.get(f"/access/news?etag={began}").content.decode()
    other = people.member(tailnet, Role.ADMIN)
    save_policy(tailnet=tailnet, text=TEXT, by=Actor.person(other.user))
    page = owner.get(f"/access/news?etag={began}").content.decode()
    assert f"{other.user.login_name} has changed the policy since you opened this page." in page


# --- history -----------------------------------------------------------------------------------------------


def test_versions_are_listed_compared_and_restored(tailnet: Tailnet, owner: Visitor) -> None:
    save_policy(tailnet=tailnet, text=TEXT, by=ME, comment="first")
    save_policy(tailnet=tailnet, text='{"acls": []}', by=ME, comment="second")
    page = owner.get("/access?show=history").content.decode()
    assert page.index("second") < page.index("first")
    lines = owner.get("/access/versions/2").context["lines"]
    assert ("add", '+{"acls": []}') in [(line.kind, line.text) for line in lines]
    against_current = owner.get("/access/versions/1?with=current")
    assert against_current.context["before"] == '{"acls": []}'
    assert owner.get("/access/versions/1/restore").status_code == 200
    assert owner.submit("/access/versions/1/restore").status_code == 302
    assert in_force(tailnet) == TEXT
    assert owner.get("/access/versions/9").status_code == 404


def test_a_version_that_no_longer_fits_is_not_restored(tailnet: Tailnet, owner: Visitor) -> None:
    login = people.member(tailnet).user.login_name
    text = f'{{"acls": [], "tests": [{{"src": "{login}", "deny": ["100.64.0.9:22"]}}]}}'
    save_policy(tailnet=tailnet, text=text, by=ME)
    with scope(tailnet=tailnet):
        version = current_policy(tailnet).version
        assert version is not None
        version.text = text.replace("deny", "accept")  # as a release that judged otherwise left it
        version.save()
    save_policy(tailnet=tailnet, text=TEXT, by=ME)
    answer = owner.submit("/access/versions/1/restore")
    assert answer.status_code == 422
    assert login in answer.content.decode()
    assert in_force(tailnet) == TEXT


# --- what rules mean for devices and people ----------------------------------------------------------------


def test_a_devices_page_says_which_rules_concern_it(tailnet: Tailnet, owner: Visitor) -> None:
    database = machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    machines.node(tailnet, None, hostname="web-1", tags=["tag:web"], preapproved=True)
    save_policy(tailnet=tailnet, text=TEXT, by=ME)
    outwards, inwards = owner.fragment(f"/devices/{database.stable_id}/access").context["sides"]
    assert (outwards["names"], outwards["groups"]) == ([], [])
    assert inwards["names"] == ["web-1"]
    assert [rule.at for group in inwards["groups"] for rule in group.rules] == ["acls/0"]
    waiting = machines.node(tailnet, None, hostname="waits", tags=["tag:web"])
    assert owner.fragment(f"/devices/{waiting.stable_id}/access").context["sides"] == []


def test_members_are_told_what_the_rules_let_them_reach(tailnet: Tailnet) -> None:
    member = people.member(tailnet)
    own = [
        machines.node(tailnet, member.user, hostname=name, preapproved=True) for name in ("mine", "my-other")
    ]
    database = machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    for node in (*own, database):
        connect(node)
    visitor = Visitor.of(member)
    assert [one.name for one in visitor.get("/my-devices").context["peers"]] == ["db-1", "mine", "my-other"]
    save_policy(tailnet=tailnet, text=TEXT, by=ME)
    assert [one.name for one in visitor.get("/my-devices").context["peers"]] == ["mine", "my-other"]
    text = TEXT.replace('"src": ["tag:web"]', '"src": ["tag:web", "autogroup:member"]')
    save_policy(tailnet=tailnet, text=text, by=ME)
    peers = visitor.get("/my-devices").context["peers"]
    assert [(one.name, one.ports) for one in peers] == [
        ("db-1", ("port 5432",)),
        ("mine", ("everything",)),
        ("my-other", ("everything",)),
    ]


def test_who_has_no_device_is_told_what_the_first_one_would_reach(tailnet: Tailnet) -> None:
    database = machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    connect(database)
    visitor = Visitor.of(people.member(tailnet))
    assert [one.name for one in visitor.get("/my-devices").context["peers"]] == ["db-1"]
    save_policy(tailnet=tailnet, text=TEXT, by=ME)
    assert visitor.get("/my-devices").context["peers"] == []


def test_the_map_draws_what_rules_allow_for_those_who_may_see_them(tailnet: Tailnet, owner: Visitor) -> None:
    member = people.member(tailnet)
    machines.node(tailnet, member.user, hostname="mine", preapproved=True)
    web = machines.node(tailnet, None, hostname="web-1", tags=["tag:web"], preapproved=True)
    database = machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    save_policy(tailnet=tailnet, text=TEXT, by=ME)
    (edge,) = owner.get("/map/data?rules=1").json()["allowed"]
    assert (edge["source"], edge["target"], edge["both"]) == (str(web.pk), str(database.pk), False)
    assert "allowed" not in owner.get("/map/data").json()
    assert "allowed" not in Visitor.of(member).get("/map/data?rules=1").json()


def test_networks_behind_routers_are_among_what_a_person_reaches(tailnet: Tailnet) -> None:
    member = people.member(tailnet)
    machines.node(tailnet, member.user, hostname="mine", preapproved=True)
    way = {"Hostname": "router", "RoutableIPs": ["10.0.0.0/8"]}
    router = machines.node(tailnet, tags=["tag:web"], hostinfo=way, preapproved=True)
    with scope(tailnet=tailnet):
        set_approved_routes(node=router, prefixes=["10.0.0.0/8"], by=ME)
        Node.objects.filter(pk=router.pk).update(disco_key=f"discokey:{'d' * 64}")
    assert own_reach(tailnet, member.user.pk).networks == ["10.0.0.0/8"]


def test_the_hubs_snapshot_is_taken_once_it_has_what_changed(
    tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    late = load_tailnet(tailnet.pk)
    made = machines.node(tailnet, None, hostname="db-2", tags=["tag:db"], preapproved=True)
    fresh = load_tailnet(tailnet.pk)
    assert late is not None
    assert fresh is not None
    answers = iter([late, late, fresh])
    monkeypatch.setattr(evaluations, "load_tailnet", lambda pk: pytest.fail("all was read"))
    evaluations.follow(lambda pk: next(answers) if pk == tailnet.pk else None)
    try:
        assert evaluated(tailnet).snapshot.nodes[made.pk].name == fresh.nodes[made.pk].name
        assert evaluated(tailnet) is evaluated(tailnet)
    finally:
        evaluations.follow(None)


def test_a_hub_that_is_late_is_not_waited_for_long(tailnet: Tailnet, monkeypatch: pytest.MonkeyPatch) -> None:
    late = load_tailnet(tailnet.pk)
    made = machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    monkeypatch.setattr(evaluations, "LIVE_SECONDS", 0.02)
    evaluations.follow(lambda pk: late)
    try:
        assert made.pk in evaluated(tailnet).snapshot.nodes
    finally:
        evaluations.follow(None)


def test_a_tailnet_is_evaluated_once_for_each_of_its_versions(tailnet: Tailnet) -> None:
    first = evaluated(tailnet)
    assert evaluated(tailnet) is first
    made = machines.node(tailnet, None, hostname="db-1", tags=["tag:db"], preapproved=True)
    second = evaluated(tailnet)
    assert made.pk in second.snapshot.nodes
    save_policy(tailnet=tailnet, text='{"acls": []}', by=ME)
    bit = second.evaluation.world.bit(made.pk)
    assert second.reach.of(bit) == bit
    third = evaluated(tailnet)
    assert third.reach.of(third.evaluation.world.bit(made.pk)) == 0
