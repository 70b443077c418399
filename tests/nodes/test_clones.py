"""Devices whose keys two machines use: flagged once, shown, and cleared when it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.utils import timezone

from accounts.models import AuditEvent, Tailnet, User
from accounts.tenancy import scope
from nodes import tasks
from nodes.models import Node
from nodes.services.clones import CLEARED_AFTER, clear_clones, saw_clones
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files  # noqa: F401

NOW = datetime(2030, 6, 1, tzinfo=UTC)
WHERE = "192.0.2.1 (box), 192.0.2.2 (copy)"
pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def place() -> tuple[Tailnet, User, Node]:
    tailnet, owner = factories.tailnet("home")
    return tailnet, owner, machines.node(tailnet, owner, preapproved=True)


def events(tailnet: Tailnet) -> list[str]:
    with scope(tailnet=tailnet):
        found = AuditEvent.objects.filter(action__startswith="CLONE").order_by("pk")
        return [event.action for event in found]


def version(tailnet: Tailnet) -> int:
    return Tailnet.objects.get(pk=tailnet.pk).netmap_version


def test_a_clone_is_flagged_once_and_audited(place: tuple[Tailnet, User, Node]) -> None:
    tailnet, _, node = place
    assert saw_clones(tailnet=tailnet, seen={node.pk: WHERE}, now=NOW) == 1
    told = version(tailnet)
    for seconds in range(2, 60, 2):
        assert saw_clones(tailnet=tailnet, seen={node.pk: WHERE}, now=NOW + timedelta(seconds=seconds)) == 0
    assert version(tailnet) == told  # while it goes on nobody is told anew
    assert events(tailnet) == ["CLONE"]
    node.refresh_from_db()
    assert node.clone_details == WHERE


def test_it_is_cleared_a_while_after_the_last_sign(place: tuple[Tailnet, User, Node]) -> None:
    tailnet, _, node = place
    saw_clones(tailnet=tailnet, seen={node.pk: WHERE}, now=NOW)
    assert clear_clones(tailnet=tailnet, now=NOW + CLEARED_AFTER - timedelta(seconds=1)) == 0
    assert clear_clones(tailnet=tailnet, now=NOW + CLEARED_AFTER) == 1
    assert events(tailnet) == ["CLONE", "CLONE_ENDED"]
    node.refresh_from_db()
    assert (node.cloned_at, node.clone_details) == (None, "")


def test_the_sweep_leaves_clones_their_time_after_the_server_was_away(
    place: tuple[Tailnet, User, Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    tailnet, _, node = place
    saw_clones(tailnet=tailnet, seen={node.pk: WHERE}, now=NOW)
    clock = [NOW + timedelta(hours=1)]
    monkeypatch.setattr(timezone, "now", lambda: clock[0])
    assert tasks.clear_clones() == 0
    for _ in range(3):
        clock[0] += timedelta(seconds=30)
        cleared = tasks.clear_clones()
    assert events(tailnet) == ["CLONE", "CLONE_ENDED"]
    assert cleared == 0  # the run before did it


def test_the_panel_says_what_to_do(place: tuple[Tailnet, User, Node]) -> None:
    tailnet, owner, node = place
    visitor = Visitor(owner)
    assert "Cloned" not in visitor.get("/devices").content.decode()
    saw_clones(tailnet=tailnet, seen={node.pk: WHERE})
    assert "Cloned" in visitor.get("/devices").content.decode()
    page = visitor.get(f"/devices/{node.stable_id}").content.decode()
    assert "Two machines use this device" in page
    assert WHERE in page
