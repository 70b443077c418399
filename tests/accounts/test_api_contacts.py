"""Contacts: changed by the API, verified by a link that is mailed to them."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.test import Client
from django.utils import timezone

from accounts.actors import Actor
from accounts.api.fields import EMAIL
from accounts.errors import Gone
from accounts.models import AuditEvent, Contact, Outbox, Tailnet, User
from accounts.roles import Role
from accounts.services import contacts
from accounts.services.people import check_email
from accounts.tenancy import scope
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.pages import plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
CONTACTS = "/tailnet/-/contacts"
NEW = "security@example.com"


@pytest.fixture
def place() -> tuple[Tailnet, User]:
    return people.tailnet(display_name="Harbour")


@pytest.fixture
def api(place: tuple[Tailnet, User]) -> Api:
    return as_client(place[0], "account_settings")


@pytest.fixture
def with_mail(settings: LazySettings) -> None:
    settings.MAIL_IS_SET_UP = True


def mails(tailnet: Tailnet) -> list[Outbox]:
    with scope(tailnet=tailnet):
        return list(Outbox.objects.order_by("pk"))


def link_in(mail: Outbox) -> str:
    found = re.search(r"/contacts/verify/(\S+)", str(mail.payload["text"]))
    assert found is not None
    return found.group(0)


def test_the_owner_is_every_contact_until_another_is_set(api: Api, place: tuple[Tailnet, User]) -> None:
    owner = {"email": place[1].email, "needsVerification": False}
    assert api.get(CONTACTS) == {"account": owner, "support": owner, "security": owner}
    assert api.patch(f"{CONTACTS}/security", {"email": place[1].email}) == {}
    assert api.patch(f"{CONTACTS}/security", {}) == {}
    assert api.get(CONTACTS)["security"] == owner
    with scope(tailnet=place[0]):
        assert not Contact.objects.exists()


@pytest.mark.usefixtures("with_mail")
def test_a_new_address_counts_once_its_link_was_opened(
    api: Api, place: tuple[Tailnet, User], client: Client
) -> None:
    tailnet, owner = place
    for _ in range(2):  # the second time it is set already
        api.patch(f"{CONTACTS}/security", {"email": NEW})
    waits = {"email": NEW, "fallbackEmail": owner.email, "needsVerification": True}
    assert api.get(CONTACTS)["security"] == waits
    (mail,) = mails(tailnet)
    assert mail.target == NEW
    link = link_in(mail)
    page = client.get(link).content.decode()
    assert "Harbour" in page
    assert NEW in page
    assert api.get(CONTACTS)["security"] == waits, "looking confirms nothing"
    assert "Your address is confirmed" in client.post(link).content.decode()
    assert api.get(CONTACTS)["security"] == {"email": NEW, "needsVerification": False}
    assert api.get(CONTACTS)["account"]["email"] == owner.email
    assert client.post(link).status_code == client.get(link).status_code == 410
    with scope(tailnet=tailnet):
        confirmed, changed = AuditEvent.objects.order_by("-pk")[:2]
    assert (changed.actor_type, changed.target_property, changed.old, changed.new) == (
        "API_TOKEN",
        "CONTACT_SECURITY",
        owner.email,
        NEW,
    )
    assert confirmed.target_property == "CONTACT_SECURITY"


@pytest.mark.usefixtures("with_mail")
def test_the_verified_address_stands_in_and_needs_no_second_verification(
    api: Api, place: tuple[Tailnet, User]
) -> None:
    api.patch(f"{CONTACTS}/account", {"email": NEW})
    contacts.verify_contact(token=link_in(mails(place[0])[0]).rpartition("/")[2])
    api.patch(f"{CONTACTS}/account", {"email": "other@example.com"})
    assert api.get(CONTACTS)["account"] == {
        "email": "other@example.com",
        "fallbackEmail": NEW,
        "needsVerification": True,
    }
    api.patch(f"{CONTACTS}/account", {"email": NEW})
    assert api.get(CONTACTS)["account"] == {"email": NEW, "needsVerification": False}
    assert mails(place[0]) == [], "no link is on its way any more"


@pytest.mark.usefixtures("with_mail")
def test_sent_again_the_old_link_is_dead(api: Api, place: tuple[Tailnet, User]) -> None:
    api.patch(f"{CONTACTS}/support", {"email": NEW})
    (old,) = mails(place[0])
    assert api.post(f"{CONTACTS}/support/resend-verification-email") == {}
    (new,) = mails(place[0])
    with pytest.raises(Gone):
        contacts.find_contact(token=link_in(old).rpartition("/")[2])
    token = link_in(new).rpartition("/")[2]
    with pytest.raises(Gone):
        contacts.find_contact(token=token, now=timezone.now() + contacts.LIFETIME + timedelta(seconds=1))
    contacts.verify_contact(token=token)
    refused = api.refusal("POST", f"{CONTACTS}/support/resend-verification-email")
    assert (refused.status, "needs no verification" in refused.message) == (409, True)


def test_a_server_without_mail_keeps_the_address_and_says_what_it_lacks(
    api: Api, place: tuple[Tailnet, User]
) -> None:
    api.patch(f"{CONTACTS}/security", {"email": NEW})
    assert api.get(CONTACTS)["security"]["needsVerification"]
    assert mails(place[0]) == []
    refused = api.refusal("POST", f"{CONTACTS}/security/resend-verification-email")
    assert (refused.status, "TRENZA_EMAIL_URL" in refused.message) == (409, True)


@pytest.mark.usefixtures("with_mail")
def test_nobody_has_the_server_write_to_the_whole_world(
    api: Api, place: tuple[Tailnet, User], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "MAX_MAILED", 2)
    for number in range(2):
        api.patch(f"{CONTACTS}/support", {"email": f"a{number}@example.com"})
    refused = api.refusal("PATCH", f"{CONTACTS}/support", {"email": NEW})
    assert refused.status == 429
    assert 86000 < int(api.headers["Retry-After"]) <= 86400
    assert api.get(CONTACTS)["support"]["email"] == "a1@example.com"
    assert api.refusal("POST", f"{CONTACTS}/support/resend-verification-email").status == 429
    tomorrow = timezone.now() + timedelta(days=1, seconds=1)
    contacts.set_contact(
        tailnet=place[0], kind=Contact.Kind.SUPPORT, email=NEW, by=Actor.command(), now=tomorrow
    )


@pytest.mark.parametrize(
    "email", ["nobody", "", None, 1, "a@b", "x" * 250 + "@example.com", "a@example.com\0"]
)
def test_what_is_no_address_changes_nothing(api: Api, email: object) -> None:
    before = api.get(CONTACTS)
    assert api.refusal("PATCH", f"{CONTACTS}/account", {"email": email}).status == 400
    assert api.get(CONTACTS) == before


def test_what_the_pattern_takes_the_service_takes() -> None:
    """Else a request that is as described would be refused."""
    for email in ("a@b.co", "x.y+z@a-b.example.museum", "!#$%&'*+/=?^_{|}~-@x.xn--p1ai", "owner@localhost"):
        assert re.fullmatch(EMAIL, email), email
        assert check_email(email) == email
    for email in ("a@b", ".a@b.co", "a..b@b.co", "a@-b.co", "a@b.c", "a@b.a1", '"a"@b.co', "a@[127.0.0.1]"):
        assert not re.fullmatch(EMAIL, email), email


def test_the_owners_address_can_be_set_back(place: tuple[Tailnet, User]) -> None:
    tailnet, owner = place
    User.objects.filter(pk=owner.pk).update(email="owner@localhost")
    api = as_client(tailnet, "account_settings")
    api.patch(f"{CONTACTS}/security", {"email": NEW})
    api.patch(f"{CONTACTS}/security", {"email": "owner@localhost"})
    assert api.get(CONTACTS)["security"] == {"email": "owner@localhost", "needsVerification": False}


def test_who_may_not_is_told_so(place: tuple[Tailnet, User]) -> None:
    tailnet, _ = place
    other, _ = people.tailnet()
    reads = as_client(tailnet, "account_settings:read")
    change = ("PATCH", f"{CONTACTS}/account", {"email": NEW})
    again = ("POST", f"{CONTACTS}/account/resend-verification-email")
    assert reads.get(CONTACTS)
    assert reads.refusal(*change).status == reads.refusal(*again).status == 403
    assert as_client(tailnet, "dns").refusal("GET", CONTACTS).status == 403
    assert as_client(tailnet).refusal("PATCH", f"{CONTACTS}/billing", {"email": NEW}).status == 404
    assert as_client(tailnet).refusal("GET", f"/tailnet/{other.name}/contacts").status == 404
    auditor = as_person(tailnet, people.member(tailnet, Role.AUDITOR).user)
    assert auditor.get(CONTACTS)
    assert auditor.refusal(*change).status == 403
    assert as_person(tailnet, people.member(tailnet).user).refusal("GET", CONTACTS).status == 403


def test_a_link_that_is_none_is_gone(client: Client) -> None:
    assert client.get("/contacts/verify/nothing").status_code == 410
    assert client.post("/contacts/verify/nothing").status_code == 410
