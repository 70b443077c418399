"""``/register/TOKEN``: a person sees which machine asks, and lets it in or turns it away, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from accounts.actors import Actor
from accounts.models import AuditEvent, Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member
from accounts.tenancy import scope
from nodes.models import Node, PendingLogin
from nodes.services.logins import LIFETIME, begin_login
from nodes.state import NodeState
from tests.accounts import factories
from tests.nodes.factories import machine
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db

HOSTINFO = {"Hostname": "marias-laptop", "OS": "macOS", "IPNVersion": "1.90.2-t0"}


def ask(**hostinfo: Any) -> tuple[str, PendingLogin]:
    """A machine begins a login: the page's path and the row."""
    asked = machine(hostinfo=HOSTINFO | hostinfo)
    begun = begin_login(machine=asked, client_address="203.0.113.7")
    return f"/register/{begun.token}", begun.login


def devices(tailnet: Tailnet) -> list[Node]:
    with scope(tailnet=tailnet):
        return list(Node.objects.select_related("user").order_by("pk"))


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet()


def test_a_stranger_signs_in_first_and_learns_nothing() -> None:
    path, _ = ask()
    answer = Visitor().get(path)
    assert answer.status_code == 302
    assert answer["Location"].startswith("/sign-in?next=%2Fregister%2F")
    assert Visitor().post(path, {"answer": "confirm"}).status_code == 302


def test_the_page_shows_what_to_compare_and_changes_nothing(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    path, pending = ask()
    page = Visitor(owner).get(path)
    text = page.content.decode()
    key = pending.machine_key.removeprefix("mkey:")
    fingerprint = " ".join(key[start : start + 4] for start in range(0, 16, 4))
    for shown in ("marias-laptop", "macOS", fingerprint, "203.0.113.7", tailnet.title, owner.email):
        assert shown in text, shown
    assert devices(tailnet) == []


def test_confirming_lets_it_in_as_ones_own(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    path, pending = ask()
    visitor = Visitor(owner)
    done = visitor.submit(path, answer="confirm", join=tailnet.pk).content.decode()
    (node,) = devices(tailnet)
    assert (node.user, node.name, node.life) == (owner, "marias-laptop", NodeState.PENDING)
    assert node.machine_key == pending.machine_key
    assert f"/devices/{node.stable_id}/approve" in done
    with scope(tailnet=tailnet):
        event = AuditEvent.objects.get(target_type="NODE", action="CREATE")
    assert (event.actor_name, event.target_id) == (owner.login_name, node.stable_id)
    assert visitor.submit(f"/devices/{node.stable_id}/approve").status_code == 302


def test_somebody_who_may_not_approve_is_told_to_wait(place: tuple[Tailnet, User]) -> None:
    tailnet, _ = place
    path, _ = ask()
    done = Visitor.of(factories.member(tailnet)).submit(path, answer="confirm", join=tailnet.pk)
    assert "Somebody who manages devices has to approve it" in done.content.decode()
    assert "/approve" not in done.content.decode()


def test_without_approval_it_is_in_at_once() -> None:
    tailnet, owner = factories.tailnet(device_approval=False)
    path, _ = ask()
    done = Visitor(owner).submit(path, answer="confirm", join=tailnet.pk).content.decode()
    (node,) = devices(tailnet)
    assert node.life == NodeState.ACTIVE
    assert "It is in" in done
    assert node.ipv4 in done


def test_turning_it_away(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    path, pending = ask()
    done = Visitor(owner).submit(path, answer="reject", join=tailnet.pk)
    assert "Turned away" in done.content.decode()
    pending.refresh_from_db()
    assert pending.rejected_at is not None
    assert devices(tailnet) == []


@pytest.mark.parametrize("first", ["confirm", "reject"])
def test_a_link_is_answered_once(place: tuple[Tailnet, User], first: str) -> None:
    tailnet, owner = place
    path, _ = ask()
    visitor = Visitor(owner)
    assert visitor.submit(path, answer=first, join=tailnet.pk).status_code == 200
    count = len(devices(tailnet))
    assert visitor.get(path).status_code == 410
    assert visitor.submit(path, answer="confirm", join=tailnet.pk).status_code == 410
    assert len(devices(tailnet)) == count


def test_a_link_lives_an_hour(place: tuple[Tailnet, User]) -> None:
    path, pending = ask()
    PendingLogin.objects.filter(pk=pending.pk).update(expires=timezone.now() - timedelta(seconds=1))
    page = Visitor(place[1]).get(path)
    assert page.status_code == 410
    assert "it prints a new link" in page.content.decode()
    assert pending.expires - pending.created == LIFETIME
    assert Visitor(place[1]).get("/register/never-was").status_code == 410


def test_a_person_of_several_tailnets_chooses(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    other, _ = factories.tailnet()
    add_member(tailnet=other, user=owner, role=Role.ADMIN, by=Actor.command())
    path, _ = ask()
    visitor = Visitor(owner, tailnet)
    page = visitor.get(path).content.decode()
    assert f'<option value="{tailnet.pk}" selected>' in page
    assert f'<option value="{other.pk}">' in page
    visitor.submit(path, answer="confirm", join=other.pk)
    assert devices(tailnet) == []
    assert len(devices(other)) == 1
    assert visitor.get("/devices").context["tailnet"] == other


@pytest.mark.parametrize("join", ["", "0", "x", "foreign"])
def test_nobody_lets_a_machine_into_a_tailnet_that_is_not_theirs(
    place: tuple[Tailnet, User], join: str
) -> None:
    tailnet, owner = place
    foreign, _ = factories.tailnet()
    path, pending = ask()
    wanted = foreign.pk if join == "foreign" else join
    assert Visitor(owner).submit(path, answer="confirm", join=wanted).status_code == 404
    assert devices(tailnet) == devices(foreign) == []
    pending.refresh_from_db()
    assert pending.confirmed_at is None


def test_tags_that_a_machine_wants_are_shown_and_refused(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    path, _ = ask(RequestTags=["tag:server"])
    visitor = Visitor(owner)
    assert "tag:server" in visitor.get(path).content.decode()
    done = visitor.submit(path, answer="confirm", join=tailnet.pk)
    assert "These tags are not yours to give" in done.content.decode()
    assert devices(tailnet) == []


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "", "x" * 5000, "ñandú.local", None, 7])
def test_any_host_name_is_shown_harmlessly(place: tuple[Tailnet, User], name: Any) -> None:
    path, _ = ask(Hostname=name)
    visitor = Visitor(place[1])
    page = visitor.get(path)
    assert page.status_code == 200
    assert "<script>alert" not in page.content.decode()
    assert visitor.submit(path, answer="confirm", join=place[0].pk).status_code == 200
