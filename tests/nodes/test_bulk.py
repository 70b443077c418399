"""The same step for many devices: who may, what fits, in slices, and what is told of it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actors import Actor
from accounts.errors import Invalid
from accounts.models import AuditEvent, Membership, Tailnet, User
from accounts.roles import Role
from accounts.tenancy import memberships_of, scope
from nodes.models import Node
from nodes.services import bulk
from nodes.services.bulk import BulkAction, Refusal, act_on_nodes
from nodes.state import NodeState
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def member(tailnet: Tailnet, user: User) -> Membership:
    return next(one for one in memberships_of(user.pk) if one.tailnet_id == tailnet.pk)


def act(tailnet: Tailnet, user: User, action: BulkAction, *nodes: Node) -> bulk.Outcome:
    with scope(tailnet=tailnet):
        return act_on_nodes(
            membership=member(tailnet, user),
            node_ids=[node.pk for node in nodes],
            action=action,
            by=Actor.person(user),
        )


def states(tailnet: Tailnet) -> dict[str, str]:
    with scope(tailnet=tailnet):
        return dict(Node.objects.values_list("name", "state"))


# --- the step itself -------------------------------------------------------------------------------------


def test_each_action_changes_what_fits_and_tells_of_the_rest(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    waiting = machines.node(tailnet, owner, hostname="waiting")
    active = machines.node(tailnet, owner, hostname="active", preapproved=True)
    tagged = machines.node(tailnet, None, hostname="tagged", preapproved=True, tags=["tag:a"])
    outcome = act(tailnet, owner, BulkAction.APPROVE, waiting, active)
    assert (outcome.done, outcome.refused) == (1, {active.pk: Refusal.STATE})
    assert states(tailnet)["waiting"] == NodeState.ACTIVE
    outcome = act(tailnet, owner, BulkAction.KEEP_KEY, active, tagged)
    assert (outcome.done, outcome.refused) == (1, {tagged.pk: Refusal.STATE})
    outcome = act(tailnet, owner, BulkAction.LET_EXPIRE, active, waiting)
    assert (outcome.done, outcome.refused) == (1, {waiting.pk: Refusal.STATE})
    outcome = act(tailnet, owner, BulkAction.EXPIRE, active, tagged)
    assert outcome.done == 2
    assert states(tailnet)["active"] == NodeState.EXPIRED
    outcome = act(tailnet, owner, BulkAction.REJECT, active)
    assert outcome.refused == {active.pk: Refusal.STATE}
    outcome = act(tailnet, owner, BulkAction.DELETE, active, tagged, waiting, waiting)
    assert (outcome.done, outcome.refused) == (3, {})
    assert states(tailnet) == {}
    assert act(tailnet, owner, BulkAction.DELETE, active).refused == {active.pk: Refusal.GONE}


def test_each_device_is_audited_and_published(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    nodes = [machines.node(tailnet, owner, hostname=f"n{number}") for number in range(3)]
    before = Tailnet.objects.get(pk=tailnet.pk).netmap_version
    act(tailnet, owner, BulkAction.APPROVE, *nodes)
    assert Tailnet.objects.get(pk=tailnet.pk).netmap_version == before + 1  # one transaction, one version
    with scope(tailnet=tailnet):
        told = AuditEvent.objects.filter(action="APPROVE").values_list("target_id", "actor_name")
        assert sorted(told) == sorted((node.stable_id, owner.login_name) for node in nodes)


def test_a_slice_has_a_bound(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    with scope(tailnet=tailnet), pytest.raises(Invalid):
        act_on_nodes(
            membership=member(tailnet, owner),
            node_ids=range(bulk.SLICE + 1),
            action=BulkAction.DELETE,
            by=Actor.person(owner),
        )


@pytest.mark.parametrize("role", [Role.ADMIN, Role.IT_ADMIN, Role.NETWORK_ADMIN, Role.AUDITOR, Role.MEMBER])
def test_each_device_obeys_the_role(place: tuple[Tailnet, User], role: Role) -> None:
    tailnet, owner = place
    person = factories.member(tailnet, role).user
    theirs = machines.node(tailnet, owner, hostname="theirs", preapproved=True)
    mine = machines.node(tailnet, person, hostname="mine", preapproved=True)
    outcome = act(tailnet, person, BulkAction.DELETE, theirs, mine)
    manages = role in (Role.ADMIN, Role.IT_ADMIN)
    kept = set(states(tailnet))
    assert ("theirs" not in kept) == manages
    assert ("mine" not in kept) == (manages or role == Role.MEMBER)
    if role == Role.MEMBER:  # another's device does not exist for them
        assert outcome.refused == {theirs.pk: Refusal.GONE}
    if role in (Role.NETWORK_ADMIN, Role.AUDITOR):
        assert outcome.refused == {theirs.pk: Refusal.ROLE, mine.pk: Refusal.ROLE}
    assert act(tailnet, person, BulkAction.KEEP_KEY, mine).done == 0


def test_devices_of_another_tailnet_do_not_exist(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, stranger = factories.tailnet()
    node = machines.node(tailnet, owner)
    assert act(other, stranger, BulkAction.DELETE, node).refused == {node.pk: Refusal.GONE}
    assert len(states(tailnet)) == 1


# --- the pages -------------------------------------------------------------------------------------------


def ask(visitor: Visitor, action: str, *nodes: Node, **more: Any) -> Any:
    return visitor.submit(
        "/devices/bulk", page="/devices", action=action, id=[node.stable_id for node in nodes], **more
    )


HIDDEN = re.compile(r'<input type="hidden" name="([\w-]+)" value="([^"]*)"')


def held(dialog: Any) -> dict[str, str]:
    """What the form of a dialog would send."""
    return dict(HIDDEN.findall(dialog.content.decode()))


def go_on(visitor: Visitor, dialog: Any) -> Any:
    """Send the form that a dialog holds, as its button or its own load does."""
    values = held(dialog)
    return visitor.submit("/devices/bulk/do", page="/devices", **(values | {"tailnet": visitor.tailnet_id}))


def test_a_dialog_counts_and_says_the_consequences_first(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    doomed = [machines.node(tailnet, owner, hostname=f"doomed{n}", preapproved=True) for n in range(2)]
    visitor = Visitor(owner)
    dialog = ask(visitor, "delete", *doomed)
    text = dialog.content.decode()
    for words in ("Delete 2 devices?", "This cannot be undone", "doomed0", "doomed1", "btn-danger"):
        assert words in text, words
    assert len(states(tailnet)) == 2
    answer = go_on(visitor, dialog)
    assert "2 devices are deleted." in answer["HX-Trigger"]
    assert {"closeSheet", "showChanges"} <= set(re.findall(r'"(\w+)":', answer["HX-Trigger"]))
    assert states(tailnet) == {}


def test_what_does_not_fit_is_said_before(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    waiting = machines.node(tailnet, owner, hostname="waiting")
    active = machines.node(tailnet, owner, hostname="active", preapproved=True)
    visitor = Visitor(owner)
    text = ask(visitor, "approve", waiting, active).content.decode()
    assert "Approve 1 device?" in text
    assert "1 device is left as it is" in text
    nothing = ask(visitor, "approve", active).content.decode()
    assert "Nothing to do" in nothing
    assert 'action="/devices/bulk/do"' not in nothing


def test_what_was_refused_meanwhile_is_said_after(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    nodes = [machines.node(tailnet, owner, hostname=f"n{n}") for n in range(3)]
    visitor = Visitor(owner)
    dialog = ask(visitor, "approve", *nodes)
    act(tailnet, owner, BulkAction.APPROVE, nodes[0])
    act(tailnet, owner, BulkAction.DELETE, nodes[1])
    text = go_on(visitor, dialog).content.decode()
    assert "1 device is approved." in text
    assert "n0" in text
    assert "1 device has gone meanwhile" in text


def test_all_that_match_are_done_slice_by_slice(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, owner = place
    monkeypatch.setattr(bulk, "SLICE", 4)
    for number in range(10):
        machines.node(tailnet, owner, hostname=f"old{number}", preapproved=True)
    machines.node(tailnet, owner, hostname="other", preapproved=True)
    visitor = Visitor(owner)
    dialog = ask(visitor, "delete", all="1", query="q=old&page=7")
    assert "Delete 10 devices?" in dialog.content.decode()
    machines.node(tailnet, owner, hostname="old-newcomer", preapproved=True)  # was not counted: stays
    left = []
    answer = go_on(visitor, dialog)
    while "closeSheet" not in answer.get("HX-Trigger", ""):
        left.append(len(states(tailnet)))
        assert 'hx-trigger="load' in answer.content.decode()
        answer = go_on(visitor, answer)
    assert left == [8, 4]
    assert "10 devices are deleted." in answer["HX-Trigger"]
    assert set(states(tailnet)) == {"other", "old-newcomer"}


def test_without_scripts_it_is_pages_and_leads_back_to_the_same_list(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    node = machines.node(tailnet, owner, hostname="plain", preapproved=True)
    visitor = Visitor(owner)
    page = visitor.submit("/devices/bulk", action="delete", id=node.stable_id, query="q=pl&sort=name")
    assert page.content.decode().startswith("<!doctype html>")
    done = visitor.submit("/devices/bulk/do", **(held(page) | {"query": "q=pl&sort=name"}))
    assert (done.status_code, done["Location"]) == (302, "/devices?q=pl&sort=name")
    assert "1 device is deleted." in visitor.get(done["Location"]).content.decode()


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"action": "delete"},
        {"action": "explode", "id": "1"},
        {"action": "delete", "id": "nothing"},
        {"action": "delete", "ids": "0,x,²,-4,99999999999999999999999"},
        {"action": "delete", "ids": ",".join(map(str, range(10**6, 10**6 + 30_000)))},
    ],
)
@pytest.mark.parametrize("path", ["/devices/bulk", "/devices/bulk/do"])
def test_forms_that_no_page_sends_do_nothing(
    place: tuple[Tailnet, User], path: str, values: dict[str, str]
) -> None:
    tailnet, owner = place
    machines.node(tailnet, owner, hostname="kept")
    assert Visitor(owner).submit(path, page="/devices", **values).status_code in (200, 400)
    assert set(states(tailnet)) == {"kept"}


def test_asking_costs_the_same_queries_for_few_and_many(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)

    def cost() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert ask(visitor, "delete", all="1", query="").status_code == 200
        return len(captured)

    for number in range(5):
        machines.node(tailnet, owner, hostname=f"a{number}")
    few = cost()
    for number in range(60):
        machines.node(tailnet, owner, hostname=f"b{number}")
    assert cost() == few
