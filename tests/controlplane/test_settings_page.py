"""The settings page: what it shows to whom, what it changes, and the ends of a tailnet."""

from __future__ import annotations

from typing import Any

import pytest

from accounts.actors import Actor
from accounts.models import ApiToken, AuditEvent, Membership, Tailnet
from accounts.roles import Role
from accounts.services.people import suspend_member
from accounts.services.tokens import create_api_token
from accounts.tenancy import memberships_of, scope
from controlplane.services import dns
from nodes.models import Node, PreAuthKey
from tests.accounts import factories
from tests.nodes import factories as machines
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()


def settings_of(tailnet: Tailnet) -> dict[str, Any]:
    return dict(Tailnet.objects.values().get(pk=tailnet.pk))


def last_event(tailnet: Tailnet) -> AuditEvent:
    with scope(tailnet=tailnet):
        return AuditEvent.objects.latest("pk")


# --- seeing and changing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("role", Role)
def test_who_sees_the_page_and_who_changes_it(role: Role) -> None:
    tailnet, owner = factories.tailnet()
    visitor = Visitor(owner) if role == Role.OWNER else Visitor.of(factories.member(tailnet, role))
    sees = role not in (Role.MEMBER, Role.BILLING_ADMIN)
    changes = role in (Role.OWNER, Role.ADMIN, Role.IT_ADMIN)
    page = visitor.get("/settings")
    assert page.status_code == (200 if sees else 404)
    assert ("/settings/general" in page.content.decode()) == changes
    assert ('href="/settings/delete"' in page.content.decode()) == (role == Role.OWNER)
    saved = visitor.submit("/settings/general", display_name="Harbour")
    assert saved.status_code == (302 if changes else 404)
    assert visitor.submit("/settings/switch/device-approval").status_code == (302 if changes else 404)
    assert visitor.get("/settings/rename").status_code == (200 if changes else 404)
    for path in ("/settings/transfer", "/settings/delete"):
        assert visitor.get(path).status_code == (200 if role == Role.OWNER else 404)
    assert settings_of(tailnet)["display_name"] == ("Harbour" if changes else "")
    assert settings_of(tailnet)["device_approval"] is not changes


@pytest.mark.parametrize(
    ("name", "field", "before"),
    [
        ("device-approval", "device_approval", True),
        ("users-approval", "users_approval", False),
        ("auto-renew", "auto_renew", False),
        ("flow-logging", "flow_logging", False),
    ],
)
def test_a_switch_changes_and_the_log_knows_both_values(name: str, field: str, before: bool) -> None:
    tailnet, owner = factories.tailnet()
    visitor = Visitor(owner)
    wanted = {} if before else {"on": "1"}
    answer = visitor.submit(f"/settings/switch/{name}", page="/settings", **wanted)
    assert "toast" in answer["HX-Trigger"]
    assert settings_of(tailnet)[field] is not before
    event = last_event(tailnet)
    assert (event.actor_name, event.old, event.new) == (owner.email, {field: before}, {field: not before})


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"key_duration_days": 30, "rotation": "half"}, (30, None)),
        ({"key_duration_days": 1, "rotation": "never", "rotation_days": 9}, (1, 0)),
        ({"key_duration_days": 180, "rotation": "days", "rotation_days": 7}, (180, 7)),
    ],
)
def test_how_long_keys_live_is_saved(sent: dict[str, Any], stored: tuple[int, int | None]) -> None:
    tailnet, owner = factories.tailnet()
    assert Visitor(owner).submit("/settings/keys", **sent).status_code == 302
    now = settings_of(tailnet)
    assert (now["key_duration_days"], now["rotation_days"]) == stored


@pytest.mark.parametrize(
    "sent",
    [
        {"key_duration_days": 0, "rotation": "half"},
        {"key_duration_days": 181, "rotation": "half"},
        {"key_duration_days": "x", "rotation": "half"},
        {"key_duration_days": 30, "rotation": "days"},
        {"key_duration_days": 30, "rotation": "days", "rotation_days": 181},
        {"key_duration_days": 30, "rotation": "sometimes"},
    ],
)
def test_what_cannot_be_is_said_beside_the_field(sent: dict[str, Any]) -> None:
    tailnet, owner = factories.tailnet()
    before = settings_of(tailnet)
    for page in ("", "/settings"):
        answer = Visitor(owner).submit("/settings/keys", page=page, **sent)
        assert answer.status_code == 422
        assert 'class="error"' in answer.content.decode() or sent["rotation"] == "sometimes"
    assert settings_of(tailnet) == before


