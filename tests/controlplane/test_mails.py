"""E-mails: to whom, about what, in which language, gathered, once; through a real SMTP server."""

from __future__ import annotations

import email
import socketserver
import threading
from collections.abc import Iterator
from datetime import timedelta
from email.message import EmailMessage
from email.policy import default
from typing import Any, cast

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import tasks
from accounts.actors import Actor
from accounts.changes import write
from accounts.models import Membership, Outbox, Tailnet, User
from accounts.roles import Role
from accounts.services.people import add_member
from accounts.tenancy import scope
from controlplane import tasks as top_tasks
from controlplane.services import mails
from nodes.models import Node
from nodes.services.lifecycle import approve_node
from nodes.services.routes import sync_routes
from tests.accounts import factories
from tests.nodes.factories import node as join
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()


class Post:
    """An SMTP server (RFC 5321, as much as a client needs) that keeps what is handed in."""

    def __init__(self) -> None:
        self.got: list[EmailMessage] = []
        self.refuses = False
        post = self

        class Handler(socketserver.StreamRequestHandler):
            def say(self, line: str) -> None:
                self.wfile.write(f"{line}\r\n".encode())

            def handle(self) -> None:
                self.say("220 post")
                while line := self.rfile.readline().decode().strip():
                    verb = line.upper().partition(" ")[0]
                    if verb == "RCPT" and post.refuses:
                        self.say("550 nobody here")
                    elif verb == "DATA":
                        self.say("354 go on")
                        self.keep()
                    elif verb == "QUIT":
                        return self.say("221 bye")
                    else:
                        self.say("250 fine")
                return None

            def keep(self) -> None:
                lines = []
                while (line := self.rfile.readline()) != b".\r\n":
                    lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
                message = email.message_from_bytes(b"".join(lines), policy=default)
                post.got.append(cast(EmailMessage, message))
                self.say("250 kept")

        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def to(self, address: str) -> list[EmailMessage]:
        return [message for message in self.got if message["To"] == address]


@pytest.fixture
def post(settings: Any) -> Iterator[Post]:
    made = Post()
    settings.EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = made.server.server_address
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    settings.EMAIL_HOST_USER = settings.EMAIL_HOST_PASSWORD = ""
    settings.MAIL_IS_SET_UP = True
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def tailnet() -> Tailnet:
    return factories.tailnet("ours", device_approval=True)[0]


def person(tailnet: Tailnet, address: str, role: str, **values: Any) -> User:
    user = factories.person(address)
    User.objects.filter(pk=user.pk).update(**values)
    add_member(tailnet=tailnet, user=user, role=role, by=ME)
    user.refresh_from_db()
    return user


def text_of(message: EmailMessage) -> str:
    body = message.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def deliver() -> None:
    top_tasks.mail_what_waits()
    tasks.deliver_outbox()


def test_devices_that_wait_are_one_mail_to_those_who_may_approve_them(tailnet: Tailnet, post: Post) -> None:
    for address, role in (
        ("it@x.org", Role.IT_ADMIN),
        ("net@x.org", Role.NETWORK_ADMIN),
        ("m@x.org", Role.MEMBER),
    ):
        person(tailnet, address, role)
    owner = factories.person("ana@x.org")
    for name in ("laptop", "phone", "tablet"):
        join(tailnet, owner, hostname=name)
    deliver()
    (message,) = post.to("it@x.org")
    assert message["Subject"] == "3 things wait for your approval in ours"
    text = text_of(message)
    assert all(name in text for name in ("laptop (ana@x.org)", "phone", "tablet", "/approvals"))
    html = message.get_body(("html",))
    assert html is not None
    assert "laptop" in html.get_content()
    assert not post.to("net@x.org")
    assert not post.to("m@x.org")
    deliver()
    assert len(post.to("it@x.org")) == 1, "once"


def test_offers_go_to_those_who_approve_routes_and_an_offer_made_again_is_told_again(
    tailnet: Tailnet, post: Post
) -> None:
    person(tailnet, "net@x.org", Role.NETWORK_ADMIN)
    person(tailnet, "it@x.org", Role.IT_ADMIN)
    node = join(tailnet, factories.person("ana@x.org"), hostname="router", preapproved=True)
    for prefixes in (["10.1.0.0/16"], [], ["10.1.0.0/16"]):
        with write(tailnet) as change:
            sync_routes(change, node, prefixes, (), timezone.now())
        deliver()
    assert [("10.1.0.0/16 (router)" in text_of(one)) for one in post.to("net@x.org")] == [True, True]
    assert not post.to("it@x.org")


def test_what_was_decided_meanwhile_is_not_mailed_about(tailnet: Tailnet, post: Post) -> None:
    person(tailnet, "it@x.org", Role.IT_ADMIN)
    node = join(tailnet, factories.person("ana@x.org"))
    with scope(tailnet=tailnet):
        approve_node(node=node, by=ME)
    deliver()
    assert post.got == []


def test_a_sweep_that_finds_nothing_new_writes_nothing(tailnet: Tailnet, post: Post) -> None:
    for waits in (False, True):
        if waits:
            join(tailnet, factories.person("ana@x.org"))
            top_tasks.mail_what_waits()
        with scope(tailnet=tailnet), CaptureQueriesContext(connection) as seen:
            assert mails.tell_of_waiting(tailnet=tailnet) == 0
        assert not [one["sql"] for one in seen if not one["sql"].startswith("SELECT")]


