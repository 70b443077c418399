"""Webhooks: what is told, how it is signed, where it may never lead, what becomes of what cannot be sent."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from accounts import limits, tasks
from accounts.actors import Actor
from accounts.errors import Conflict, Invalid, LimitExceeded
from accounts.models import AuditEvent, Membership, Outbox, Tailnet
from accounts.roles import Role
from accounts.services.people import add_member, approve_member, set_role, suspend_member
from accounts.tenancy import scope
from controlplane.models import Webhook
from controlplane.notices import outgoing
from controlplane.notices.occasions import CATEGORIES
from controlplane.notices.outgoing import NoAnswer, NotAllowed, check_url, is_public, post
from controlplane.services import webhooks
from tests.accounts import factories
from tests.nodes.factories import node as join
from tests.pages import Visitor, plain_static_files
from tests.receiver import Answer, Asked, Receiver, receiving

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
ME = Actor.command()
EVERYTHING = [category.name for category in CATEGORIES]


@dataclass
class Hook:
    """Where a webhook leads. It answers ``status``."""

    server: Receiver
    status: int = 200

    @property
    def url(self) -> str:
        return f"{self.server.url}/hook"

    @property
    def got(self) -> list[Asked]:
        return self.server.asked

    def events(self) -> list[dict[str, Any]]:
        return [event for one in self.got for event in json.loads(one.body)]

    def types(self) -> list[str]:
        return [event["type"] for event in self.events()]


@pytest.fixture
def receiver(settings: Any) -> Iterator[Hook]:
    settings.WEBHOOK_PRIVATE = True
    with receiving() as server:
        made = Hook(server)
        server.answer = lambda _: Answer(made.status)
        yield made


@pytest.fixture
def tailnet() -> Tailnet:
    return factories.tailnet("ours")[0]


def hook(tailnet: Tailnet, receiver: Hook, **values: Any) -> tuple[Webhook, str]:
    wanted = {"url": receiver.url, "subscriptions": EVERYTHING} | values
    return webhooks.create_webhook(tailnet=tailnet, by=ME, **wanted)


# --- what is told ------------------------------------------------------------------------------------------


def test_a_device_that_joins_is_told_in_the_known_format_with_a_good_signature(
    tailnet: Tailnet, receiver: Hook
) -> None:
    _, secret = hook(tailnet, receiver)
    node = join(tailnet)
    assert tasks.deliver_outbox() >= 2
    headers, body = receiver.got[0].headers, receiver.got[0].body
    event = json.loads(body)[0]
    assert event.keys() == {"timestamp", "version", "type", "tailnet", "message", "data"}
    assert (event["version"], event["type"], event["tailnet"]) == (1, "nodeCreated", "ours")
    assert event["data"]["nodeID"] == node.stable_id
    assert event["data"]["deviceName"] == node.name
    assert event["data"]["url"].endswith(f"/devices/{node.stable_id}")
    moment, signature = (part.partition("=")[2] for part in headers["Tailscale-Webhook-Signature"].split(","))
    expected = hmac.new(secret.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(signature, expected)
    assert "nodeNeedsApproval" in receiver.types()


def test_people_are_told_of(tailnet: Tailnet, receiver: Hook) -> None:
    hook(tailnet, receiver)
    member = add_member(tailnet=tailnet, user=factories.person("ana@example.com"), by=ME)
    with scope(tailnet=tailnet):
        set_role(membership=member, role=Role.AUDITOR, by=ME)
        suspend_member(membership=member, by=ME)
    tasks.deliver_outbox()
    assert receiver.types() == ["userCreated", "userRoleUpdated", "userSuspended"]
    roles = receiver.events()[1]["data"]
    assert (roles["user"], roles["oldRoles"], roles["newRoles"]) == (
        "ana@example.com",
        ["member"],
        ["auditor"],
    )


def test_only_what_is_subscribed_to_is_told_and_only_to_its_own_tailnet(
    tailnet: Tailnet, receiver: Hook
) -> None:
    hook(tailnet, receiver, subscriptions=["userSuspended"])
    other, _ = factories.tailnet("theirs")
    for one in (tailnet, other):
        member = factories.member(one)
        with scope(tailnet=one):
            suspend_member(membership=member, by=ME)
    tasks.deliver_outbox()
    assert [(event["type"], event["tailnet"]) for event in receiver.events()] == [("userSuspended", "ours")]


@pytest.mark.parametrize(
    ("provider", "member"),
    [("slack", "text"), ("mattermost", "text"), ("googlechat", "text"), ("discord", "content")],
)
def test_chats_get_a_sentence(tailnet: Tailnet, receiver: Hook, provider: str, member: str) -> None:
    hook(tailnet, receiver, provider=provider)
    factories.member(tailnet)
    tasks.deliver_outbox()
    headers, body = receiver.got[0].headers, receiver.got[0].body
    assert json.loads(body)[member].startswith("[ours] User ")
    assert "Tailscale-Webhook-Signature" not in headers


# --- what cannot be sent -----------------------------------------------------------------------------------


def test_a_receiver_that_fails_is_asked_again_and_one_that_is_gone_is_not(
    tailnet: Tailnet, receiver: Hook
) -> None:
    webhook, _ = hook(tailnet, receiver)
    receiver.status = 500
    factories.member(tailnet)
    assert tasks.deliver_outbox() == 0
    with scope(tailnet=tailnet):
        row = webhooks.deliveries(webhook).get()
        assert (row.failed_at, row.last_error, row.attempts) == (None, "answered 500", 1)
        receiver.status = 410
        Outbox.objects.filter(pk=row.pk).update(due=timezone.now())
        assert tasks.deliver_outbox() == 0
        row.refresh_from_db()
        assert row.failed_at is not None
        receiver.status = 200
        webhooks.send_again(webhook=webhook, delivery_id=row.pk, by=ME)
        assert tasks.deliver_outbox() == 1
    assert len(receiver.got) == 3


def test_a_redirect_is_not_followed(tailnet: Tailnet, receiver: Hook) -> None:
    hook(tailnet, receiver)
    receiver.status = 302
    factories.member(tailnet)
    assert tasks.deliver_outbox() == 0
    assert len(receiver.got) == 1


def test_one_switched_off_or_removed_is_told_no_more(tailnet: Tailnet, receiver: Hook) -> None:
    first, _ = hook(tailnet, receiver)
    second, _ = hook(tailnet, receiver)
    factories.member(tailnet)
    with scope(tailnet=tailnet):
        webhooks.update_webhook(webhook=first, by=ME, enabled=False)
        webhooks.delete_webhook(webhook=second, by=ME)
    factories.member(tailnet)
    tasks.deliver_outbox()
    assert receiver.got == []


def test_what_is_sent_after_a_rotation_is_signed_with_the_new_secret(
    tailnet: Tailnet, receiver: Hook
) -> None:
    webhook, old = hook(tailnet, receiver)
    factories.member(tailnet)
    with scope(tailnet=tailnet):
        _, new = webhooks.rotate_webhook(webhook=webhook, by=ME)
    tasks.deliver_outbox()
    headers, body = receiver.got[0].headers, receiver.got[0].body
    moment, signature = (part.partition("=")[2] for part in headers["Tailscale-Webhook-Signature"].split(","))
    made = [
        hmac.new(s.encode(), f"{moment}.".encode() + body, hashlib.sha256).hexdigest() for s in (old, new)
    ]
    assert made.index(signature) == 1


def test_the_secret_is_in_no_row_page_or_log(tailnet: Tailnet, receiver: Hook, settings: Any) -> None:
    webhook, secret = hook(tailnet, receiver)
    with scope(tailnet=tailnet):
        row = Webhook.objects.values().get(pk=webhook.pk)
        owner = Membership.objects.select_related("user", "tailnet").get(role=Role.OWNER)
    assert secret not in json.dumps(row, default=str)
    visitor = Visitor.of(owner)
    for path in ("/settings/webhooks", f"/settings/webhooks/{webhook.public_id}", "/logs"):
        assert secret not in visitor.get(path).content.decode()
    settings.SECRET_KEY = "another"
    factories.member(tailnet)
    tasks.deliver_outbox()
    with scope(tailnet=tailnet):
        assert "rotate" in webhooks.deliveries(webhook).latest("pk").last_error


def test_an_address_that_is_a_secret_is_in_no_log_and_shown_to_those_alone_who_may_change_it(
    tailnet: Tailnet, receiver: Hook
) -> None:
    """Slack's has the secret in the path, Google Chat's in the query: a new one there is a change too."""
    webhook, _ = hook(tailnet, receiver, url=receiver.url + "/T0/first?token=first")
    for address in (receiver.url + "/T0/second?token=first", receiver.url + "/T0/second?token=second"):
        webhooks.update_webhook(webhook=webhook, by=ME, url=address)
        with scope(tailnet=tailnet):
            assert Webhook.objects.get().url == address
    auditor = Visitor.of(factories.member(tailnet, Role.AUDITOR))
    pages = ("/settings/webhooks", f"/settings/webhooks/{webhook.public_id}", "/logs", "/logs/export/jsonl")
    for path in pages:
        answer: Any = auditor.get(path)
        text = (answer.getvalue() if answer.streaming else answer.content).decode()
        assert receiver.url.rpartition("/")[0] in text
        assert "/T0/" not in text
        assert "token=" not in text


def test_the_page_costs_the_same_queries_however_many_there_are(tailnet: Tailnet, receiver: Hook) -> None:
    with scope(tailnet=tailnet):
        visitor = Visitor(Membership.objects.get(role=Role.OWNER).user)
    costs = []
    for more in (1, 6):
        for _number in range(more):
            hook(tailnet, receiver)
        visitor.get("/settings/webhooks")
        with CaptureQueriesContext(connection) as seen:
            assert visitor.get("/settings/webhooks").status_code == 200
        costs.append(len(seen))
    assert costs[0] == costs[1]


def test_an_event_costs_the_same_however_many_are_told(tailnet: Tailnet, receiver: Hook) -> None:
    costs = []
    for more in (1, 6):
        for _number in range(more):
            hook(tailnet, receiver)
        with CaptureQueriesContext(connection) as seen:
            approve_member(
                membership=add_member(tailnet=tailnet, user=factories.person(), by=ME, needs_approval=True),
                by=ME,
            )
        costs.append(len(seen))
    assert costs[0] == costs[1]
    with scope(tailnet=tailnet):
        assert Outbox.objects.filter(subject="userApproved").count() == 1 + 7


# --- where it may never lead -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "ftp://example.com/",
        "https://",
        "https:///path",
        "//example.com",
        "javascript:alert(1)",
        "https://user:pass@example.com/",
        "https://user@example.com/",
        "https://example.com/#part",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:port/",
        "https://exa mple.com/",
        "https://example.com/\r\nX-Header: 1",
        "https://[::1",
        "https://localhost/",
        "https://LOCALHOST/",
        "https://anything.localhost/",
        "https://vpn.tailnet.internal/",
        "https://printer.local/",
        "https://example.com/" + "a" * 500,
    ],
)
def test_addresses_of_a_wrong_form_are_refused_when_they_are_typed(tailnet: Tailnet, url: str) -> None:
    with pytest.raises(Invalid):
        webhooks.create_webhook(tailnet=tailnet, url=url, subscriptions=EVERYTHING, by=ME)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "100.100.100.100",
        "192.0.0.1",
        "198.18.0.1",
        "192.0.2.1",
        "224.0.0.1",
        "239.255.255.250",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a00:1::",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd7a:115c:a1e0::1",
        "ff02::1",
        "2001:db8::1",
        "::7f00:1",
        "fec0::1",
        "64:ff9b:1::a00:1",
    ],
)
def test_a_name_that_leads_to_such_an_address_is_never_asked(address: str) -> None:
    assert not is_public(address)
    with pytest.raises(NotAllowed):
        post("https://example.com/", b"", {}, private=False, resolver=lambda *_: ["93.184.215.14", address])


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "64:ff9b::5db8:d70e"]
)
def test_public_addresses_may_be_asked(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:127.0.0.1]", "127.0.0.1"]
)
def test_numbers_that_mean_this_host_are_never_asked(host: str) -> None:
    with pytest.raises((NotAllowed, NoAnswer)):
        post(f"https://{host}/", b"", {}, private=False)


def test_a_name_that_changes_its_mind_is_asked_where_it_was_judged(receiver: Hook) -> None:
    """DNS rebinding: the connection goes to the address that was looked at, not to a second answer."""
    port = receiver.server.port
    answers = iter([["127.0.0.1"], ["192.0.2.1"]])
    status = post(
        f"http://flips.example.com:{port}/", b"{}", {}, private=True, resolver=lambda *_: next(answers)
    )
    assert status == 200
    assert receiver.got[0].headers["Host"] == f"flips.example.com:{port}"


def test_an_address_in_letters_of_any_language_is_asked(tailnet: Tailnet, receiver: Hook) -> None:
    url = receiver.url + "/año?clave=%C3%B1&otra=ñ"
    assert post(url, b"[]", {}, private=True) == 200
    assert [one.path for one in receiver.got] == ["/hook/a%C3%B1o?clave=%C3%B1&otra=%C3%B1"]


def test_an_answer_that_never_ends_is_cut(monkeypatch: pytest.MonkeyPatch, receiver: Hook) -> None:
    import socket
    import time

    monkeypatch.setattr(outgoing, "WHOLE_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as slow:

        def drip() -> None:
            connection, _ = slow.accept()
            with connection:
                try:
                    while True:
                        connection.sendall(b"H")
                        time.sleep(0.05)
                except OSError:
                    return

        threading.Thread(target=drip, daemon=True).start()
        with pytest.raises(NoAnswer):
            post(f"http://127.0.0.1:{slow.getsockname()[1]}/", b"{}", {}, private=True)


def test_private_addresses_may_be_allowed() -> None:
    assert check_url("http://printer.local/hook", private=True) == "http://printer.local/hook"


# --- bounds and pages --------------------------------------------------------------------------------------


def test_bad_wishes_say_what_is_wrong(tailnet: Tailnet, receiver: Hook) -> None:
    for wrong in ({"subscriptions": ["nothing"]}, {"subscriptions": []}, {"provider": "irc"}):
        with pytest.raises(Invalid):
            hook(tailnet, receiver, **wrong)
    for _ in range(webhooks.MAX_WEBHOOKS):
        hook(tailnet, receiver)
    with pytest.raises(Conflict):
        hook(tailnet, receiver)


def test_the_pages_make_change_try_and_remove_one(tailnet: Tailnet, receiver: Hook) -> None:
    with scope(tailnet=tailnet):
        owner = Membership.objects.select_related("user", "tailnet").get(role=Role.OWNER)
    visitor = Visitor.of(owner)
    form = {"url": receiver.url, "provider": "", "subscriptions": ["nodeCreated", "userCreated"]}
    made = visitor.submit("/settings/webhooks/add", **form).content.decode()
    assert "tskey-webhook-" in made
    with scope(tailnet=tailnet):
        webhook = Webhook.objects.get()
    path = f"/settings/webhooks/{webhook.public_id}"
    refused = visitor.submit(f"{path}/edit", **(form | {"url": "ftp://x"}))
    assert refused.status_code == 422
    assert visitor.submit(f"{path}/edit", **(form | {"subscriptions": ["userCreated"]})).status_code == 302
    visitor.submit(f"{path}/test", page=path)
    tasks.deliver_outbox()
    assert receiver.types() == ["test"]
    page = visitor.get(path).content.decode()
    assert "state-online" in page
    assert "A person joined" in page
    with scope(tailnet=tailnet):
        sent = webhooks.deliveries(webhook).get()
    visitor.submit(f"{path}/again/{sent.pk}", page=path)
    tasks.deliver_outbox()
    assert receiver.types() == ["test", "test"]
    visitor.submit(f"{path}/enabled", page=path, on="0")
    with scope(tailnet=tailnet):
        assert not Webhook.objects.get().enabled
    assert "tskey-webhook-" in visitor.submit(f"{path}/rotate").content.decode()
    assert visitor.submit(f"{path}/delete").status_code == 302
    assert visitor.get(path).status_code == 404


def test_tests_and_repeats_are_counted_together_and_each_is_in_the_log(
    tailnet: Tailnet, receiver: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "MAX_BY_HAND", 2)
    monkeypatch.setattr(limits, "WINDOW_SECONDS", 10**9)  # this minute does not end while the test runs
    webhook, _ = hook(tailnet, receiver)
    other, _ = hook(tailnet, receiver)
    row = webhooks.try_webhook(webhook=webhook, by=ME)
    assert row is not None
    webhooks.send_again(webhook=webhook, delivery_id=row.pk, by=ME)
    for once_more in (
        lambda: webhooks.try_webhook(webhook=webhook, by=ME),
        lambda: webhooks.send_again(webhook=webhook, delivery_id=row.pk, by=ME),
    ):
        with pytest.raises(LimitExceeded, match=r"try again in \d+ s"):
            once_more()
    assert webhooks.try_webhook(webhook=other, by=ME)
    with scope(tailnet=tailnet):
        assert webhooks.deliveries(webhook).count() == 1
        log = AuditEvent.objects.filter(target_id=webhook.public_id).order_by("pk")
        assert list(log.values_list("action", flat=True)) == ["CREATE", "TEST", "RESEND"]
        assert "test" in log.last().details  # type: ignore[union-attr]
        owner = Membership.objects.select_related("user", "tailnet").get(role=Role.OWNER)
    visitor = Visitor.of(owner)
    path = f"/settings/webhooks/{webhook.public_id}"
    refused = visitor.submit(f"{path}/test", page=path)
    assert refused.status_code == 429
    assert "Try again in" in refused.headers["HX-Trigger"]
    assert "Test event sent" in visitor.get("/logs").content.decode()


def test_only_those_who_may_change_settings_touch_webhooks(tailnet: Tailnet, receiver: Hook) -> None:
    webhook, _ = hook(tailnet, receiver)
    path = f"/settings/webhooks/{webhook.public_id}"
    auditor, member = (
        Visitor.of(factories.member(tailnet, Role.AUDITOR)),
        Visitor.of(factories.member(tailnet)),
    )
    assert auditor.get(path).status_code == 200
    assert "hx-post" not in auditor.get(path).content.decode().split("<main")[1]
    for visitor in (auditor, member):
        for action in ("edit", "test", "rotate", "delete", "enabled"):
            assert visitor.submit(f"{path}/{action}", **{"on": "0"}).status_code == 404
    assert member.get(path).status_code == 404
    other, _ = factories.tailnet("theirs")
    with scope(tailnet=other):
        stranger = Membership.objects.select_related("user", "tailnet").get(role=Role.OWNER)
    assert Visitor.of(stranger).get(path).status_code == 404


def test_a_key_that_ends_within_a_day_is_told_once(tailnet: Tailnet, receiver: Hook) -> None:
    from controlplane import tasks as top_tasks
    from nodes.models import Node

    hook(tailnet, receiver, subscriptions=["nodeKeyExpiringInOneDay"])
    node = join(tailnet, factories.member(tailnet).user, preapproved=True)
    with scope(tailnet=tailnet):
        Node.objects.filter(pk=node.pk).update(key_expiry=timezone.now() + timedelta(hours=20))
    top_tasks.tell_of_ending_keys()
    top_tasks.tell_of_ending_keys()
    tasks.deliver_outbox()
    assert [event["data"]["nodeID"] for event in receiver.events()] == [node.stable_id]
