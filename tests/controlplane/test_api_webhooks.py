"""The API's webhooks: made, changed, tried, removed, and their secrets."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from accounts.actors import Actor
from accounts.models import AuditEvent, Outbox, Tailnet
from accounts.roles import Role
from accounts.tenancy import scope
from controlplane.models import Webhook
from controlplane.notices.seal import unseal
from controlplane.services import webhooks
from tests.accounts import factories as people
from tests.api import Api, as_client, as_person
from tests.pages import Visitor, plain_static_files

__all__ = ["plain_static_files"]
pytestmark = pytest.mark.django_db
HOOKS = "/tailnet/-/webhooks"
URL = "https://hooks.example.com/T0/secret-path?x=1"
# What the Go client and the Terraform provider name.
THEIRS = [
    "categoryTailnetManagement",
    "nodeCreated",
    "nodeNeedsApproval",
    "nodeApproved",
    "nodeKeyExpiringInOneDay",
    "nodeKeyExpired",
    "nodeDeleted",
    "policyUpdate",
    "userCreated",
    "userNeedsApproval",
    "userSuspended",
    "userRestored",
    "userDeleted",
    "userApproved",
    "userRoleUpdated",
    "categoryDeviceMisconfigurations",
    "subnetIPForwardingNotEnabled",
    "exitNodeIPForwardingNotEnabled",
]


@pytest.fixture
def tailnet() -> Tailnet:
    return people.tailnet()[0]


@pytest.fixture
def api(tailnet: Tailnet) -> Api:
    return as_client(tailnet, "feature_settings")


def hook(tailnet: Tailnet, url: str = URL) -> Webhook:
    return webhooks.create_webhook(
        tailnet=tailnet, url=url, subscriptions=["nodeCreated"], by=Actor.command()
    )[0]


def last_event(tailnet: Tailnet) -> AuditEvent:
    with scope(tailnet=tailnet):
        return AuditEvent.objects.order_by("-pk")[0]


def test_one_is_made_read_changed_and_removed(api: Api, tailnet: Tailnet) -> None:
    assert api.get(HOOKS) == {"webhooks": []}
    made = api.post(
        HOOKS, {"endpointUrl": URL, "providerType": "slack", "subscriptions": ["nodeDeleted", "nodeCreated"]}
    )
    secret = made.pop("secret")
    with scope(tailnet=tailnet):
        row = Webhook.objects.get(public_id=made["endpointId"])
    assert unseal(row.sealed_secret) == secret
    assert secret.startswith("tskey-webhook-")
    assert made["endpointUrl"] == URL
    assert made["providerType"] == "slack"
    assert made["subscriptions"] == ["nodeCreated", "nodeDeleted"]
    assert made["creatorLoginName"] == row.creator_name
    assert last_event(tailnet).actor_type == "API_TOKEN"
    path = f"/webhooks/{made['endpointId']}"
    assert api.get(path) == made
    assert api.get(HOOKS) == {"webhooks": [made]}
    changed = api.patch(path, {"subscriptions": ["policyUpdate"]})
    assert changed == made | {"subscriptions": ["policyUpdate"], "lastModified": changed["lastModified"]}
    assert api.patch(path, {}) == changed
    assert api.delete(path) == {}
    assert api.refusal("GET", path).status == 404
    assert last_event(tailnet).action == "DELETE"


@pytest.mark.parametrize("subscription", THEIRS)
def test_every_event_that_clients_name_is_taken(api: Api, subscription: str) -> None:
    made = api.post(HOOKS, {"endpointUrl": URL, "providerType": "", "subscriptions": [subscription]})
    assert made["subscriptions"] == [subscription]


def test_what_no_form_offers_stays_when_the_panel_saves(tailnet: Tailnet, api: Api) -> None:
    wanted = ["nodeCreated", "subnetIPForwardingNotEnabled"]
    made = api.post(HOOKS, {"endpointUrl": URL, "subscriptions": wanted})
    admin = people.member(tailnet, Role.ADMIN).user
    form = {"url": URL, "provider": "", "subscriptions": ["nodeDeleted"]}
    Visitor(admin).submit(f"/settings/webhooks/{made['endpointId']}/edit", **form)
    kept = api.get(f"/webhooks/{made['endpointId']}")["subscriptions"]
    assert kept == ["nodeDeleted", "subnetIPForwardingNotEnabled"]


def test_another_secret(api: Api, tailnet: Tailnet) -> None:
    one = hook(tailnet)
    told = api.post(f"/webhooks/{one.public_id}/rotate")
    with scope(tailnet=tailnet):
        one.refresh_from_db()
    assert told["secret"] == unseal(one.sealed_secret)
    assert "secret" not in api.get(f"/webhooks/{one.public_id}")
    assert last_event(tailnet).target_property == "SECRET"


def test_a_test_event_is_noted_for_this_one(api: Api, tailnet: Tailnet) -> None:
    one, _other = hook(tailnet), hook(tailnet)
    assert api.post(f"/webhooks/{one.public_id}/test") == {}
    with scope(tailnet=tailnet):
        (row,) = Outbox.objects.all()
    assert (row.target, row.payload["event"]["type"]) == (one.public_id, "test")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"endpointUrl": URL}, 400, "subscriptions"),
        ({"endpointUrl": URL, "subscriptions": []}, 400, "subscriptions"),
        ({"endpointUrl": URL, "subscriptions": ["nodeInvented"]}, 400, "none of the values"),
        ({"endpointUrl": URL, "subscriptions": ["test"]}, 400, "none of the values"),
        ({"endpointUrl": URL, "subscriptions": None}, 400, "subscriptions"),
        ({"endpointUrl": "hooks", "subscriptions": ["nodeCreated"]}, 400, "write it like https://"),
        ({"endpointUrl": URL, "providerType": "irc", "subscriptions": ["nodeCreated"]}, 400, "none of"),
        ({"endpointUrl": "http://example.com/", "subscriptions": ["nodeCreated"]}, 409, "https://"),
        ({"endpointUrl": "https://localhost/", "subscriptions": ["nodeCreated"]}, 409, "nowhere"),
        ({"endpointUrl": "https://[x/", "subscriptions": ["nodeCreated"]}, 409, "no"),
    ],
)
def test_what_is_wrong_makes_none(api: Api, body: Any, status: int, words: str) -> None:
    refused = api.refusal("POST", HOOKS, body)
    assert (refused.status, words in refused.message) == (status, True), refused
    assert api.get(HOOKS) == {"webhooks": []}


def test_who_may_not_is_told_so_and_readers_see_no_secret_address(tailnet: Tailnet) -> None:
    one, other = hook(tailnet), hook(people.tailnet()[0])
    path = f"/webhooks/{one.public_id}"
    reads = as_client(tailnet, "feature_settings:read")
    assert reads.get(path)["endpointUrl"] == "https://hooks.example.com"
    calls = (("PATCH", path), ("DELETE", path), ("POST", f"{path}/test"), ("POST", f"{path}/rotate"))
    for method, address in calls:
        assert reads.refusal(method, address, {}).status == 403
    body = {"endpointUrl": URL, "subscriptions": ["nodeCreated"]}
    assert reads.refusal("POST", HOOKS, body).status == 403
    assert as_client(tailnet, "dns").refusal("GET", HOOKS).status == 403
    assert as_person(tailnet, people.member(tailnet).user).refusal("GET", path).status == 403
    everything = as_client(tailnet)
    for method, address in (("GET", path), *calls):
        theirs = address.replace(one.public_id, other.public_id)
        assert everything.refusal(method, theirs, {}).status == 404
    assert everything.refusal("GET", "/webhooks/%00").status == 404


def test_a_list_costs_the_same_for_any_number(api: Api, tailnet: Tailnet) -> None:
    def queries() -> int:
        with CaptureQueriesContext(
            connection,
        ) as captured:
            api.get(HOOKS)
        return len(captured)

    hook(tailnet)
    api.get(HOOKS)
    one = queries()
    for _ in range(5):
        hook(tailnet)
    assert queries() == one