def test_a_card_is_fetched_alone_and_nothing_else_is_one() -> None:
    _, owner = factories.tailnet(google_domain="example.com")
    visitor = Visitor(owner)
    card = visitor.fragment("/settings/card/joining").content.decode()
    assert card.startswith('<section class="card" id="settings-joining"')
    assert "example.com" in card
    for name in ("nothing", "switch", "../page"):
        assert visitor.get(f"/settings/card/{name}").status_code == 404
    assert visitor.submit("/settings/nothing").status_code == 404
    assert visitor.submit("/settings/switch/google_domain", on="1").status_code == 404


# --- another name ------------------------------------------------------------------------------------------


def test_a_new_name_takes_the_records_along() -> None:
    tailnet, owner = factories.tailnet(name="old")
    dns.add_record(tailnet=tailnet, by=ME, name="printer", value="100.64.0.9")
    dns.add_record(tailnet=tailnet, by=ME, name="db.example.com", value="100.64.0.9")
    assert Visitor(owner).submit("/settings/rename", name="New").status_code == 302
    tailnet.refresh_from_db()
    assert tailnet.name == "new"
    with scope(tailnet=tailnet):
        names = [record["Name"] for record in dns.dns_settings(tailnet).extra_records]
    assert names == [f"printer.{dns.suffix_of(tailnet)}", "db.example.com"]


@pytest.mark.parametrize("name", ["", "a b", "-a", "taken", "x" * 64])
def test_a_name_that_cannot_be_keeps_the_dialog_open(name: str) -> None:
    tailnet, owner = factories.tailnet(name="old")
    factories.tailnet(name="taken")
    answer = Visitor(owner).submit("/settings/rename", page="/settings", name=name)
    assert answer.status_code == 422
    assert 'id="name-error"' in answer.content.decode()
    tailnet.refresh_from_db()
    assert tailnet.name == "old"


# --- several tailnets ---------------------------------------------------------------------------------------


def test_another_tailnet_is_made_and_opened() -> None:
    tailnet, owner = factories.tailnet()
    visitor = Visitor(owner)
    assert "/tailnets/new" in visitor.get("/devices").content.decode()
    assert visitor.submit("/tailnets/new", name="Home", display_name="At home")["Location"] == "/devices"
    opened = visitor.get("/devices").context["tailnet"]
    assert (opened.name, opened.display_name) == ("home", "At home")
    assert {one.tailnet_id for one in memberships_of(owner.pk)} == {tailnet.pk, opened.pk}
    taken = visitor.submit("/tailnets/new", page="/devices", name="home")
    assert (taken.status_code, 'id="name-error"' in taken.content.decode()) == (422, True)


def test_somebody_of_no_tailnet_makes_one() -> None:
    user = factories.person()
    visitor = Visitor()
    visitor.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    assert visitor.get("/tailnets/new").status_code == 200
    assert visitor.post("/tailnets/new", {"name": "mine"})["Location"] == "/devices"
    assert visitor.get("/devices").status_code == 200


def test_pages_about_ones_tailnets_need_a_sign_in() -> None:
    for path in ("/tailnets", "/tailnets/new", "/tailnets/1/leave", "/waiting"):
        assert Visitor().get(path)["Location"].startswith("/sign-in?next=")


def test_whoever_leaves_takes_their_devices_keys_and_tokens_along() -> None:
    tailnet, _ = factories.tailnet()
    member = factories.member(tailnet)
    machines.node(tailnet, member.user, hostname="laptop")
    machines.node(tailnet, tags=["tag:server"], hostname="server")
    machines.auth_key(tailnet, member.user)
    create_api_token(tailnet=tailnet, user=member.user, by=ME)
    visitor = Visitor.of(member)
    path = f"/tailnets/{tailnet.pk}/leave"
    assert path in visitor.get("/tailnets").content.decode()
    assert "1 device of yours is deleted" in visitor.get(path).content.decode()
    assert visitor.submit(path)["Location"] == "/"
    assert memberships_of(member.user_id) == []
    with scope(tailnet=tailnet):
        assert [node.hostname for node in Node.objects.all()] == ["server"]
        assert PreAuthKey.objects.get().revoked_at is not None
        assert ApiToken.objects.get().revoked_at is not None
        assert AuditEvent.objects.filter(target_type="USER", action="DELETE").exists()


