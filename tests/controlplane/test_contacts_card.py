"""The contacts on the settings page: what stands there, who changes it, and how an address is confirmed."""

from __future__ import annotations

import re

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from accounts.models import AuditEvent, Contact, Outbox, Tailnet, User
from accounts.roles import Role
from accounts.selectors import contacts
from accounts.services import contacts as service
from accounts.tenancy import scope
from tests.accounts import factories
from tests.api import as_person
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
CARD, NEW = "/settings/card/contacts", "security@example.com"
CHANGE = "/settings/contacts/security"
RESEND = f"{CHANGE}/resend"


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return factories.tailnet(display_name="Harbour")


@pytest.fixture
def with_mail(settings: LazySettings) -> None:
    settings.MAIL_IS_SET_UP = True


def contact(tailnet: Tailnet, kind: str = "security") -> Contact | None:
    with scope(tailnet=tailnet):
        return contacts().get(kind)


def card(visitor: Visitor) -> str:
    return str(visitor.fragment(CARD, page="/settings").content.decode())


@pytest.mark.usefixtures("with_mail")
@pytest.mark.parametrize("role", Role)
def test_who_sees_contacts_and_who_changes_them(place: tuple[Tailnet, User], role: Role) -> None:
    tailnet, owner = place
    visitor = Visitor(owner) if role == Role.OWNER else Visitor.of(factories.member(tailnet, role))
    sees = role not in (Role.MEMBER, Role.BILLING_ADMIN)
    changes = role in (Role.OWNER, Role.ADMIN, Role.IT_ADMIN)
    assert visitor.fragment(CARD).status_code == (200 if sees else 404)
    if sees:
        assert (f'href="{CHANGE}"' in card(visitor)) == changes
    assert visitor.get(CHANGE).status_code == (200 if changes else 404)
    assert visitor.submit(CHANGE, email=NEW).status_code == (302 if changes else 404)
    assert (contact(tailnet) is not None) == changes
    assert visitor.submit(RESEND).status_code == (302 if changes else 404)
    assert (f'action="{RESEND}"' in card(visitor)) == changes if sees else True


@pytest.mark.usefixtures("with_mail")
def test_an_address_waits_until_its_link_is_opened_and_the_api_says_the_same(
    place: tuple[Tailnet, User], client: Client
) -> None:
    tailnet, owner = place
    visitor, api = Visitor(owner), as_person(tailnet, owner)
    assert card(visitor).count(owner.email) == len(Contact.Kind)
    assert f'value="{owner.email}"' not in visitor.get(CHANGE).content.decode()
    answer = visitor.submit(CHANGE, page="/settings", email=NEW)
    assert NEW in answer["HX-Trigger"]
    assert "closeSheet" in answer["HX-Trigger"]
    shown = answer.content.decode()
    assert shown.startswith('<section class="card" id="settings-contacts"')
    assert shown.count("Not confirmed yet") == 1
    assert f"Until then it is {owner.email}." in shown
    waits = {"email": NEW, "fallbackEmail": owner.email, "needsVerification": True}
    assert api.get("/tailnet/-/contacts")["security"] == waits
    with scope(tailnet=tailnet):
        (mail,) = Outbox.objects.all()
        event = AuditEvent.objects.latest("pk")
    assert (event.actor_type, event.target_property) == ("USER", "CONTACT_SECURITY")
    assert (event.old, event.new) == (owner.email, NEW)
    link = re.search(r"/contacts/verify/\S+", str(mail.payload["text"]))
    assert link is not None
    client.post(link[0])
    assert "Not confirmed yet" not in card(visitor)
    assert f'value="{NEW}"' in visitor.get(CHANGE).content.decode()
    assert visitor.submit(RESEND, page="/settings").status_code == 409


@pytest.mark.usefixtures("with_mail")
def test_another_link_takes_the_place_of_the_first(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    visitor.submit(CHANGE, page="/settings", email=NEW)
    first = contact(tailnet)
    assert NEW in visitor.submit(RESEND, page="/settings")["HX-Trigger"]
    second = contact(tailnet)
    assert first is not None
    assert second is not None
    assert second.token_hash not in (None, first.token_hash)
    with scope(tailnet=tailnet):
        assert Outbox.objects.count() == 1


def test_without_a_mail_server_the_card_says_what_is_missing(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    answer = visitor.submit(CHANGE, page="/settings", email=NEW)
    assert "no mail server" in answer["HX-Trigger"]
    assert "no mail server" in answer.content.decode()
    assert RESEND not in answer.content.decode()
    assert visitor.submit(RESEND, page="/settings").status_code == 409


def test_the_owners_own_address_counts_at_once(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    visitor = Visitor(owner)
    visitor.submit(CHANGE, page="/settings", email=NEW)
    answer = visitor.submit(CHANGE, page="/settings", email=owner.email)
    assert "The contact is saved." in answer["HX-Trigger"]
    row = contact(tailnet)
    assert row is not None
    assert not row.needs_verification


@pytest.mark.usefixtures("with_mail")
@pytest.mark.parametrize("email", ["", "nobody", "a@b", "x" * 250 + "@example.com", f"{NEW}\nBcc: a@b.org"])
def test_what_is_no_address_keeps_the_dialog_open(place: tuple[Tailnet, User], email: str) -> None:
    for page in ("", "/settings"):
        answer = Visitor(place[1]).submit(CHANGE, page=page, email=email)
        assert answer.status_code == 422
        assert 'id="email-error"' in answer.content.decode()
    assert contact(place[0]) is None


@pytest.mark.usefixtures("with_mail")
def test_too_many_addresses_a_day_are_refused_in_the_dialog(
    place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "MAX_MAILED", 1)
    visitor = Visitor(place[1])
    visitor.submit(CHANGE, email=NEW)
    refused = visitor.submit(CHANGE, page="/settings", email="other@example.com")
    assert refused.status_code == 422
    assert "Too many attempts" in refused.content.decode()
    assert visitor.submit(RESEND, page="/settings").status_code == 429
    row = contact(place[0])
    assert row is not None
    assert row.email == NEW


def test_there_are_three_and_no_others(place: tuple[Tailnet, User]) -> None:
    visitor = Visitor(place[1])
    assert visitor.get("/settings/contacts/billing").status_code == 404
    assert visitor.submit("/settings/contacts/billing", email=NEW).status_code == 404
    assert visitor.submit("/settings/contacts/billing/resend").status_code == 404


def test_the_page_costs_the_same_queries_whoever_the_contacts_are(place: tuple[Tailnet, User]) -> None:
    visitor, counted = Visitor(place[1]), []
    for addresses in ([], list(Contact.Kind)):
        for kind in addresses:
            visitor.submit(f"/settings/contacts/{kind.value}", email=f"{kind.value}@example.com")
        with CaptureQueriesContext(connection) as queries:
            assert visitor.get("/settings").status_code == 200
        counted.append(len(queries))
    assert counted[0] == counted[1]