def test_a_person_who_waits_and_the_reader_s_language(tailnet: Tailnet, post: Post) -> None:
    person(tailnet, "admin@x.org", Role.ADMIN, language="es")
    add_member(tailnet=tailnet, user=factories.person("new@x.org"), by=ME, needs_approval=True)
    deliver()
    (message,) = post.to("admin@x.org")
    assert message["Subject"] == "1 cosa espera tu aprobación en ours"
    assert "new@x.org" in text_of(message)


def test_a_kind_that_is_switched_off_is_not_mailed_about(tailnet: Tailnet, post: Post) -> None:
    person(tailnet, "it@x.org", Role.IT_ADMIN)
    with scope(tailnet=tailnet):
        owner = Membership.objects.select_related("user", "tailnet").get(role=Role.OWNER)
    visitor = Visitor.of(owner)
    assert visitor.submit("/settings/switch/mail-devices", page="/settings").status_code == 200
    join(tailnet, factories.person("ana@x.org"))
    deliver()
    assert post.got == []
    assert visitor.submit("/settings/switch/mail-devices", page="/settings", on="1").status_code == 200
    join(tailnet, factories.person("bob@x.org"), hostname="second")
    deliver()
    text = text_of(post.to("it@x.org")[0])
    assert "second" in text
    assert "ana@x.org" not in text, "what came while it was off was never meant to be told"


def test_owners_are_told_a_week_and_a_day_before_a_key_ends(tailnet: Tailnet, post: Post) -> None:
    ana = person(tailnet, "ana@x.org", Role.MEMBER)
    node = join(tailnet, ana, hostname="laptop", preapproved=True)
    end = timezone.now() + timedelta(days=10)
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(key_expiry=end)
        for now in (end - timedelta(days=8), *[end - timedelta(days=6)] * 2, *[end - timedelta(hours=9)] * 2):
            mails.tell_of_ending(tailnet=tailnet, now=now)
    tasks.deliver_outbox()
    assert [message["Subject"] for message in post.to("ana@x.org")] == [
        "The sign-in of laptop ends within 7 days",
        "The sign-in of laptop ends within a day",
    ]


def test_a_long_list_is_cut_and_says_how_many_more(tailnet: Tailnet, post: Post) -> None:
    person(tailnet, "it@x.org", Role.IT_ADMIN)
    for number in range(mails.MAX_LINES + 3):
        join(tailnet, factories.person(f"p{number}@x.org"), hostname=f"h{number}")
    deliver()
    text = text_of(post.to("it@x.org")[0])
    assert text.count("\n- ") + text.startswith("- ") == mails.MAX_LINES
    assert "and 3 more" in text


def test_more_than_is_kept_in_mind_is_not_mailed_about_again_and_again(
    tailnet: Tailnet, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    person(tailnet, "admin@x.org", Role.ADMIN)
    monkeypatch.setattr(mails, "MAX_TOLD", 3)
    for number in range(3):
        join(tailnet, factories.person(f"p{number}@x.org"), hostname=f"h{number}")
    for number in range(2):
        waits = factories.person(f"w{number}@x.org")
        add_member(tailnet=tailnet, user=waits, by=ME, needs_approval=True)
    for _sweep in range(3):
        deliver()
    assert len(post.to("admin@x.org")) == 1
    with scope(tailnet=tailnet):
        devices = list(Node.objects.all())
    for device in devices:
        approve_node(node=device, by=ME)
    deliver()
    assert "w1@x.org" in text_of(post.to("admin@x.org")[1]), "told once there is room"


def test_what_cannot_be_delivered_is_said_on_the_settings_page_and_its_text_is_not_kept(
    tailnet: Tailnet, post: Post
) -> None:
    person(tailnet, "it@x.org", Role.IT_ADMIN)
    post.refuses = True
    join(tailnet, factories.person("ana@x.org"))
    deliver()
    with scope(tailnet=tailnet):
        row = Outbox.objects.get(target="it@x.org")
        assert "nobody here" in row.last_error
        Outbox.objects.filter(pk=row.pk).update(failed_at=timezone.now())
        owner = Membership.objects.select_related("user", "tailnet").get(role=Role.OWNER)
    page = Visitor.of(owner).get("/settings").content.decode()
    assert "nobody here" in page
    post.refuses = False
    with scope(tailnet=tailnet):
        Outbox.objects.filter(pk=row.pk).update(failed_at=None, due=timezone.now())
    tasks.deliver_outbox()
    row.refresh_from_db()
    assert row.delivered_at is not None
    assert row.payload == {}


def test_nothing_of_another_tailnet_is_in_a_mail(tailnet: Tailnet, post: Post) -> None:
    person(tailnet, "it@x.org", Role.IT_ADMIN)
    other, _ = factories.tailnet("theirs")
    join(other, factories.person("canary@y.org"), hostname="canary")
    join(tailnet, factories.person("ana@x.org"))
    deliver()
    assert "canary" not in text_of(post.to("it@x.org")[0])