def test_an_owner_and_somebody_suspended_do_not_just_leave() -> None:
    tailnet, owner = factories.tailnet()
    member = factories.member(tailnet)
    suspend_member(membership=member, by=ME)
    for user in (owner, member.user):
        visitor = Visitor(user)
        assert visitor.get(f"/tailnets/{tailnet.pk}/leave").status_code == 404
        assert visitor.submit(f"/tailnets/{tailnet.pk}/leave").status_code == 404
        assert len(memberships_of(user.pk)) == 1


def test_nobody_leaves_for_another() -> None:
    tailnet, _ = factories.tailnet()
    foreign, stranger = factories.tailnet()
    assert Visitor(stranger).submit(f"/tailnets/{tailnet.pk}/leave").status_code == 404
    assert foreign.pk != tailnet.pk


# --- waiting and suspended ----------------------------------------------------------------------------------


def test_who_waits_sees_for_whom_and_is_let_on_by_itself() -> None:
    tailnet, _ = factories.tailnet(display_name="Harbour")
    member = factories.member(tailnet)
    with scope(tailnet=tailnet):
        Membership.objects.filter(pk=member.pk).update(status="needs-approval")
    visitor = Visitor.of(member)
    page = visitor.get("/devices")
    assert page.status_code == 403
    assert "Harbour" in page.content.decode()
    assert "/waiting" in page.content.decode()
    assert visitor.fragment("/waiting").status_code == 204
    with scope(tailnet=tailnet):
        Membership.objects.filter(pk=member.pk).update(status="active")
    assert visitor.fragment("/waiting")["HX-Redirect"] == "/devices"


def test_who_is_suspended_is_told_so() -> None:
    tailnet, _ = factories.tailnet(display_name="Harbour")
    member = factories.member(tailnet)
    suspend_member(membership=member, by=ME)
    page = Visitor.of(member).get("/devices")
    assert page.status_code == 403
    assert "You are suspended" in page.content.decode()


# --- the ends ---------------------------------------------------------------------------------------------


def test_a_tailnet_is_transferred_to_a_member() -> None:
    tailnet, owner = factories.tailnet()
    heir, waiting = factories.member(tailnet), factories.member(tailnet)
    with scope(tailnet=tailnet):
        Membership.objects.filter(pk=waiting.pk).update(status="needs-approval")
    visitor = Visitor(owner)
    dialog = visitor.get("/settings/transfer").content.decode()
    assert heir.user.email in dialog
    assert waiting.user.email not in dialog
    for wrong in ("", "x", waiting.user_id, owner.pk + 10_000):
        assert visitor.submit("/settings/transfer", page="/settings", user=wrong).status_code == 422
    assert visitor.submit("/settings/transfer", user=heir.user_id)["Location"] == "/settings"
    with scope(tailnet=tailnet):
        roles = dict(Membership.objects.values_list("user_id", "role"))
    assert (roles[heir.user_id], roles[owner.pk]) == (Role.OWNER, Role.ADMIN)
    assert visitor.get("/settings/delete").status_code == 404


def test_a_tailnet_goes_only_when_its_name_is_typed() -> None:
    tailnet, owner = factories.tailnet(name="harbour")
    machines.node(tailnet, owner)
    visitor = Visitor(owner)
    dialog = visitor.get("/settings/delete").content.decode()
    assert "1 device is deleted" in dialog
    for typed in ("", "Harbour", "harbor"):
        assert visitor.submit("/settings/delete", page="/settings", name=typed).status_code == 422
    assert visitor.submit("/settings/delete", name="harbour")["Location"] == "/"
    assert not Tailnet.objects.filter(pk=tailnet.pk).exists()
    assert "harbour is deleted" in visitor.get("/tailnets").content.decode()
