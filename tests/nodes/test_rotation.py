"""Which devices are asked for new keys, and when; what the panel says of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import AuditEvent, Tailnet, User
from accounts.services.tailnets import update_settings
from accounts.tenancy import scope
from nodes.models import Node
from nodes.services import asking, rotation
from nodes.services.asking import NodeSilent, Reply, Why, ask_node
from nodes.services.presence import claim_presence
from nodes.services.rotation import ASKED_AT_ONCE, ask_for_due_rotations
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files  # noqa: F401

NOW = datetime(2030, 6, 1, tzinfo=UTC)
OURS = {"Hostname": "box", "OS": "linux", "App": "trenza"}
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tailnet() -> Tailnet:
    return factories.tailnet()[0]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The nodes that were asked, in order."""
    ids: list[int] = []
    monkeypatch.setattr(rotation, "tell_node", lambda *, node, path: ids.append(node.pk))
    return ids


def device(tailnet: Tailnet, *, days_old: int, online: bool = True, **values: Any) -> Node:
    node = machines.node(
        tailnet, None, tags=["tag:a"], preapproved=True, **({"hostinfo": OURS} | values), now=NOW
    )
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(key_rotated_at=NOW - timedelta(days=days_old))
    if online:
        claim_presence(tailnet=tailnet, node_id=node.pk, worker="w", now=NOW)
    return node


def ask(tailnet: Tailnet, now: datetime = NOW) -> int:
    tailnet.refresh_from_db()
    with scope(tailnet=tailnet):
        return ask_for_due_rotations(tailnet=tailnet, now=now)


def test_keys_are_replaced_at_half_a_sign_in_period_unless_the_tailnet_says_otherwise(
    tailnet: Tailnet, told: list[int]
) -> None:
    old, young = device(tailnet, days_old=91), device(tailnet, days_old=89)
    assert tailnet.rotates_after_days == 90
    assert ask(tailnet) == 1
    assert told == [old.pk]
    update_settings(tailnet=tailnet, by=Actor.command(), rotation_days=30)
    assert ask(tailnet) == 1
    assert told == [old.pk, young.pk]


def test_zero_days_switch_the_schedule_off(tailnet: Tailnet, told: list[int]) -> None:
    device(tailnet, days_old=1000)
    update_settings(tailnet=tailnet, by=Actor.command(), rotation_days=0)
    assert ask(tailnet) == 0
    assert not told


def test_only_connected_trenza_clients_are_asked(tailnet: Tailnet, told: list[int]) -> None:
    device(tailnet, days_old=200, online=False)
    device(tailnet, days_old=200, hostinfo={"Hostname": "phone", "OS": "android"})
    assert ask(tailnet) == 0


def test_a_device_that_was_asked_is_let_be_for_hours(tailnet: Tailnet, told: list[int]) -> None:
    node = device(tailnet, days_old=200)
    assert [ask(tailnet), ask(tailnet)] == [1, 0]
    later = NOW + rotation.ASK_AGAIN
    claim_presence(tailnet=tailnet, node_id=node.pk, worker="w", now=later)
    assert ask(tailnet, later) == 1


def test_a_fleet_is_asked_a_few_at_a_time_the_oldest_first(tailnet: Tailnet, told: list[int]) -> None:
    nodes = [device(tailnet, days_old=200 + number) for number in range(ASKED_AT_ONCE + 2)]
    oldest_first = [node.pk for node in reversed(nodes)]
    assert [ask(tailnet), ask(tailnet), ask(tailnet)] == [ASKED_AT_ONCE, 2, 0]
    assert told == oldest_first


def test_a_device_without_a_stream_cannot_be_asked(tailnet: Tailnet) -> None:
    node = device(tailnet, days_old=1, online=False)
    with scope(tailnet=tailnet), pytest.raises(NodeSilent) as caught:
        ask_node(node=Node.objects.get(pk=node.pk), path="/echo")
    assert caught.value.why is Why.AWAY


def test_what_a_device_answers_is_read_and_bounded() -> None:
    raw = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 4\r\n\r\nno\x1b!"
    assert asking._read(raw) == Reply(500, b"no\x1b!")
    assert asking._read(raw).words == "no !"
    with pytest.raises(NodeSilent):
        asking._read(b"SSH-2.0")


# --- the page --------------------------------------------------------------------------------------------


@pytest.fixture
def place() -> tuple[Tailnet, User, Node]:
    tailnet, owner = factories.tailnet("home")
    return tailnet, owner, machines.node(tailnet, owner, preapproved=True, hostinfo=OURS)


def rotate(visitor: Visitor, node: Node) -> Any:
    return visitor.submit(f"/devices/{node.stable_id}/rotate-key", page="/devices")


def test_the_button_has_the_device_replace_its_key(
    place: tuple[Tailnet, User, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, owner, node = place
    asked: list[str] = []

    def answer(*, node: Node, path: str) -> Reply:
        asked.append(path)
        return Reply(200, b"{}")

    monkeypatch.setattr(rotation, "ask_node", answer)
    visitor = Visitor(owner)
    assert "/rotate-key" in visitor.get(f"/devices/{node.stable_id}").content.decode()
    said = rotate(visitor, node)
    assert (said.status_code, asked) == (200, ["/trenza/rotate-node-key"])
    assert "has a new key" in said["HX-Trigger"]
    with scope(tailnet=tailnet):
        assert AuditEvent.objects.filter(action="ROTATE", target_id=node.stable_id).count() == 1


@pytest.mark.parametrize(
    ("why", "words"),
    [(Why.AWAY, "is not connected"), (Why.SILENT, "did not answer"), (Why.REFUSED, "keeps its key: 100% no")],
)
def test_the_button_says_why_there_is_no_new_key(
    place: tuple[Tailnet, User, Node], monkeypatch: pytest.MonkeyPatch, why: Why, words: str
) -> None:
    tailnet, owner, node = place

    def refuse(*, node: Node, path: str) -> Reply:
        raise NodeSilent(why, "100% no")

    monkeypatch.setattr(rotation, "ask_node", refuse)
    assert words in rotate(Visitor(owner), node)["HX-Trigger"]
    with scope(tailnet=tailnet):
        assert not AuditEvent.objects.filter(action="ROTATE").exists()


def test_an_official_client_has_no_button(place: tuple[Tailnet, User, Node]) -> None:
    tailnet, owner, _ = place
    phone = machines.node(tailnet, owner, preapproved=True, hostname="phone")
    visitor = Visitor(owner)
    assert "/rotate-key" not in visitor.get(f"/devices/{phone.stable_id}").content.decode()
    assert rotate(visitor, phone).status_code == 409


def test_a_key_near_its_end_may_start_a_fresh_period_where_the_tailnet_renews(
    place: tuple[Tailnet, User, Node],
) -> None:
    tailnet, _, node = place
    assert rotation.renews_within(tailnet, node) == 0
    tailnet.auto_renew = True
    assert rotation.renews_within(tailnet, node) == 45 * 86400
    node.key_expiry_disabled = True
    assert rotation.renews_within(tailnet, node) == 0
    assert timezone.now() < node.key_expiry
